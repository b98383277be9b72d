"""`weighbridge audit replay`: make decisions again with the exact artefact, and compare.

Rule: reads the log, the payloads and the registry, and puts that on record first. It exits with 1
when an answer differs, a payload was changed or what is needed is damaged or missing, and when
nothing could be replayed: a sample of which only a part was made again must not pass for one that
was. Erased payloads and remote models are no fault.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import orjson
import typer
from rich.console import Console

from audit.boundary import pruned_words
from audit.errors import NotFound
from audit.index import Index
from audit.reader import LogReader
from audit.record import Decision

from .accessed import Actor, Reason, open_reader, record_access
from .cli_table import counted, print_rows
from .masterkey import load_keyring
from .moments import moment_us
from .settings import Settings, settings

__all__ = ["replay"]

console = Console(markup=False, highlight=False)
_HOW = (
    "each request was inferred alone, all its rows together, and compared bit by bit, or within "
    "the tolerance that the artefact's manifest states for the device"
)


def replay(
    decision: Annotated[str | None, typer.Argument(help="the decision id of a reply")] = None,
    *,
    sample: Annotated[int, typer.Option("--sample", min=0, help="so many of those kept")] = 0,
    model: Annotated[str, typer.Option("--model", help="only of this model")] = "",
    since: Annotated[str, typer.Option("--from", help="first moment, ISO 8601, UTC")] = "",
    until: Annotated[str, typer.Option("--to", help="last moment, ISO 8601, UTC")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Make kept decisions again with the exact artefact, and compare bit by bit."""
    from .models import open_fleet  # noqa: PLC0415  the backends are slow to import
    from .replaying import Replayer  # noqa: PLC0415

    if (decision is None) == (sample == 0):
        raise ValueError("name a decision, or say how many to draw: --sample N")
    if decision is not None and (model or since or until):
        raise ValueError("--model, --from and --to choose what --sample draws from")
    chosen, reader = settings(), open_reader(None)
    span = moment_us(since, default=0), moment_us(until, default=1 << 62)
    keyring = load_keyring(chosen, signing=False)
    target = decision or f"a sample of {sample}, model {model or 'any'}"
    record_access(
        chosen, chosen.log_dir, action="replay", target=target, actor=actor, reason=reason
    )
    if decision is not None:
        events = [_named(chosen, reader, decision)]
    else:
        events = _drawn(reader, sample, model, *span)
    replayer = Replayer(reader, keyring, open_fleet(chosen))
    found = [replayer.replay(event) for event in events]
    counts = Counter(one.outcome for one in found)
    if as_json:
        body = {"how": _HOW, "counts": counts, "decisions": [one._asdict() for one in found]}
        sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        rows = []
        for one in found:
            name, where = f"{one.model}:{one.version}", (one.recorded_on, one.replayed_on)
            rows.append((one.decision, name, one.outcome, *where, one.detail))
        print_rows(("decision", "model", "outcome", "recorded on", "replayed on", "detail"), rows)
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        many = counted(len(found), "decision")
        console.print(f"{many}: {said or 'none'}; {_HOW}", soft_wrap=True)
    good = not any(one.wrong for one in found) and any(one.replayed for one in found)
    raise typer.Exit(0 if good else 1)


def _named(chosen: Settings, reader: LogReader, decision: str) -> Decision:
    with Index(chosen.log_dir) as index:
        leaf = index.find(decision)
    event = reader.entry(leaf).event if leaf is not None else None
    if not isinstance(event, Decision):
        raise NotFound(f"the log holds no decision {decision}{pruned_words(chosen.log_dir)}")
    return event


def _drawn(reader: LogReader, sample: int, model: str, first: int, last: int) -> list[Decision]:
    """A sample of the decisions whose payloads are kept: always the same one of the same log."""
    kept = reader.kept("output")

    def fitting() -> Iterator[Decision]:
        for entry in reader.entries():
            event = entry.event
            if not isinstance(event, Decision) or event.id not in kept:
                continue
            if first <= event.time_us < last and model in ("", event.model):
                yield event

    drawn = sorted(fitting(), key=lambda event: hashlib.sha256(event.id.encode()).digest())
    return drawn[:sample]
