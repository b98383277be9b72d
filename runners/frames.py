"""Frames of the data socket between two of our own processes: a head, then raw tensors.

Form: 4-byte little-endian length of the head, 4-byte length of the body, head (MessagePack), body.
The head is an `Ask` or a `Told` and ends with what its tensors are, in the order of the body; BYTES
elements stand in the head, because MessagePack reads and writes them in one pass, and numbers in
the body, row-major and little-endian.
Law: `parse(format(head, arrays))` gives equal heads and arrays.
Boundary: no IO. Only our own processes speak this; what does not parse is a `ConnectionError`.
Read next: link.py (who sends and answers).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from .errors import ModelFailed
from .tensor import DTYPES, Array, datatype_of

__all__ = [
    "MAX_BYTES",
    "Ask",
    "Frame",
    "Splitter",
    "Told",
    "format_frame",
    "parse_arrays",
    "parse_head",
]

MAX_BYTES: Final = 1 << 30
_SIZES = struct.Struct("<II")
_VIEWED_BYTES = 1 << 14  # below, a copy is cheaper than a view


class _About(NamedTuple):
    """One tensor: its elements if it is BYTES, else its size in the body."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int
    elements: list[bytes]


class Ask(msgspec.Struct, array_like=True, gc=False):
    """A batch and what is asked of it; `budget_s` is what is left of its latest deadline."""

    number: int
    name: str
    version: str
    rows: int
    budget_s: float | None
    contexts: tuple[str, ...]
    about: tuple[_About, ...] = ()


class Told(msgspec.Struct, array_like=True, gc=False):
    """The answer of that number: outputs and times, or the name of an error and its message."""

    number: int
    queue_s: float = 0.0
    infer_s: float = 0.0
    batch_rows: int = 0
    error: str = ""
    message: str = ""
    about: tuple[_About, ...] = ()


class Frame(NamedTuple):
    """One frame as it came."""

    head: memoryview
    body: memoryview


_Head = TypeVar("_Head", Ask, Told)
_encode = msgspec.msgpack.Encoder().encode
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(kind) for kind in (Ask, Told)}


def format_frame(head: Ask | Told, arrays: Mapping[str, Array]) -> bytes:
    """Write one frame; fills in `head.about`.

    Raises:
        ModelFailed: it would be larger than 1 GiB.
    """
    about: list[_About] = []
    parts: list[bytes | memoryview] = [b"", b""]
    size = 0
    for name, array in arrays.items():
        dtype = array.dtype
        if dtype.kind in "OSU":
            about.append(_About(name, "BYTES", array.shape, 0, _elements(array)))
            continue
        part = array.tobytes() if array.nbytes < _VIEWED_BYTES else _view(array)
        about.append(_About(name, datatype_of(dtype), array.shape, array.nbytes, []))
        parts.append(part)
        size += array.nbytes
    head.about = tuple(about)
    text = _encode(head)
    if len(text) + size > MAX_BYTES:
        raise ModelFailed("a batch is larger than 1 GiB and cannot go to another process")
    parts[:2] = _SIZES.pack(len(text), size), text
    return b"".join(parts)


def _elements(array: Array) -> list[bytes]:
    elements = array.ravel().tolist()
    return [text if type(text) is bytes else _bytes(text) for text in elements]


def _bytes(text: object) -> bytes:
    return bytes(text) if isinstance(text, bytes) else str(text).encode()


def _view(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def parse_head(kind: type[_Head], frame: Frame) -> _Head:
    """Read the head of a frame.

    Raises:
        ConnectionError: it is none of that kind.
    """
    try:
        head = _DECODERS[kind].decode(frame.head)
    except msgspec.MsgspecError as exc:
        raise ConnectionError(f"could not read a frame: {exc}") from exc
    if not isinstance(head, kind):
        raise ConnectionError("a frame has another kind of head")
    return head


def parse_arrays(head: Ask | Told, body: memoryview) -> dict[str, Array]:
    """Take the tensors out of a frame; those of numbers are read-only views of `body`.

    Raises:
        ConnectionError: the body is not what the head says.
    """
    arrays: dict[str, Array] = {}
    offset = 0
    try:
        for name, datatype, shape, size, elements in head.about:
            if datatype == "BYTES":
                array = np.empty(len(elements), dtype=object)
                array[:] = elements
            else:
                array = np.frombuffer(body[offset : offset + size], DTYPES[datatype])
                offset += size
            arrays[name] = array.reshape(shape)
    except (KeyError, ValueError) as exc:
        raise ConnectionError(f"could not read a frame's tensors: {exc}") from exc
    return arrays


class Splitter:
    """Cuts what arrives into frames; linear in what arrives, whatever the pieces."""

    def __init__(self) -> None:
        """Nothing has arrived."""
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = _SIZES.size

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that `data` completes, in order.

        Raises:
            ConnectionError: a frame says it is larger than 1 GiB.
        """
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        whole = memoryview(data if len(self._pieces) == 1 else b"".join(self._pieces))
        frames, offset, held = [], 0, len(whole)
        while True:
            start = offset + _SIZES.size
            if start > held:
                self._wanted = _SIZES.size
                break
            head, body = _SIZES.unpack_from(whole, offset)
            if head + body > MAX_BYTES:
                raise ConnectionError("a frame is larger than 1 GiB")
            end = start + head + body
            if end > held:
                self._wanted = end - offset
                break
            frames.append(Frame(whole[start : start + head], whole[start + head : end]))
            offset = end
        self._pieces = [bytes(whole[offset:])] if offset < held else []
        self._held = held - offset
        return frames
