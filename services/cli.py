"""`weighbridge`: everything an operator, a data scientist or a reviewer does from a shell.

Rule: a command prints what it found in plain words and exits 0, or 1 where something that was to
hold does not. A refusal prints one sentence that says what to do, and exits 2, as wrong options do;
1, where what was kept as evidence is why. A command is imported when it is called (cli_lazy.py).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from rich.console import Console

from .cli_edge import drop_output, prepare_output, said_of
from .cli_lazy import lazy_group
from .settings import settings

__all__ = ["app", "main"]

audit = lazy_group(
    {
        "verify": "services.cli_audit:verify",
        "key": "services.cli_audit:key",
        "find": "services.cli_find:find",
        "show": "services.cli_audit:show",
        "query": "services.cli_query:query",
        "parquet": "services.cli_query:parquet",
        "prove": "services.cli_audit:prove",
        "check": "services.cli_audit:check",
        "export": "services.cli_export:export",
        "replay": "services.cli_replay:replay",
        "override": "services.cli_override:override",
        "erase": "services.cli_erase:erase",
        "hold": "services.cli_erase:hold",
        "release": "services.cli_erase:release",
        "prune": "services.cli_prune:prune",
        "rotate-key": "services.cli_rotate:rotate_key",
        "fsck": "services.cli_fsck:fsck",
    },
    help="Read, prove and verify the audit log.",
)
app = lazy_group(
    {
        "train": "services.cli_models:train",
        "register": "services.cli_register:register_model",
        "models": "services.cli_models:models",
        "experiments": "services.cli_models:experiments",
        "bento": "services.cli_models:bento",
        "demo": "services.cli_report:demo",
        "report": "services.cli_report:report",
        "audit": audit,
        "apikey": "services.cli_apikey:apikey",
        "notary": "services.cli_notary:run_notary",
        "explainer": "services.cli_notary:run_explainer",
        "witness": "services.cli_witness:run_witness",
    },
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, serve, prove and report model decisions.",
)
errors = Console(stderr=True)


@app.callback()
def prepare() -> None:
    """Point BentoML at the home folder of this project."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    os.environ.setdefault("BENTOML_HOME", str(settings().bentoml_home))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


def main(*args: Any, **options: Any) -> None:
    """Run a command; refusals are one sentence and exit status 2 (cli_edge.py)."""
    prepare_output()
    try:
        try:
            app(*args, **options)
        finally:
            sys.stdout.flush()  # here, where a full disk can still be said
    except BrokenPipeError as exc:
        drop_output()
        raise SystemExit(2) from exc
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # click's 1 would be a verdict
            ended.code = 2
        raise
    except Exception as exc:
        if not isinstance(exc, _refusals()):
            raise
        if isinstance(exc, OSError):
            drop_output()
        errors.print(f"weighbridge: {said_of(exc)}", style="red", soft_wrap=True, markup=False)
        raise SystemExit(1 if _is_evidence(exc) else 2) from exc


def _is_evidence(error: Exception) -> bool:
    from audit.errors import EvidenceError  # noqa: PLC0415

    return isinstance(error, EvidenceError)


def _refusals() -> tuple[type[Exception], ...]:
    """What a command raises to refuse; each room's own is only there once that was imported."""
    from audit.errors import AuditError  # noqa: PLC0415
    from experiments.errors import DefinitionError  # noqa: PLC0415
    from runners.errors import RunnerError  # noqa: PLC0415

    from .faults import BadRequest  # noqa: PLC0415

    return AuditError, RunnerError, DefinitionError, BadRequest, OSError, ValueError
