"""The audit log: what was decided, durably, provably, and readable by anyone who holds the files.

Promises: a record is on disk before its receipt exists; a receipt can be proved against a signed
checkpoint in public formats (RFC 6962, C2SP); one changed byte is found and named; a damaged log
is never repaired by forgetting.

Must not know: servers, tracers, model frameworks, experiments. A trace id is text, a model is a
name and a digest, a clock and a random source are arguments.

Read in this order: `events.py` and `record.py` (what is written), `frames.py` and `wal.py` (where
it becomes durable), `merkle.py`, `tiles.py`, `note.py` (how it becomes provable), `log.py` (the
one writer's files), `notary.py` (many appenders, one writer), `reader.py` (other processes),
`verify.py` (anyone), `retention.py`, `pruneplan.py` and `pruning.py` (how long), `fsck.py` and
`complete.py` (is it whole, is anything missing).

From the log down only the standard library, orjson and cryptography are imported; `explain`,
`fairness` and `report` stand above it.
"""

from .errors import (
    AuditError,
    EntryTooLarge,
    EventInvalid,
    EvidenceError,
    KeyFileError,
    LogDamaged,
    LogLocked,
    LogOverloaded,
    LogUnavailable,
    ProofError,
)
from .index import Index
from .keys import Keyring
from .notary import Notary, Receipt
from .reader import Entry, LogReader
from .record import Event, commitment, decode, encode, new_id
from .sample import Rules, Sampler
from .socket_link import NotaryClient, serve
from .verify import Findings, prove, verify_log, verify_proof

__all__ = [
    "AuditError",
    "Entry",
    "EntryTooLarge",
    "Event",
    "EventInvalid",
    "EvidenceError",
    "Findings",
    "Index",
    "KeyFileError",
    "Keyring",
    "LogDamaged",
    "LogLocked",
    "LogOverloaded",
    "LogReader",
    "LogUnavailable",
    "Notary",
    "NotaryClient",
    "ProofError",
    "Receipt",
    "Rules",
    "Sampler",
    "commitment",
    "decode",
    "encode",
    "new_id",
    "prove",
    "serve",
    "verify_log",
    "verify_proof",
]
