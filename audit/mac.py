"""HMAC-SHA256 (RFC 2104) under a key that stays: its two blocks are hashed once.

Rule: `Mac(key).digest(data) == hmac.digest(key, data, "sha256")`, at half the price for short data;
a test compares them. The key itself is not kept.
"""

from hashlib import sha256

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class Mac:
    """A keyed hash, ready to be applied."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        """`key` is of any length; one beyond 64 bytes counts by its hash."""
        block = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(
            _BLOCK_BYTES, b"\0"
        )
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def digest(self, data: bytes) -> bytes:
        """The 32 bytes for `data`."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()


__all__ = ["Mac"]
