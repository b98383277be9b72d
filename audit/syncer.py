"""fdatasync without a thread: Linux's asynchronous IO, its completions told by the event loop.

A sync in a thread costs two changes of threads and, beside a busy event loop, milliseconds of
waiting for the interpreter lock. The kernel does it on a worker of its own and raises an eventfd.
Rule: `open_syncer` gives None where the kernel or the sandbox has no such thing; then whoever asked
syncs in a thread. Every sync that was begun calls back once, on the loop, unless `close` comes
first.
Source: io_submit(2), IOCB_CMD_FDSYNC (Linux 4.18), through the library caio.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

linux_aio: Any = None
with suppress(ImportError):  # another system
    from caio import linux_aio

_LOGGER = logging.getLogger("weighbridge.audit")
_AT_ONCE = 16

Done = Callable[[OSError | None], None]


class Syncer:
    """The asynchronous syncs of one event loop. Make it with `open_syncer`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Any) -> None:
        self._loop = loop
        self._context = context
        self._loop.add_reader(context.fileno, self._completed)

    def fdatasync(self, fd: int, done: Done) -> None:
        """Make the data of `fd` durable; `done` is told the error, or None.

        Raises:
            OSError: it could not even be begun.
        """
        operation = linux_aio.Operation.fdsync(fd)

        def told(_: object) -> None:
            try:
                operation.get_value()
            except OSError as error:
                done(error)
            else:
                done(None)

        operation.set_callback(told)
        try:
            taken = self._context.submit(operation)
        except ValueError as exc:  # the library's word for EINVAL and EBADF
            raise OSError(errno.EINVAL, str(exc)) from exc
        if taken != 1:
            raise OSError(errno.EAGAIN, "the kernel takes no more asynchronous syncs")

    def close(self) -> None:
        """Listen no more; what is under way goes on in the kernel, and nobody is told."""
        self._loop.remove_reader(self._context.fileno)

    def _completed(self) -> None:
        with suppress(BlockingIOError):  # the count was taken with an earlier completion
            self._context.poll()
        while self._context.process_events():
            pass


def open_syncer(loop: asyncio.AbstractEventLoop, path: str | os.PathLike[str]) -> Syncer | None:
    """A syncer for files beside `path`; None where there cannot be one.

    Args:
        loop: which is told.
        path: a file on the file system in question, to try it with.
    """
    if linux_aio is None:
        return None
    try:
        context = linux_aio.Context(max_requests=_AT_ONCE)
        _try_out(context, path)
        return Syncer(loop, context)
    except (OSError, ValueError, SystemError, NotImplementedError) as exc:
        _LOGGER.info("the log syncs in a thread: no asynchronous IO here (%s)", exc)
        return None


def _try_out(context: Any, path: str | os.PathLike[str]) -> None:
    """Sync once and wait for it.

    Raises:
        OSError: the kernel, the sandbox or the file system does not do it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        operation = linux_aio.Operation.fdsync(fd)
        if context.submit(operation) != 1:
            raise OSError(errno.EAGAIN, "nothing was submitted")
        context.process_events(1, 1, 10)
        operation.get_value()
        with suppress(BlockingIOError):
            context.poll()
    finally:
        os.close(fd)


__all__ = ["Done", "Syncer", "open_syncer"]
