"""`weighbridge audit override`: a person replaces a model's answer, with a gateway running or none.

Rule: as `audit erase`: the process that holds the log is asked over its socket; else this command
is the log's writer for as long as it runs (writing.py). Both record the same.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console

from audit.errors import NotFound
from audit.notary import Notary
from audit.socket_link import NotaryClient

from .cli_table import shown
from .masterkey import load_keyring
from .overrides import LocalReviews
from .settings import Settings, settings
from .writing import shell_user, write

__all__ = ["override"]

console = Console()
_ANSWER_S = 120.0


def override(
    decision: Annotated[str, typer.Argument(help="the decision id of a reply")],
    label: Annotated[str, typer.Option("--label", help="what holds instead")],
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the log in clear")],
    actor: Annotated[str, typer.Option("--actor", help="who; the user of this shell")] = "",
) -> None:
    """Record that a person replaced the answer of a decision; the decision itself stays."""
    chosen = settings()
    if not chosen.log_dir.is_dir():
        raise NotFound(f"there is no log in {chosen.log_dir}")
    asked = {"label": label, "actor": actor or shell_user(), "reason": reason}
    found = asyncio.run(_override(chosen, decision, asked))
    before, after = (shown(found[name] or "no label") for name in ("label_before", "label_after"))
    console.print(
        f"recorded as {found['leaf']}: {before} is now {after}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


async def _override(chosen: Settings, decision: str, asked: dict[str, Any]) -> dict[str, Any]:
    async def there(client: NotaryClient) -> dict[str, Any]:
        return await client.ask("override", decision=decision, **asked)

    async def here() -> dict[str, Any]:
        notary = await Notary.open(chosen.log_dir, load_keyring(chosen), origin=chosen.origin)
        try:
            return await LocalReviews(notary, chosen.log_dir).override(decision, **asked)
        finally:
            await notary.close()

    return await write(chosen, here=here, there=there, answer_s=_ANSWER_S)
