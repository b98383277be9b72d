"""A witness: cosigns checkpoints of logs it knows, and never two that contradict each other.

Implements the witness's side of C2SP tlog-witness (c2sp.org/tlog-witness), `add-checkpoint`:

    old <size of the tree that it cosigned last>
    <base64 hash>                 a consistency proof from there, at most 63 lines
    <empty line>
    <the checkpoint>

200 gives cosignature lines; 409 the size it knows, as text/x.tlog.size; 404 an unknown log, 403 one
that did not sign, 422 a proof that does not hold or another root at the same size (409 in version
1.0 of the protocol, which cosigning.py reads, too), 400 what is no request. State, one a log:

    <state>/checkpoints/<first 32 hex digits of SHA-256 of the origin>

holds the last checkpoint with the log's signature and the witness's own: a changed file is found.
Rules:
1. Comparing with what was cosigned and keeping what will be is one step under one lock; a second
   process on the same state is refused.
2. What is kept is on disk before the cosignature leaves. If it crashes between, the log asks again
   from the size it then learns, and gets its signature.
3. Time never goes back: a cosignature is not older than the one before it.
Boundary: no network; the clock is an argument. Refusals are answers, never exceptions.
Read next: witness_key.py (its key), cosigning.py (who asks).
"""

import base64
import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cosignature import Cosigner, cosignatures, with_signatures
from .errors import LogDamaged, LogLocked, NoteError, ProofError
from .files import make_directory, replace_file
from .merkle import EMPTY_ROOT, verify_consistency
from .note import (
    Checkpoint,
    VerifierKey,
    decode_base64,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    parse_signature,
    split_note,
)

SIZE_TYPE = "text/x.tlog.size"
MAX_REQUEST_BYTES = 256 << 10
_MAX_PROOF_LINES = 63
_OLD = re.compile("old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of an add-checkpoint request, unverified."""

    old: int
    proof: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, what kind of body, and the body."""

    status: int
    body: str
    kind: str = "text/plain; charset=utf-8"


def format_request(old: int, proof: Sequence[bytes], note: str) -> str:
    """The body of an add-checkpoint request; the inverse of `parse_request`."""
    hashes = "".join(f"{base64.b64encode(node).decode()}\n" for node in proof)
    return f"old {old}\n{hashes}\n{note}"


def parse_request(text: str) -> Request:
    """Read a request's body.

    Raises:
        NoteError: malformed.
    """
    head, separator, note = text.partition("\n\n")
    first, *lines = head.split("\n")
    match = _OLD.fullmatch(first)
    if not match or not separator or len(lines) > _MAX_PROOF_LINES:
        raise NoteError("could not read the request: not an old size, a proof and a checkpoint")
    proof = tuple(decode_base64(line, "a proof line") for line in lines)
    if any(len(node) != 32 for node in proof):
        raise NoteError("could not read the request: a proof line is not a SHA-256 hash")
    return Request(int(match[1]), proof, note)


class Witness:
    """The one process that signs with a witness's key. Close it, or end the process.

    Args:
        directory: its state; made if missing.
        cosigner: its key.
        logs: the public keys of the logs it knows; several of one name are keys of one log.
        now_s: the clock, Unix seconds.

    Raises:
        LogLocked: another process has this state.
        LogDamaged: the state does not verify; then this key must sign no more.
    """

    def __init__(
        self,
        directory: Path,
        cosigner: Cosigner,
        logs: Iterable[VerifierKey],
        *,
        now_s: Callable[[], int],
    ) -> None:
        self._directory, self._cosigner, self._now_s = directory, cosigner, now_s
        self._logs: dict[str, list[VerifierKey]] = {}
        for key in logs:
            self._logs.setdefault(key.name, []).append(key)
        make_directory(directory / "checkpoints")
        self._held = _take_lock(directory)
        self._lock = threading.Lock()
        try:
            self._last = {origin: self._load(origin) for origin in self._logs}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have the state."""
        os.close(self._held)

    def sizes(self) -> dict[str, int]:
        """How large a tree it cosigned, by the log's name."""
        return {origin: tree.size for origin, (tree, _) in self._last.items()}

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a request.

        Raises:
            OSError: the disk refused; nothing was signed.
        """
        try:
            request = parse_request(body.decode())
            tree = parse_checkpoint(split_note(request.note)[0])
        except (NoteError, UnicodeDecodeError) as exc:
            return Answer(400, f"{exc}\n")
        keys = self._logs.get(tree.origin)
        if keys is None:
            return Answer(404, "this witness does not know that log\n")
        try:
            text = open_note(request.note, *keys)
        except NoteError:
            return Answer(403, "none of the log's keys that this witness knows signed that\n")
        if request.old > tree.size:
            return Answer(400, "the old size is larger than the checkpoint's\n")
        with self._lock:
            return self._advance(tree, request, text)

    def _advance(self, tree: Checkpoint, request: Request, text: str) -> Answer:
        last, last_s = self._last[tree.origin]
        if request.old != last.size:
            return Answer(409, f"{last.size}\n", SIZE_TYPE)
        try:
            if tree.size == last.size and tree.root != last.root:
                raise ProofError("two trees of one size")
            verify_consistency(last.size, tree.size, last.root, tree.root, request.proof)
        except ProofError:
            return Answer(422, "the proof does not lead from the tree cosigned last to this one\n")
        time_s = max(self._now_s(), last_s)
        line = self._cosigner.cosign(text, time_s)
        keys = {(key.name, key.key_id) for key in self._logs[tree.origin]}
        kept = [s for s in split_note(request.note)[1] if parse_signature(s)[:2] in keys]
        note = with_signatures(f"{text}\n{line}", kept)
        # If we crash before this, nothing was said; after it, the same request is a 409 with the
        # new size, and the request from there gets the signature again.
        replace_file(self._path(tree.origin), note.encode())
        self._last[tree.origin] = tree, time_s
        return Answer(200, line)

    def _load(self, origin: str) -> tuple[Checkpoint, int]:
        path = self._path(origin)
        try:
            note = path.read_bytes().decode()
            tree = open_checkpoint(note, *self._logs[origin])
            (own,) = cosignatures(note, [self._cosigner.key])
        except FileNotFoundError:
            return Checkpoint(origin, 0, EMPTY_ROOT), 0
        except (NoteError, ValueError) as exc:
            raise LogDamaged(
                path,
                offset=None,
                expected="the last checkpoint, signed by the log and by this witness",
                found="something else",
            ) from exc
        if tree.origin != origin:
            raise LogDamaged(path, offset=None, expected=origin, found=tree.origin)
        return tree, own.time_s

    def _path(self, origin: str) -> Path:
        name = hashlib.sha256(origin.encode()).hexdigest()[:32]
        return self._directory / "checkpoints" / name


def _take_lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise LogLocked(f"could not open {directory}: another witness runs on it") from exc
    return fd
