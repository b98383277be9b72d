"""`weighbridge audit rotate-key`: a new key signs the log from now on; old public keys stay good.

Rule: a process that holds the log is asked over its Unix socket, which is private to its user
(other machines cannot ask for this); else this command is the log's writer for as long as it runs
(writing.py).
Read next: audit/rotating.py (the steps), docs/adr/0017-key-rotation.md.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console

from audit.errors import NotFound
from audit.notary import Notary
from audit.rotating import Rotating
from audit.socket_link import NotaryClient

from .masterkey import load_keyring
from .settings import Settings, settings
from .writing import shell_user, write

__all__ = ["rotate_key"]

console = Console()
_ANSWER_S = 120.0


def rotate_key(
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the log in clear")],
    actor: Annotated[str, typer.Option("--actor", help="who; the user of this shell")] = "",
) -> None:
    """Replace the key that signs the log: recorded, and signed by both keys."""
    chosen = settings()
    if not chosen.log_dir.is_dir():
        raise NotFound(f"there is no log in {chosen.log_dir}")
    found = asyncio.run(_rotate(chosen, actor or shell_user(), reason))
    said = [
        f"rotated, recorded as {found['leaf']}",
        f"old key {found['old_key']}",
        f"new key {found['new_key']}",
        "Back up the key folder. Reviewers may go on with either key. Give witnesses the new one,",
        "beside the old one; they cosign again then.",
    ]
    console.print("\n".join(said), soft_wrap=True, markup=False, highlight=False)


async def _rotate(chosen: Settings, actor: str, reason: str) -> dict[str, Any]:
    async def there(client: NotaryClient) -> dict[str, Any]:
        return await client.ask("rotate_key", actor=actor, reason=reason)

    async def here() -> dict[str, Any]:
        notary = await Notary.open(chosen.log_dir, load_keyring(chosen), origin=chosen.origin)
        try:
            done = await Rotating(notary, chosen.keys_dir).rotate(actor=actor, reason=reason)
            return done._asdict()
        finally:
            await notary.close()

    return await write(chosen, here=here, there=there, answer_s=_ANSWER_S)
