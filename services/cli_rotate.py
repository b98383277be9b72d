"""`weighbridge audit rotate-key`: a new key signs the log from now on; old public keys stay good.

Rule: where a process holds the log it is asked over its Unix socket, which is private to its user
(other machines cannot ask for this); else this command is the log's writer for as long as it runs.
Read next: audit/rotating.py (the steps), docs/adr/0017-key-rotation.md.
"""

from __future__ import annotations

import asyncio
import getpass
from typing import Annotated, Any

import typer
from rich.console import Console

from audit.errors import NotFound
from audit.notary import Notary
from audit.rotating import Rotating
from audit.socket_link import NotaryClient
from audit.writerlock import has_writer

from .masterkey import load_keyring
from .settings import Settings, settings

__all__ = ["rotate_key"]

console = Console()
_DEED_S = 120.0


def rotate_key(
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the log in clear")],
    actor: Annotated[str, typer.Option("--actor", help="who; the user of this shell")] = "",
) -> None:
    """Replace the key that signs the log: recorded, and signed by both keys."""
    chosen = settings()
    if not chosen.log_dir.is_dir():
        raise NotFound(f"there is no log in {chosen.log_dir}")
    found = asyncio.run(_rotate(chosen, actor or getpass.getuser(), reason))
    said = [
        f"rotated, recorded as {found['leaf']}",
        f"old key {found['old_key']}",
        f"new key {found['new_key']}",
        "Back up the key folder. Reviewers may go on with either key. Give witnesses the new one,",
        "beside the old one; they cosign again then.",
    ]
    console.print("\n".join(said), soft_wrap=True, markup=False, highlight=False)


async def _rotate(chosen: Settings, actor: str, reason: str) -> dict[str, Any]:
    if has_writer(chosen.log_dir):
        client = NotaryClient(chosen.run_dir / "notary.sock", timeout_s=_DEED_S)
        try:
            return await client.ask("rotate_key", actor=actor, reason=reason)
        finally:
            await client.close()
    notary = await Notary.open(chosen.log_dir, load_keyring(chosen), origin=chosen.origin)
    try:
        done = await Rotating(notary, chosen.keys_dir).rotate(actor=actor, reason=reason)
        return done._asdict()
    finally:
        await notary.close()
