"""The credential of one call: from headers or metadata to one string, or a refusal.

Source: RFC 6750 section 2.1 (`Authorization: Bearer TOKEN`); `x-api-key` for clients that can set
a header but no scheme.
Rule 1: exactly one credential. Two headers, or both kinds, are refused: a proxy and this server
might not agree on which one counts.
Rule 2: what is no token68 of RFC 7235 is no credential; nothing longer than 8 KiB is looked at.
Rule 3: no text of a refusal repeats what was sent.
Boundary: knows neither keys nor tokens; a value is only ever handed on, never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..faults import BadRequest, Unauthenticated

__all__ = ["MAX_BYTES", "Said", "read_said"]

MAX_BYTES = 8192
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
_ARM = "x-weighbridge-arm"
_NAMES: dict[str | bytes, str] = {
    spelled: name
    for name in ("authorization", "x-api-key", _ARM)
    for spelled in (name, name.encode())
}


class Said:
    """What the gate needs to know of a call's headers; never printed with its credential."""

    __slots__ = ("credential", "forced")

    def __init__(self, credential: str | None, *, forced: bool) -> None:
        """`forced`: the caller asks for an arm."""
        self.credential = credential
        self.forced = forced

    def __repr__(self) -> str:
        return f"Said(credential={'***' if self.credential else None}, forced={self.forced})"


def read_said(pairs: Iterable[tuple[str | bytes, str | bytes]]) -> Said:
    """The one credential among the headers of a call, and whether an arm is forced.

    Args:
        pairs: HTTP headers as ASGI gives them, or gRPC metadata; names in lower case.

    Raises:
        BadRequest: more than one credential.
        Unauthenticated: it is not in the form of one.
    """
    found: list[tuple[str, str]] = []
    forced = False
    for key, value in pairs:
        name = _NAMES.get(key)
        if name is None:
            continue
        if name == _ARM:
            forced = forced or bool(value)
        else:
            found.append((name, value if isinstance(value, str) else value.decode("latin-1")))
    if len(found) > 1:
        raise BadRequest("more than one credential was sent; send one")
    return Said(_checked(*found[0]) if found else None, forced=forced)


def _checked(name: str, value: str) -> str | None:
    if len(value) > MAX_BYTES:
        raise Unauthenticated(f"the credential is longer than {MAX_BYTES} bytes")
    text = value.strip(" \t")
    if name == "authorization":
        scheme, _, text = text.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("the Authorization header must be 'Bearer CREDENTIAL'")
        text = text.strip(" ")
    if not _TOKEN68.match(text):
        raise Unauthenticated("the credential is malformed")
    return text
