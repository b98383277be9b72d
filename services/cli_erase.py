"""`weighbridge audit erase`, `hold`, `release`: one subject's data, with a gateway running or none.

Rule: a gateway that holds the log is asked over its socket; else this command is the log's writer
for as long as it runs (writing.py). Both record the same.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import typer
from rich.console import Console

from audit.erasing import Erasing
from audit.errors import NotFound
from audit.notary import Notary
from audit.seals import Seals
from audit.socket_link import NotaryClient

from .cli_table import counted
from .erasures import LocalSubjects
from .masterkey import load_keyring
from .settings import Settings, settings
from .writing import shell_user, write

__all__ = ["erase", "hold", "release"]

console = Console()
_ANSWER_S = 120.0

Subject = Annotated[str, typer.Option("--subject", help="the unit, as callers name it")]
UnitRef = Annotated[str, typer.Option("--unit-ref", help="or as records name it, 32 hex digits")]
Reason = Annotated[str, typer.Option("--reason", help="why; stands in the log in clear")]
Actor = Annotated[str, typer.Option("--actor", help="who; the user of this shell if left out")]


def erase(reason: Reason, subject: Subject = "", unit_ref: UnitRef = "", actor: Actor = "") -> None:
    """Destroy the keys of one subject's data, for good, and record that it was done."""
    chosen = settings()
    named = _unit_ref(chosen, subject, unit_ref)
    found = asyncio.run(_manage(chosen, "erase", named, actor, reason))
    removed = found["reports_removed"]
    if found["again"]:
        said = f"{named} was erased before (leaf {found['leaf']}); nothing has come since"
    else:
        keys = counted(found["keys"], "data key")
        said = f"erased {named}: {keys} destroyed, recorded as {found['leaf']}"
    console.print(said, soft_wrap=True, highlight=False)
    for name in removed:
        console.print(f"removed the report {name}, which names its decisions", soft_wrap=True)


def hold(reason: Reason, subject: Subject = "", unit_ref: UnitRef = "", actor: Actor = "") -> None:
    """Forbid the erasure of one subject until this hold is released; recorded."""
    named = _unit_ref(settings(), subject, unit_ref)
    found = asyncio.run(_manage(settings(), "hold", named, actor, reason))
    said = f"{named} is held, recorded as {found['leaf']}"
    if found["holds"] > 1:
        said += f"; {found['holds']} holds stand on it now, and each needs a release of its own"
    if not found["known"]:
        said += "; the log holds nothing about it yet: make sure that the name is right"
    console.print(said, highlight=False, soft_wrap=True)


def release(
    reason: Reason, subject: Subject = "", unit_ref: UnitRef = "", actor: Actor = ""
) -> None:
    """Release one legal hold on one subject, the oldest; recorded."""
    named = _unit_ref(settings(), subject, unit_ref)
    found = asyncio.run(_manage(settings(), "release", named, actor, reason))
    said = f"{named} is no longer held, recorded as {found['leaf']}"
    if found["holds"]:
        more = "1 more stands" if found["holds"] == 1 else f"{found['holds']} more stand"
        said = f"released, recorded as {found['leaf']}; {more} on {named}"
    console.print(said, highlight=False, soft_wrap=True)


def _unit_ref(chosen: Settings, subject: str, unit_ref: str) -> str:
    if bool(subject) == bool(unit_ref):
        raise ValueError("name the subject: --subject UNIT, or --unit-ref REF")
    if unit_ref and not re.fullmatch(r"[0-9a-f]{32}", unit_ref):
        raise ValueError("--unit-ref must be 32 hex digits, as `weighbridge audit show` prints it")
    if not chosen.log_dir.is_dir():
        raise NotFound(f"there is no log in {chosen.log_dir}")
    return unit_ref or load_keyring(chosen, signing=False).unit_ref(subject)


async def _manage(
    chosen: Settings, do: str, unit_ref: str, actor: str, reason: str
) -> dict[str, Any]:
    actor = actor or shell_user()

    async def there(client: NotaryClient) -> dict[str, Any]:
        return await client.manage(do, unit_ref, actor=actor, reason=reason)

    async def here() -> dict[str, Any]:
        keyring = load_keyring(chosen)
        notary = await Notary.open(chosen.log_dir, keyring, origin=chosen.origin)
        try:
            erasing = Erasing(notary, Seals(chosen.log_dir, keyring, create=True))
            await erasing.finish()
            reports = chosen.home / "reports"
            subjects = LocalSubjects(erasing, log=chosen.log_dir, reports=reports)
            if do == "erase":
                return await subjects.erase(unit_ref, actor=actor, reason=reason)
            free = do == "release"
            return await subjects.hold(unit_ref, actor=actor, reason=reason, release=free)
        finally:
            await notary.close()

    return await write(chosen, here=here, there=there, answer_s=_ANSWER_S)
