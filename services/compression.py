"""HTTP content codings: gzip and deflate, never more bytes than the limit.

Source: RFC 9110 sections 8.4 and 12.5.3 (codings and how clients ask for them), RFC 1952 (gzip; a
body may be several members one after another), RFC 1950 (deflate is the zlib format).
Rule: decompression stops one byte beyond the limit; a reply is compressed only when the caller asks
for a coding that we have and does not give it the weight 0.
"""

from __future__ import annotations

import gzip
import zlib

from .faults import BadRequest, TooLarge

__all__ = ["deflate", "inflate"]

_COMPRESS_BYTES = 4096
_MAX_MEMBERS = 16
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before the caller compressed it.

    Raises:
        TooLarge: it would be larger than `limit` bytes.
        BadRequest: another coding, or bytes that are not of that coding.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    wbits = _WBITS.get(coding)
    if wbits is None:
        raise BadRequest("Content-Encoding must be gzip, deflate or identity")
    found, rest = _member(body, wbits, limit, limit)
    if rest and coding == "deflate":
        raise BadRequest("the compressed body has bytes behind it")
    for _ in range(_MAX_MEMBERS - 1):
        if not rest:
            return found
        member, rest = _member(rest, wbits, limit - len(found), limit)
        found += member
    raise BadRequest(f"the compressed body has more than {_MAX_MEMBERS} members")


def _member(body: bytes, wbits: int, room: int, limit: int) -> tuple[bytes, bytes]:
    """One member of at most `room` bytes of `limit`, and what stands behind it."""
    stream = zlib.decompressobj(wbits)
    try:
        found = stream.decompress(body, room + 1)
    except zlib.error as exc:
        raise BadRequest("the body does not decompress as its Content-Encoding says") from exc
    if len(found) > room:
        raise TooLarge(f"the decompressed body is larger than {limit} bytes")
    if not stream.eof:
        raise BadRequest("the compressed body is cut short")
    return found, stream.unused_data


def deflate(body: bytes, accepted: str) -> tuple[bytes, bytes | None]:
    """Compress a reply that is worth it with the coding the caller prefers; (bytes, coding)."""
    if len(body) < _COMPRESS_BYTES or not accepted:
        return body, None
    weights = dict(map(_offer, accepted.lower().split(",")))
    gzipped, deflated = weights.get("gzip", 0.0), weights.get("deflate", 0.0)
    if gzipped > 0 and gzipped >= deflated:
        return gzip.compress(body, 1), b"gzip"
    if deflated > 0:
        return zlib.compress(body, 1), b"deflate"
    return body, None


def _offer(text: str) -> tuple[str, float]:
    """`gzip;q=0.5` as a name and its weight; a weight that is no number counts as 0."""
    name, _, rest = text.partition(";")
    key, _, value = rest.partition("=")
    if key.strip() != "q":
        return name.strip(), 1.0
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), 0.0
