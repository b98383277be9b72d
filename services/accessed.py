"""Reading the log is itself recorded: who read what, as an `access` event, before it is shown.

Rules:
1. On the live log, what cannot be recorded is not read: a refusal says why and how a copy is read.
2. A gateway that runs records it, through its socket; else the command does (writing.py).
3. On a copy nothing can be recorded, and one line on standard error says so.
4. What is read goes to a new file, or to one that was named with --force, and never among the log
   and its keys.
Boundary: records only; who may read files is the file system's matter.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from audit.errors import AuditError, KeyFileError, NoteError, NotFound
from audit.events import Access
from audit.filekinds import check_opened
from audit.log import Log, Record
from audit.note import VerifierKey
from audit.reader import LogReader
from audit.record import encode, new_id, now_us
from audit.socket_link import NotaryClient
from audit.writerlock import has_writer

from .faults import BadRequest
from .masterkey import load_keyring
from .settings import Settings, settings
from .writing import shell_user, write

__all__ = [
    "Actor",
    "Force",
    "LogFolder",
    "LogKey",
    "NotRecorded",
    "Reason",
    "check_output",
    "check_outside",
    "given_key",
    "open_reader",
    "record_access",
    "trusted_key",
]

_ONE_TRY_S = 3.0
_OF_A_LOG = ("wal", "tile", "checkpoint")
_MAX_NAME = 200
_MAX_TEXT = 4000

Actor = Annotated[str, typer.Option("--actor", help="who reads; the system's user by default")]
Reason = Annotated[str, typer.Option("--reason", help="why; goes on record")]
Force = Annotated[bool, typer.Option("--force", help="replace the file if there is one")]
LogFolder = Annotated[Path | None, typer.Option("--log", help="the log's folder")]
LogKey = Annotated[
    str | None,
    typer.Option("--key", help="the key that `audit key` prints; this home's by default"),
]


class NotRecorded(AuditError):
    """An access to the live log could not be recorded, so nothing was read."""

    status_hint = 503


def open_reader(log: Path | None) -> LogReader:
    """A reader of the log in a folder, or of the live one.

    Raises:
        NotFound: there is no log. Of a folder that is none, "nothing was found" would be believed.
        LogUnavailable: something else stands in place of a file: a pipe would be waited for.
    """
    directory = log or settings().log_dir
    if not directory.is_dir():
        raise NotFound(f"there is no log in {directory}; start a server, or give --log FOLDER")
    if log is not None and not any((log / name).exists() for name in _OF_A_LOG):
        raise NotFound(f"there is no log in {log}; name the folder that holds its `wal` or `tile`")
    check_opened(directory)
    return LogReader(directory)


def trusted_key(given: str | None) -> str:
    """The public key to verify with: what a command was given, else this home's own.

    Raises:
        BadRequest: it is no key; empty is none, as an unset shell variable must not mean this
            home's own.
        KeyFileError: none was given, and this home has none.
    """
    if given is None:
        chosen = settings()
        try:
            return str(load_keyring(chosen).verifier_key(chosen.origin))
        except KeyFileError as exc:
            raise KeyFileError(f"{exc}; or, to verify without it, give --key") from exc
    if not given.strip():
        raise BadRequest("could not verify: --key is empty; give the key, or leave --key out")
    return str(given_key(given))


def given_key(text: str) -> VerifierKey:
    """A public key that a command was given.

    Raises:
        BadRequest: it is none; that says nothing of what it was to verify.
    """
    try:
        return VerifierKey.parse(text)
    except NoteError as exc:
        raise BadRequest(f"{exc}; give it as `weighbridge audit key` prints it") from exc


def check_output(path: Path, *, force: bool) -> None:
    """Make sure that what a command reads may be written to a file of this name.

    Raises:
        BadRequest: it is no file, is there already, or lies within the live log or its keys.
    """
    if path.exists() and not path.is_file():
        raise BadRequest(f"could not write {path}: it is no file; give --out FILE")
    if not path.parent.is_dir():
        raise BadRequest(f"could not write {path}: {path.parent} is no folder; make it first")
    check_outside(path)
    if path.exists() and not force:
        raise BadRequest(
            f"could not write {path}: there is a file of this name; name another, or replace it "
            "with --force"
        )


def check_outside(path: Path) -> None:
    """Make sure that a file or folder to write does not lie within the live log or its keys.

    Raises:
        BadRequest: it does.
    """
    chosen = settings()
    for kept in (chosen.log_dir, chosen.keys_dir):
        if path.resolve().is_relative_to(kept.resolve()):
            raise BadRequest(f"could not write {path}: {kept} is the server's own; name another")


def record_access(
    chosen: Settings,
    directory: Path,
    *,
    action: str,
    target: str | None,
    actor: str = "",
    reason: str = "",
) -> None:
    """Put on record that somebody is about to read; returns when it is durable.

    Args:
        chosen: where the live log, its keys and its socket are.
        directory: the log that is read; another than the live one is a copy.
        action: the command: "show", "prove", "find", "query", "parquet", "export",
            "report".
        target: what is read; cut after 4,000 characters. Never a unit's name.
        actor: who; the system's user if empty.
        reason: why.

    Raises:
        NotRecorded: it is the live log, and it cannot be recorded.
    """
    if not _is_live(chosen, directory):
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
        actor=_text(actor or shell_user(), _MAX_NAME),
        action=action,
        target=None if target is None else _text(target, _MAX_TEXT),
        reason=_text(reason or "not given", _MAX_TEXT),
    )
    try:
        _store(chosen, directory, event)
    except (AuditError, OSError) as exc:
        raise NotRecorded(
            f"could not record this reading of {directory}, so nothing was read: {exc}; "
            "to read without a record, copy the folder and give --log COPY"
        ) from exc


def _is_live(settings: Settings, directory: Path) -> bool:
    live = settings.log_dir
    return live.exists() and directory.samefile(live)


def _store(settings: Settings, directory: Path, event: Access) -> None:
    async def here() -> None:
        log = Log.open(directory, load_keyring(settings), origin=settings.origin)
        try:
            log.append([Record(encode(event))])
            log.publish()
        finally:
            log.close()

    async def there(client: NotaryClient) -> None:
        await client.append(event, durability="strict")

    # Its id is known by then, so sending it again does not store it twice.
    asyncio.run(write(settings, here=here, there=there, answer_s=_ONE_TRY_S, again=True))


def _text(text: str, limit: int) -> str:
    """Text that has canonical bytes: what the shell gave as other bytes is replaced."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[:limit] + "…"
