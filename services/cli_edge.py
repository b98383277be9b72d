"""The edge of the command line: how a refusal is said, and where output ends.

Rules:
1. What a caller, a file or the system can bring about is one line on standard error that says what
   to do, and exit status 2; never a traceback.
2. Of the system's errors the file, the system's words and a remedy are said; of bytes that are no
   text, nothing but that.
3. Whoever closes the pipe has seen enough: it ends without a word. A full disk is said.
4. What a terminal cannot show is shown as its number; for programs, output is UTF-8 everywhere.
Boundary: standard streams and words; cli.py says which errors are refusals.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

__all__ = ["drop_output", "for_programs", "prepare_output", "printable", "read_text", "said_of"]

_REMEDIES = {
    errno.ENOENT: "check the path; its folder must be there",
    errno.ENOTDIR: "check the path: a part of it is no folder",
    errno.EISDIR: "name a file: it is a folder",
    errno.EEXIST: "name another: it is there already",
    errno.EACCES: "run this as the user that owns it",
    errno.EPERM: "run this as the user that owns it",
    errno.EROFS: "write elsewhere: its disk is read-only",
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space on its disk: the quota is used up",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "end other programs: the system has no room for more open files",
    errno.EADDRINUSE: "choose another port: a program listens there",
    errno.EADDRNOTAVAIL: "choose an address of this machine",
    errno.EIO: "its disk failed: copy what can be read, and replace it",
}


def prepare_output() -> None:
    """Make standard output one that takes every text; call it first."""
    if sys.stdout is None:  # closed: nothing else may get its number, and nobody reads
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def for_programs() -> None:
    """Have what follows on standard output be UTF-8, whatever the terminal's encoding is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")


def drop_output() -> None:
    """Forget what standard output did not take, or the interpreter would try again and complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  none to replace


def read_text(path: Path) -> str:
    """A file that somebody names, which must be text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"could not read {path}: it is no text in UTF-8; check that this file was meant"
        ) from None


def said_of(error: BaseException) -> str:
    """A refusal in one line, or several where it has them."""
    if isinstance(error, UnicodeEncodeError):
        return "could not use a word of the command: it holds bytes that are no text in UTF-8"
    if isinstance(error, UnicodeDecodeError):
        return "could not read a file: it is no text in UTF-8; check what was given"
    if isinstance(error, OSError) and error.errno is not None:
        remedy = _REMEDIES.get(error.errno, "see the system's log, and try again")
        what = "what it reads or writes" if error.filename is None else str(error.filename)
        words = error.strerror or type(error).__name__
        return printable(f"could not use {what}: {words}; {remedy}")
    return "\n".join(map(printable, str(error).split("\n")))  # it may repeat what callers wrote


def printable(text: str) -> str:
    """The text without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
