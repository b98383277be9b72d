"""`weighbridge audit find`: search the log by what records are about.

Rule 1: what is shown comes from the log itself; on the live log it is on record first who asked
for what (accessed.py).
Rule 2: a condition that nothing can meet, because it is not of the right form, is refused: who
reads "0 records" must be able to believe it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from audit.boundary import pruned_words
from audit.index import Criteria, Index, read_leaves
from audit.record import EVENT_TYPES, as_mapping, decode

from .accessed import Actor, LogFolder, Reason, open_reader, record_access
from .cli_edge import for_programs
from .cli_table import counted, print_rows
from .masterkey import load_keyring
from .moments import moment_text, moment_us
from .settings import settings

__all__ = ["find"]

console = Console(markup=False, highlight=False)
Since = Annotated[str, typer.Option("--from", help="first moment, ISO 8601, UTC")]
Until = Annotated[str, typer.Option("--to", help="last moment, excluded, ISO 8601, UTC")]


_HEX = re.compile(r"[0-9a-f]{32}")
_FORMS = {  # what a condition must look like, and how that is said
    "unit-ref": (_HEX, "32 hex digits in lower case, as a record names the unit"),
    "trace": (_HEX, "32 hex digits in lower case, a W3C trace id"),
}
_SAYS = (
    "name", "severity", "actor", "action", "target", "attribute", "metric", "value", "target_label",
    "label_before", "label_after", "reason", "message",
)  # fmt: skip


def find(
    *,
    unit: Annotated[str | None, typer.Option(help="the unit's name; needs the keys")] = None,
    unit_ref: Annotated[str | None, typer.Option(help="its reference, as records hold it")] = None,
    decision: Annotated[str | None, typer.Option(help="one, and what speaks of it")] = None,
    trace: Annotated[str | None, typer.Option(help="a W3C trace id")] = None,
    model: Annotated[str | None, typer.Option(help="a model's name")] = None,
    version: Annotated[str | None, typer.Option(help="a model's version")] = None,
    arm: Annotated[str | None, typer.Option(help="the arm that answered")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="of record: decision, …")] = None,
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest so many")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="whole records, one a line")] = False,
    log: LogFolder = None,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Find records by what they are about; all conditions must hold."""
    asked = {"unit": unit, "unit-ref": unit_ref, "decision": decision, "trace": trace}
    asked |= {"model": model, "version": version, "arm": arm, "type": kind}
    _check(asked)
    from_us = moment_us(since, default=0) if since else None
    to_us = moment_us(until, default=0) if until else None
    if from_us is not None and to_us is not None and from_us >= to_us:
        raise ValueError("could not search: --from must be before --to")
    reader = open_reader(log)
    if unit is not None:
        unit_ref = load_keyring(settings(), signing=False).unit_ref(unit)
    criteria = Criteria(
        decision=decision,
        unit_ref=unit_ref,
        trace_id=trace,
        model=model,
        version=version,
        arm=arm,
        type=kind,
        from_us=from_us,
        to_us=to_us,
    )
    with Index(reader.directory) as index:
        leaves = index.search(criteria, limit=limit + 1)
    leaves, more = leaves[-limit:], len(leaves) > limit
    if not leaves and kind is not None and kind not in EVENT_TYPES:  # a newer version's is found
        raise ValueError(f"could not search: --type must be one of {', '.join(EVENT_TYPES)}")
    asked |= {"unit": None, "unit-ref": unit_ref, "from": since, "to": until}
    said = " ".join(f"{name.replace('-', '_')}={text}" for name, text in asked.items() if text)
    record_access(
        settings(),
        reader.directory,
        action="find",
        target=said or "everything",
        actor=actor,
        reason=reason,
    )
    found = [(leaf, as_mapping(decode(data))) for leaf, data in read_leaves(reader, leaves)]
    if as_json:
        for_programs()
        for leaf, body in found:
            sys.stdout.write(orjson.dumps({"leaf": leaf, **body}).decode() + "\n")
    else:
        _print_found(found, more=more)
    # Of a pruned decision what speaks of it may be left.
    missing = decision not in {body["id"] for _, body in found} if decision else not found
    words = pruned_words(reader.directory) if missing else ""
    if words:
        typer.echo(f"note: not everything was found{words}", err=True)


def _check(asked: Mapping[str, str | None]) -> None:
    """Refuse what no record can be: an empty shell variable must not ask for everything.

    Raises:
        ValueError: says which condition, and what it must be.
    """
    if asked["unit"] is not None and asked["unit-ref"] is not None:
        raise ValueError("could not search: give --unit or --unit-ref, not both")
    for name, text in asked.items():
        if text is not None and not text.strip():
            raise ValueError(f"could not search: --{name} is empty; leave it out, or give one")
        form, words = _FORMS.get(name, (None, ""))
        if text is not None and form is not None and not form.fullmatch(text):
            raise ValueError(f"could not search: --{name} must be {words}")


def _print_found(found: list[tuple[int, Mapping[str, Any]]], *, more: bool) -> None:
    rows = []
    for leaf, body in found:
        model = ":".join(str(body[name]) for name in ("model", "version") if body.get(name))
        own = body["type"] == "decision"
        decision = body["id"] if own else body.get("decision")
        arm = body.get("arm_served") or body.get("arm")
        says = body.get("label") if own else _gist(body)
        rows.append((leaf, moment_text(body["time_us"]), body["type"], decision, model, arm, says))
    print_rows(("leaf", "time (UTC)", "type", "decision", "model", "arm", "says"), rows)
    said = f"; the newest {len(found)}, --limit shows more" if more else ""
    console.print(f"{counted(len(found), 'record')}{said}")


def _gist(body: Mapping[str, Any]) -> str:
    """What a record that is no decision says, in a line; --json shows all of it."""
    return ", ".join(str(body[name]) for name in _SAYS if isinstance(body.get(name), str))
