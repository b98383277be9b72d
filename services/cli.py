"""`weighbridge`: everything an operator, a data scientist or a reviewer does from a shell.

Rule: a command prints what it found in plain words and exits 0; a refusal prints one sentence that
says what to do and exits 1. Heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from audit.errors import AuditError
from experiments.errors import DefinitionError
from experiments.plan import load_folder
from runners.errors import RunnerError

from .accessed import Actor, Reason, record_access
from .cli_apikey import apikey
from .cli_audit import audit
from .cli_edge import drop_output, prepare_output, said_of
from .cli_notary import run_explainer, run_notary
from .cli_register import register_model
from .cli_witness import run_witness
from .faults import BadRequest
from .masterkey import load_or_create_keyring
from .models import open_registry, registry_signer
from .settings import settings

__all__ = ["app", "main"]

_REFUSALS = (AuditError, RunnerError, DefinitionError, BadRequest, OSError, ValueError)
_FIGURES = ("accuracy", "auc", "macro_f1", "rmse")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, serve, prove and report model decisions.",
)
app.add_typer(audit, name="audit")
app.add_typer(apikey, name="apikey")
app.command("register")(register_model)
app.command("witness")(run_witness)
app.command("notary")(run_notary)
app.command("explainer")(run_explainer)
console = Console()
errors = Console(stderr=True)


@app.callback()
def prepare() -> None:
    """Point BentoML at the home folder of this project."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    os.environ.setdefault("BENTOML_HOME", str(settings().bentoml_home))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


@app.command()
def train(
    model: Annotated[str | None, typer.Argument(help="one model; all when left out")] = None,
    version: Annotated[str | None, typer.Option(help="one version; both when left out")] = None,
    fast: Annotated[bool, typer.Option(help="seconds instead of minutes, worse models")] = False,
    force: Annotated[bool, typer.Option(help="train what the registry already holds")] = False,
) -> None:
    """Train, evaluate, export and register the reference models."""
    from runners.reference.catalog import TASKS, VERSIONS  # noqa: PLC0415

    chosen = settings()
    registry = open_registry(chosen)
    wanted = [
        (n, v) for n in ([model] if model else TASKS) for v in ([version] if version else VERSIONS)
    ]
    if not force and all(registry.holds(*tag) for tag in wanted):
        console.print(f"nothing to train: {registry.home} holds all of it", soft_wrap=True)
        return
    from runners.reference.train import train_all  # noqa: PLC0415  torch and TensorFlow are slow

    keyring = load_or_create_keyring(chosen)
    made = train_all(
        registry,
        chosen.data_dir,
        models=[model] if model else None,
        versions=[version] if version else None,
        fast=fast,
        force=force,
        signer=registry_signer(keyring),
        console=console,
    )
    held = sum(len(registry.versions(name)) for name in registry.names())
    console.print(f"trained {len(made)} versions; {registry.home} now holds {held}", soft_wrap=True)


@app.command()
def models() -> None:
    """List the model versions in the registry, with digests and figures."""
    registry = open_registry(settings())
    if not registry.names():
        console.print(
            f"no model under {registry.home}; `weighbridge train` makes four", soft_wrap=True
        )
        return
    table = Table("model", "kind", "framework", "digest", *_FIGURES, box=None)
    for name in registry.names():
        for version in registry.versions(name):
            manifest = registry.manifest(name, version)
            figures = (str(manifest.evaluation.get(key, "")) for key in _FIGURES)
            digest = manifest.digest.removeprefix("sha256:")[:12]
            table.add_row(f"{name}:{version}", manifest.kind, manifest.framework, digest, *figures)
    console.print(table)


@app.command()
def experiments(
    folder: Annotated[Path | None, typer.Argument(help="folder of definitions")] = None,
) -> None:
    """Check experiment definitions and show what they assign."""
    table = Table("experiment", "model", "kind", "epoch", "arms", "version", box=None)
    for definition in load_folder(folder or settings().definitions).values():
        arms = ", ".join(f"{a.name}={a.version} ({a.propensity})" for a in definition.arms)
        table.add_row(
            definition.name,
            definition.model,
            definition.kind,
            str(definition.epoch),
            arms,
            definition.version[:12],
        )
    console.print(table)


@app.command()
def report(
    *,
    since: Annotated[str, typer.Option("--from", help="first moment, ISO 8601, UTC")] = "",
    until: Annotated[str, typer.Option("--to", help="last moment, ISO 8601, UTC")] = "",
    out: Annotated[Path | None, typer.Option(help="folder for report.html and .json")] = None,
    examples: Annotated[int, typer.Option(help="worked explanations per model")] = 2,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Write the audit report of a period as one HTML file and one JSON file."""
    from .reporting import write_report  # noqa: PLC0415  matplotlib is slow to import

    chosen = settings()
    if chosen.log_dir.is_dir():
        period = f"from {since or 'the beginning'} to {until or 'now'}, {examples} examples"
        record_access(
            chosen, chosen.log_dir, action="report", target=period, actor=actor, reason=reason
        )
    written = write_report(chosen, since=since, until=until, out=out, examples=examples)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


@app.command()
def demo(
    rows: Annotated[int, typer.Option(help="held-out rows of each data set")] = 400,
) -> None:
    """Replay held-out data through a running server, then report and verify."""
    from .demo import run  # noqa: PLC0415  needs the extra `dev`

    raise typer.Exit(run(settings(), rows=rows, console=console))


@app.command()
def bento() -> None:
    """Build a bento with the registered models, offline."""
    from .packaging import build  # noqa: PLC0415

    console.print(f"built {build(settings())}", soft_wrap=True)


def main(*args: Any, **options: Any) -> None:
    """Run a command; refusals are one sentence and exit status 1 (cli_edge.py)."""
    prepare_output()
    try:
        try:
            app(*args, **options)
        finally:
            sys.stdout.flush()  # here, where a full disk can still be said
    except BrokenPipeError as exc:
        drop_output()
        raise SystemExit(1) from exc
    except _REFUSALS as exc:
        if isinstance(exc, OSError):
            drop_output()
        errors.print(f"weighbridge: {said_of(exc)}", style="red", soft_wrap=True, markup=False)
        raise SystemExit(1) from exc
