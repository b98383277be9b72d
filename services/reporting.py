"""The audit report of this installation: the log, the keys and the analysis put together.

Rule: the report is about one signed checkpoint and is the same bytes when made again from it; what
it says of completeness is what `audit verify` says of the same files.
Boundary: audit/report draws and counts; experiments/estimate analyses; this module hands one to the
other and reads personal data only for the worked examples that were asked for.
"""

from __future__ import annotations

import time
from pathlib import Path

from audit.errors import NotFound, PayloadDamaged
from audit.note import VerifierKey
from audit.reader import LogReader
from audit.record import Decision
from audit.report import build, render_html, render_json
from audit.rotation import chain_of
from audit.seals import Seals
from audit.verify import verify_log
from audit.writerlock import has_writer
from experiments.estimate import analyse

from .masterkey import load_keyring
from .models import open_registry
from .moments import moment_us
from .settings import Settings

__all__ = ["write_report"]

_SIGNED_WITHIN_S = 10.0
_POLL_S = 0.1


def write_report(
    settings: Settings, *, since: str, until: str, out: Path | None, examples: int
) -> list[Path]:
    """Write `report.html` and `report.json`; returns their paths.

    Args:
        settings: where the log and the keys are.
        since: first moment; "" from the beginning.
        until: last moment, excluded; "" up to the checkpoint.
        out: the folder; None picks `reports/` below home.
        examples: worked explanations per model version; 0 shows no personal data.
    """
    if not settings.log_dir.is_dir():
        raise NotFound(f"there is no log in {settings.log_dir}; start a server first")
    keyring = load_keyring(settings)
    reader, seals = LogReader(settings.log_dir), Seals(settings.log_dir, keyring)
    trusted = keyring.verifier_key(settings.origin)
    checkpoint, size = _covering_checkpoint(reader, trusted)
    entries = [(entry.index, entry.event) for entry in reader.entries(end=size)]
    times = [event.time_us for _, event in entries] or [0]
    findings = verify_log(settings.log_dir, str(trusted))

    def payload(decision: str, name: str) -> bytes | None:
        return reader.payload(keyring, decision, name)

    def sealed(decision: Decision) -> dict[str, object] | None:
        try:
            return seals.secret(decision)
        except PayloadDamaged:
            return None  # the report says that the decision could not be counted

    data = build(
        entries,
        payload=payload,
        sealed=sealed,
        checkpoint=checkpoint,
        since_us=moment_us(since, default=min(times)),
        until_us=moment_us(until, default=max(times) + 1),
        completeness=findings,
        analyse=analyse,
        positive_labels=_positive_labels(settings),
        minimum_count=settings.fairness_minimum,
        worked_per_model=examples,
        verify_command=f"weighbridge audit verify --log LOG_FOLDER --key '{trusted}'",
    )
    folder = out or settings.home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "report.html", folder / "report.json"]
    written[0].write_text(render_html(data), encoding="utf-8")
    written[1].write_bytes(render_json(data))
    return written


def _covering_checkpoint(reader: LogReader, trusted: VerifierKey) -> tuple[str, int]:
    """A signed checkpoint and its size: one that covers what is in the log by now.

    A living writer signs within seconds, so it is waited for; of a dead one the last is taken.
    """
    wanted, deadline = reader.size(), time.monotonic() + _SIGNED_WITHIN_S
    while True:
        note = reader.checkpoint()
        size = chain_of(reader.directory, trusted).open(note).size
        waiting = size < wanted and time.monotonic() < deadline
        if not (waiting and has_writer(reader.directory)):
            return note, size
        time.sleep(_POLL_S)


def _positive_labels(settings: Settings) -> dict[str, str]:
    """The label that counts as selected, for the models that declare protected attributes."""
    registry = open_registry(settings)
    found: dict[str, str] = {}
    for name in registry.names():
        for version in registry.versions(name):
            manifest = registry.manifest(name, version)
            if manifest.positive_label is not None and manifest.protected:
                found[name] = manifest.positive_label
    return found
