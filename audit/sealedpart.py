"""What the sealed part of a decision says, checked before anybody relies on it.

    {"groups": [[{attribute: group}, label, rows], ...], "nonce": hex}

It is a gateway's own, under a key of the subject; a gateway on another machine is another program.
Rule: whatever is not of this form raises PayloadDamaged, and repeats nothing of it; who counts
decisions passes over it. Both fields may be missing: then there is nothing to count or to compare.
That a record has such a part, so that its keys must be somewhere, is told without opening it.
Boundary: pure. Read next: seals.py (who opens it), fairness.py (who counts groups).
"""

from typing import Any

from .canonical import loads
from .errors import DecodeError, PayloadDamaged
from .keytree import NONCE_BYTES

__all__ = ["is_sealed", "sealed_part"]

_FIRST_SCHEMA = b',"schema":1,"score":'  # neighbours in a decision's canonical bytes
_LEAST = (NONCE_BYTES + 16) * 4 // 3  # base64 of a nonce and a tag


def is_sealed(entry: bytes) -> bool:
    """Whether an entry is a decision with a part that is sealed under its subject's key."""
    if b'"sealed":"' not in entry or _FIRST_SCHEMA in entry:
        return False
    try:
        body = loads(entry)
    except DecodeError:
        return False
    if not isinstance(body, dict) or body.get("type") != "decision" or body.get("schema") == 1:
        return False
    return isinstance(sealed := body.get("sealed"), str) and len(sealed) >= _LEAST


def sealed_part(raw: bytes, decision: str) -> dict[str, Any]:
    """The fields of an opened sealed part.

    Raises:
        PayloadDamaged: it is not of this form.
    """
    try:
        found = loads(raw)
    except DecodeError:
        found = None
    if isinstance(found, dict):
        groups, nonce = found.setdefault("groups", []), found.get("nonce", "")
        if isinstance(groups, list) and all(map(_is_group, groups)) and isinstance(nonce, str):
            return found
    raise PayloadDamaged(f"could not read the sealed part of {decision}: no gateway makes such")


def _is_group(group: object) -> bool:
    """Attributes with their groups, the answer's label, how many rows."""
    if not isinstance(group, list) or len(group) != 3:
        return False
    attributes, label, rows = group
    return (
        isinstance(attributes, dict)
        and not any(isinstance(value, dict | list) for value in attributes.values())
        and isinstance(label, str)
        and type(rows) is int
        and rows >= 0
    )
