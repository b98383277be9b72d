"""Asking witnesses to cosign each new checkpoint, beside everything else.

Implements the client's side of C2SP tlog-witness (c2sp.org/tlog-witness): `add-checkpoint`.
Rules:
1. Nothing waits for a witness. Each has a thread of its own, which takes the newest checkpoint when
   it is free; one that is slow or away misses checkpoints and harms nobody. It is asked again after
   a pause that doubles up to a minute.
2. What a witness answers counts only if it is its own signature over our checkpoint.
3. A witness that knows a larger tree, or another one of the same size, is no fault of the network:
   it says that this log was rolled back or forked. That is shown as `alarm`, and kept.
Boundary: reads the log's files and speaks HTTP; knows no notary. Called through `wake` by whoever
signs; the cosigned notes go to cosigned.py.
Read next: witness.py (the other side).
"""

import http.client
import logging
import re
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from .cosignature import CosignerKey, cosignatures, with_signatures
from .cosigned import cosigned_path, write_cosigned
from .errors import AuditError, NoteError
from .merkle import consistency_proof
from .note import Checkpoint, VerifierKey
from .publish import read_checkpoint
from .rotation import chain_of
from .tiles import TileReader
from .witness import SIZE_TYPE, format_request

_LOGGER = logging.getLogger("weighbridge.audit")
_ANSWER_BYTES = 64 << 10
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_OK, _CONFLICT, _NO_PROOF = 200, 409, 422
_SIZE = re.compile(r"(0|[1-9][0-9]{0,17})\n", re.ASCII)


class WitnessRefusal(AuditError):
    """A witness did not cosign: it is away, refused, or answered what is no cosignature."""

    retryable = True


class WitnessAlarm(WitnessRefusal):
    """A witness saw a tree of this log that this log does not extend."""


class WitnessAddress(NamedTuple):
    """Where a witness is asked, and the key it signs with."""

    url: str
    key: CosignerKey

    @classmethod
    def parse(cls, url: str, vkey: str) -> "WitnessAddress":
        """Check both.

        Raises:
            ValueError: not an http or https URL without query, or not a witness's key.
        """
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"could not use the witness '{url}': write http(s)://HOST[:PORT] VKEY")
        try:
            return cls(url.rstrip("/"), CosignerKey.parse(vkey))
        except NoteError as exc:
            raise ValueError(f"could not use the witness '{url}': {exc}") from exc


@dataclass(frozen=True, slots=True)
class WitnessState:
    """What is known of one witness: the size it cosigned last, and what stands in the way now."""

    name: str
    cosigned: int = 0
    failure: str | None = None
    alarm: bool = False


class Cosigning:
    """Asks every witness, each in its own thread, from `start` to `close`."""

    def __init__(
        self,
        directory: Path,
        log_key: VerifierKey,
        witnesses: Sequence[WitnessAddress],
        *,
        timeout_s: float = 5.0,
    ) -> None:
        self._askers = [_Asker(directory, log_key, found, timeout_s) for found in witnesses]

    def start(self) -> None:
        """Begin, with the checkpoint that is there."""
        for asker in self._askers:
            asker.start()

    def wake(self) -> None:
        """Say that a checkpoint may be new; never blocks."""
        for asker in self._askers:
            asker.due.set()

    def states(self) -> list[WitnessState]:
        """What is known of each witness."""
        return [asker.state for asker in self._askers]

    def close(self) -> None:
        """Ask nobody any more; does not wait for an answer that is on its way."""
        for asker in self._askers:
            asker.closed.set()
        self.wake()


class _Asker(threading.Thread):
    def __init__(
        self, directory: Path, log_key: VerifierKey, address: WitnessAddress, timeout_s: float
    ) -> None:
        super().__init__(name=f"witness-{address.key.name}", daemon=True)
        self._directory, self._log_key, self._address = directory, log_key, address
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if address.url.startswith("https:") else None
        self.due = threading.Event()
        self.closed = threading.Event()
        self._asked = False  # once after a start in any case: that shows a log that was rolled back
        self.state = WitnessState(address.key.name, self._kept())

    def run(self) -> None:
        """Cosign, wait for the next checkpoint or for the end of the pause, and again."""
        pause_s = 0.0
        while not self.closed.is_set():
            try:
                self._cosign()
            except Exception as exc:  # noqa: BLE001 - the edge of a thread; `state` says it
                pause_s = min(max(2 * pause_s, _PAUSE_S), _LONGEST_PAUSE_S)
                self._failed(exc)
            else:
                pause_s = 0.0
            if pause_s:
                self.closed.wait(pause_s)  # a new checkpoint does not shorten it
            else:
                self.due.wait()
            self.due.clear()

    def _failed(self, exc: Exception) -> None:
        known = self.state
        failure = str(exc) if isinstance(exc, AuditError) else type(exc).__name__
        alarm = isinstance(exc, WitnessAlarm)
        if failure != known.failure:
            report = _LOGGER.error if alarm else _LOGGER.warning
            report("the witness %s did not cosign: %s", known.name, failure)
        self.state = WitnessState(known.name, known.cosigned, failure, alarm)

    def _cosign(self) -> None:
        note = read_checkpoint(self._directory)
        if note is None:
            return
        tree = chain_of(self._directory, self._log_key).open(note)
        known = self._asked and tree.size <= self.state.cosigned and self.state.failure is None
        if known or tree.size == 0:
            return
        lines = self._ask(note, tree)
        cosigned = self._checked(note, lines)
        write_cosigned(self._directory, self._address.key, cosigned)
        self.state = WitnessState(self.state.name, tree.size)
        self._asked = True

    def _ask(self, note: str, tree: Checkpoint) -> str:
        """Submit a checkpoint, from the size that the witness knows; learns it if need be."""
        old = min(self.state.cosigned, tree.size)
        for _ in range(2):
            proof = consistency_proof(TileReader(self._directory, tree.size), old, tree.size)
            status, kind, body = self._post(format_request(old, proof, note))
            if status == _OK:
                return body
            known = _size(status, kind, body)
            if status == _NO_PROOF or known > tree.size or known == old:
                raise WitnessAlarm(
                    f"it cosigned a tree of {max(known, old)} records that this log of "
                    f"{tree.size} does not extend: the log was rolled back or forked, or another "
                    "one has its name"
                )
            old = known
        raise WitnessRefusal("somebody else submits this log's checkpoints, too")

    def _checked(self, note: str, lines: str) -> str:
        """The note with the witness's own signature.

        Raises:
            WitnessRefusal: the answer holds no signature of it over this checkpoint.
        """
        own = f"— {self._address.key.name} "
        try:
            wanted = [line for line in lines.splitlines() if line.startswith(own)]
            cosigned = with_signatures(note, wanted)
            if cosignatures(cosigned, [self._address.key]):
                return cosigned
        except NoteError as exc:
            raise WitnessRefusal("its signature is wrong") from exc
        raise WitnessRefusal("it answered without a signature under the key that is configured")

    def _post(self, body: str) -> tuple[int, str, str]:
        parts = urlsplit(self._address.url)
        host, port = str(parts.hostname), parts.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=self._timeout_s)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        )
        try:
            connection.request("POST", f"{parts.path}/add-checkpoint", body.encode())
            with connection.getresponse() as answer:
                kind = answer.headers.get_content_type()
                return answer.status, kind, answer.read(_ANSWER_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as exc:
            raise WitnessRefusal(f"it could not be reached: {type(exc).__name__}") from exc
        finally:
            connection.close()

    def _kept(self) -> int:
        """The size that the witness cosigned last, as far as this log knows."""
        with suppress(OSError, AuditError, UnicodeDecodeError):
            note = cosigned_path(self._directory, self._address.key).read_bytes().decode()
            return chain_of(self._directory, self._log_key).open(note).size
        return 0


def _size(status: int, kind: str, body: str) -> int:
    """The size in a 409; 0 in a 422, which names none.

    Raises:
        WitnessRefusal: any other answer.
    """
    if status == _NO_PROOF:
        return 0
    found = _SIZE.fullmatch(body)
    if status != _CONFLICT or kind != SIZE_TYPE or not found:
        raise WitnessRefusal(f"it answered {status}")
    return int(found[1])
