"""`weighbridge audit prune`: remove what retention allows, with a gateway running or none.

Rule: a gateway that holds the log is asked over its socket, and goes by its own settings; else this
command is the log's writer for as long as it runs (writing.py), and goes by the same settings as a
server that were started here. Nothing is removed without a record that says so first.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from audit.erasing import Erasing
from audit.errors import NotFound
from audit.notary import Notary
from audit.seals import Seals
from audit.socket_link import NotaryClient

from .cli_table import counted, print_rows
from .masterkey import load_keyring
from .reported import open_reported
from .retaining import open_pruning
from .settings import Settings, settings
from .writing import shell_user, write

__all__ = ["prune"]

console = Console(markup=False, highlight=False)
_ANSWER_S = 600.0


def prune(
    *,
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the log in clear")] = "",
    actor: Annotated[
        str, typer.Option("--actor", help="who; the user of this shell if left out")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would go, and why not more")
    ] = False,
    due: Annotated[
        bool, typer.Option("--due", help="leave what no ceiling asks for, as the gateway does")
    ] = False,
    roll: Annotated[
        bool, typer.Option("--roll", help="end the segment being written first, so that it may go")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Remove the oldest segments of the log, as far as WEIGHBRIDGE_RETENTION allows; recorded."""
    chosen = settings()
    if not chosen.log_dir.is_dir():
        raise NotFound(f"there is no log in {chosen.log_dir}")
    if not (reason or dry_run):
        raise ValueError("say why: --reason TEXT; or only look: --dry-run")
    asked = {
        "do": "plan" if dry_run else "prune",
        "due_only": due,
        "roll": roll,
        "actor": actor or shell_user(),
        "reason": reason,
    }
    found = asyncio.run(_ask(chosen, asked))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    elif dry_run:
        _show(found)
    else:
        console.print(
            f"pruned {counted(found['segments'], 'segment')}; the log begins at leaf "
            f"{found['first_leaf']}, as leaf {found['leaf']} says; destroyed "
            f"{counted(found['keys'], 'data key')}",
            soft_wrap=True,
        )


async def _ask(chosen: Settings, asked: dict[str, Any]) -> dict[str, Any]:
    async def there(client: NotaryClient) -> dict[str, Any]:
        return await client.ask(**asked)

    async def here() -> dict[str, Any]:
        keyring = load_keyring(chosen)
        notary = await Notary.open(chosen.log_dir, keyring, origin=chosen.origin)
        try:
            erasing = Erasing(notary, Seals(chosen.log_dir, keyring, create=True))
            await erasing.finish()
            pruning = open_pruning(notary, erasing, chosen, keyring)
            reported = await open_reported(notary, keyring)
            try:
                pruning.keep_more = reported.keep
                await pruning.finish()
                return dict(await pruning.answer(asked))
            finally:
                await reported.close()
        finally:
            await notary.close()

    return await write(chosen, here=here, there=there, answer_s=_ANSWER_S)


def _show(plan: dict[str, Any]) -> None:
    rows = []
    for segment in plan["segments"]:
        leaves = f"{segment['first']} to {segment['end'] - 1}"
        goes = "yes" if segment["end"] <= plan["kept_from"] else "no"
        rows.append((leaves, segment["length"], goes, segment["why"]))
    if rows:
        print_rows(("leaves", "bytes", "goes", "why"), rows)
    if plan["why_not"] is None:
        last = plan["first_leaf"] - 1
        console.print(f"would prune the leaves {plan['from_leaf']} to {last}", soft_wrap=True)
    else:
        console.print(f"nothing would go: {plan['why_not']}", soft_wrap=True)
    console.print("the segment that is being written never goes; --roll ends it first")
