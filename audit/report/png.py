"""Small PNG pictures from arrays: no library, so no version stamp and no clock in the bytes.

Source: PNG (ISO/IEC 15948), colour types 2 (RGB); one IDAT, filter 0.
"""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def png(pixels: Pixels) -> bytes:
    """A PNG of `pixels`, shape (H, W, 3)."""
    height, width, _ = pixels.shape
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"IDAT", zlib.compress(np.ascontiguousarray(rows).tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def data_uri(pixels: Pixels) -> str:
    """The PNG as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
