"""What can go wrong in the audit log, split by whose fault it is.

Rule: a request error blames the caller and changes nothing; an evidence error carries what was
expected and what was found, and is never repaired silently; the rest is ours, and `retryable`
says whether the same call may succeed later. `status_hint` is a hint: this package knows no web
framework.
"""

from pathlib import Path


class AuditError(Exception):
    """Base of every error raised by this package."""

    retryable: bool = False
    status_hint: int = 500


# --- the caller's request -------------------------------------------------------------------


class RequestError(AuditError):
    """The event or the question cannot be accepted as it was given."""

    status_hint = 400


class EventInvalid(RequestError):
    """An event holds a value that has no canonical form (a float, a lone surrogate, …)."""


class EntryTooLarge(RequestError):
    """An encoded event is longer than 65,535 bytes, the limit of a tlog-tiles entry."""

    status_hint = 413


class EventConflict(RequestError):
    """An event id was used again for different content."""

    status_hint = 409


class NotFound(RequestError):
    """No such leaf, decision or payload."""

    status_hint = 404


class LeafPruned(NotFound):
    """The leaf was there, and was pruned since: the log says which record says so."""

    status_hint = 410


class NotPrunable(RequestError):
    """Nothing may be pruned now; says why not."""

    status_hint = 409


class HoldStands(RequestError):
    """A subject may not be erased while a legal hold stands on it."""

    status_hint = 409


# --- the evidence ---------------------------------------------------------------------------


class EvidenceError(AuditError):
    """Bytes that were kept as evidence do not say what they must say."""


class LogDamaged(EvidenceError):
    """A stored file is damaged: names the file, the offset, what was expected and found.

    Args:
        file: the damaged file.
        offset: where in the file, in bytes; None when the whole file is meant.
        expected: what should be there, in words.
        found: what is there, in words.
    """

    def __init__(self, file: Path, *, offset: int | None, expected: str, found: str) -> None:
        self.file = file
        self.offset = offset
        self.expected = expected
        self.found = found
        where = str(file) if offset is None else f"{file} at byte {offset}"
        super().__init__(f"could not trust {where}: expected {expected}, found {found}")


class NoteError(EvidenceError):
    """A signed note or checkpoint is malformed, or no trusted key signed it."""


class ProofError(EvidenceError):
    """An inclusion or consistency proof does not lead to the signed root."""


class DecodeError(EvidenceError):
    """Bytes of an entry are not an event that this version can read."""


class PayloadDamaged(EvidenceError):
    """A stored payload does not decrypt: it was changed, or belongs to another record."""


# --- ours -----------------------------------------------------------------------------------


class LogUnavailable(AuditError):
    """The log could not store the record; nothing was acknowledged. Try again later."""

    retryable = True
    status_hint = 503


class LogOverloaded(LogUnavailable):
    """Too many appends are waiting for the disk."""


class NotYetCheckpointed(LogUnavailable):
    """The leaf is durable, but no signed checkpoint covers it yet; one will, within seconds."""


class LogLocked(AuditError):
    """Another process is the writer of this log."""


class KeyFileError(AuditError):
    """A key file is missing, damaged, or readable by others."""
