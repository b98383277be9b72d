"""Reading the log is itself recorded: who read what, as an `access` event, before it is shown.

Rules:
1. On the live log, what cannot be recorded is not read: a refusal says why and how a copy is read.
2. While a gateway runs, its notary records, through its socket. While none does, the command is
   the log's writer for that moment.
3. On a copy nothing can be recorded, and one line on standard error says so.
Boundary: records only; who may read files is the file system's matter.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from audit.errors import AuditError, LogLocked, LogUnavailable
from audit.events import Access
from audit.log import Log, Record
from audit.record import encode, new_id, now_us
from audit.socket_link import NotaryClient
from audit.writerlock import has_writer

from .masterkey import load_keyring
from .settings import Settings

__all__ = ["Actor", "NotRecorded", "Reason", "record_access"]

_WITHIN_S = 10.0
_AGAIN_S = 0.05
_ONE_TRY_S = 3.0
_MAX_NAME = 200
_MAX_TEXT = 4000

Actor = Annotated[str, typer.Option("--actor", help="who reads; the system's user by default")]
Reason = Annotated[str, typer.Option("--reason", help="why; goes on record")]


class NotRecorded(AuditError):
    """An access to the live log could not be recorded, so nothing was read."""

    status_hint = 503


def record_access(
    settings: Settings,
    directory: Path,
    *,
    action: str,
    target: str | None,
    actor: str = "",
    reason: str = "",
) -> None:
    """Put on record that somebody is about to read; returns when it is durable.

    Args:
        settings: where the live log, its keys and its socket are.
        directory: the log that is read; another than the live one is a copy.
        action: the command: "show", "prove", "find", "query", "parquet", "export",
            "report".
        target: what is read; cut after 4,000 characters. Never a unit's name.
        actor: who; the system's user if empty.
        reason: why.

    Raises:
        NotRecorded: it is the live log, and it cannot be recorded.
    """
    if not _is_live(settings, directory):
        if has_writer(directory):
            raise NotRecorded(
                f"could not record this reading: {directory} is the log of a running gateway that "
                "these settings do not know; set WEIGHBRIDGE_HOME to its home, or copy the log"
            )
        typer.echo(f"note: {directory} is a copy: this reading is not recorded", err=True)
        return
    if not (directory / "wal").is_dir():
        return  # nothing was ever written here, so nothing can be read, and nothing is begun
    event = Access(
        id=new_id(),
        time_us=now_us(),
        actor=_text(actor or _user(), _MAX_NAME),
        action=action,
        target=None if target is None else _text(target, _MAX_TEXT),
        reason=_text(reason or "not given", _MAX_TEXT),
    )
    try:
        _store(settings, directory, event)
    except (AuditError, OSError) as exc:
        raise NotRecorded(
            f"could not record this reading of {directory}, so nothing was read: {exc}; "
            "to read without a record, copy the folder and give --log COPY"
        ) from exc


def _is_live(settings: Settings, directory: Path) -> bool:
    live = settings.log_dir
    return live.exists() and directory.samefile(live)


def _store(settings: Settings, directory: Path, event: Access) -> None:
    """Through the socket, or under the lock, whichever can be had first."""
    until = time.monotonic() + _WITHIN_S
    while True:
        try:
            _store_locked(settings, directory, event)
        except LogLocked:
            # A gateway, one that starts or ends, or another command in its moment.
            refusal = _store_remotely(settings, event)
            if refusal is None:
                return
            if time.monotonic() > until:
                raise refusal from None
            time.sleep(_AGAIN_S)
        else:
            return


def _store_locked(settings: Settings, directory: Path, event: Access) -> None:
    if has_writer(directory):
        raise LogLocked(f"another process writes {directory}")
    keyring = load_keyring(settings)
    log = Log.open(directory, keyring, origin=settings.origin)
    try:
        log.append([Record(encode(event))])
        log.publish()
    finally:
        log.close()


def _store_remotely(settings: Settings, event: Access) -> LogUnavailable | None:
    """Ask the notary of the running gateway; why it did not, or None when it did."""
    path = settings.run_dir / "notary.sock"
    if not path.exists():
        return LogUnavailable(f"another process holds the log and offers no socket at {path}")

    async def append() -> None:
        client = NotaryClient(path, timeout_s=_ONE_TRY_S)
        try:
            await client.append(event, durability="strict")
        finally:
            await client.close()

    try:
        asyncio.run(append())
    except LogUnavailable as refusal:
        return refusal
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _text(text: str, limit: int) -> str:
    """Text that has canonical bytes: what the shell gave as other bytes is replaced."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[:limit] + "…"
