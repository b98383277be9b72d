"""Writing to the live log from a shell: as its writer, or through the socket of whoever is.

Rules:
1. While a gateway or a notary runs, it does what is asked, through its socket, which is private to
   its user. While none does, the command is the log's writer for that moment.
2. Another command holds the log for a moment, a gateway that starts or ends for seconds: both ways
   are tried, whichever opens first, and after `_WITHIN_S` it is refused in words.
3. A server that starts waits as long for the log, since commands hold it for moments.
4. What was sent is not sent again, unless it may be done twice (`again`): a refusal leaves open
   whether it was done, and says so.
Boundary: asyncio; what is written is the callers' matter (accessed.py, cli_erase.py, …).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from audit.errors import LogLocked, LogUnavailable
from audit.socket_link import NotaryClient
from audit.writerlock import has_writer

from .settings import Settings

__all__ = ["patiently", "shell_user", "write"]

_WITHIN_S = 10.0
_AGAIN_S = 0.05
_T = TypeVar("_T")


async def write(
    settings: Settings,
    *,
    here: Callable[[], Awaitable[_T]],
    there: Callable[[NotaryClient], Awaitable[_T]],
    answer_s: float,
    again: bool = False,
) -> _T:
    """Do something to the live log, by whichever way opens first.

    Args:
        settings: where the log and the socket are.
        here: does it as the log's writer; raises LogLocked, having done nothing, where it is not.
        there: asks the process that holds the log, over a connection.
        answer_s: for how long that process may be at it.
        again: whether it may be asked for twice.

    Returns:
        What `here` or `there` did.

    Raises:
        LogUnavailable: neither way opened in time, or no answer came.
        AuditError, OSError: as `here` and `there`.
    """
    until = time.monotonic() + _WITHIN_S
    while True:
        if not has_writer(settings.log_dir):
            try:
                return await here()
            except LogLocked:
                pass  # another was the first in that moment
        client = NotaryClient(_socket(settings), timeout_s=answer_s, patience_s=_WITHIN_S)
        try:
            if await _connected(client, settings.log_dir, until):
                return await there(client)
        except LogUnavailable:
            if not again or time.monotonic() > until:
                raise
        finally:
            await client.close()
        if time.monotonic() > until:
            raise _refusal(settings)
        await asyncio.sleep(_AGAIN_S)


async def _connected(client: NotaryClient, directory: Path, until: float) -> bool:
    """Wait for a connection, as long as it is worth waiting for; whether there is one."""
    client.start()
    while not client.connected and has_writer(directory) and time.monotonic() < until:  # noqa: ASYNC110  a file is looked at
        await asyncio.sleep(_AGAIN_S)
    return client.connected


async def patiently(directory: Path, open_log: Callable[[], Awaitable[_T]]) -> _T:
    """Open the log as its writer, again and again while a passing command may be that.

    Raises:
        LogLocked: another process held it all the time.
        AuditError, OSError: as `open_log`.
    """
    until = time.monotonic() + _WITHIN_S
    while True:
        try:
            return await open_log()
        except LogLocked:
            if time.monotonic() > until:
                raise
            while has_writer(directory) and time.monotonic() <= until:  # noqa: ASYNC110  a file
                await asyncio.sleep(_AGAIN_S)


def _socket(settings: Settings) -> Path:
    return settings.run_dir / "notary.sock"


def _refusal(settings: Settings) -> LogUnavailable:
    path = _socket(settings)
    if not path.exists():
        why = f"offers no socket at {path}"
    elif not os.access(path, os.W_OK):
        why = f"its socket {path} is another user's: run this as the user that the server runs as"
    else:
        why = f"does not answer at {path}"
    return LogUnavailable(
        f"could not write to the log in {settings.log_dir}: another process holds it, and {why}; "
        "nothing was changed; wait for a command that runs to end, start a server that hangs "
        "again, or give this command the server's settings"
    )


def shell_user() -> str:
    """Who runs this command; the number where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
