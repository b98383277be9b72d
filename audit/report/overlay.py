"""A picture beside the same picture with its superpixels coloured by weight.

Rule: blue speaks for the label, orange against it (told apart by colour-blind readers, too); the
stronger the weight, the fuller the colour; superpixels of little weight stay without one. The
picture itself shows through as grey ink on white, whether it was drawn dark on light or light on
dark.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .png import Pixels, data_uri

FOR = np.array([31.0, 95.0, 168.0])
AGAINST = np.array([200.0, 98.0, 20.0])
EDGE_PX = 196  # drawn about this large
INK_DEPTH = 0.3  # how dark full ink is drawn
LIGHTEST = 0.05  # of the largest weight: less is not coloured
MAX_PIXELS = 1 << 20


class Overlay(NamedTuple):
    """Two `data:` addresses and the drawn width."""

    plain: str
    coloured: str
    width: int


def overlay(details: Mapping[str, Any], features: Sequence[Mapping[str, Any]]) -> Overlay | None:
    """The two pictures of an image explanation; None when the body does not hold together."""
    try:
        image, segments = _read(details)
    except (KeyError, ValueError, TypeError):
        return None
    if int(segments.max()) > len(features):  # one number more is the background, without a weight
        return None
    weights = np.array([*(float(f["weight"]) for f in features), 0.0])
    top = max(float(np.abs(weights).max()), 1e-12)
    strength = np.abs(weights) / top
    strength = np.where(strength < LIGHTEST, 0.0, strength**0.7)
    colour = np.where((weights >= 0)[:, None], FOR, AGAINST)[segments]  # (H, W, 3)
    tint = 255.0 - strength[segments][..., None] * (255.0 - colour)
    mixed = tint * (1.0 - INK_DEPTH * _ink(image)[..., None])
    scale = max(1, EDGE_PX // max(segments.shape))
    return Overlay(
        data_uri(_enlarge(image, scale)),
        data_uri(_edges(_enlarge(mixed, scale), _enlarge_labels(segments, scale))),
        segments.shape[1] * scale,
    )


def _read(details: Mapping[str, Any]) -> tuple[Any, Any]:
    height, width, channels = (int(details[k]) for k in ("height", "width", "channels"))
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError("the picture is too large, or empty")
    raw = np.frombuffer(base64.b64decode(details["pixels"]), np.uint8)
    image = raw.reshape(height, width, channels)[..., :3].astype(np.float64)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    labels = np.frombuffer(base64.b64decode(details["segments"]), "<u2")
    return image, labels.reshape(height, width).astype(np.int64)


def _ink(image: Any) -> Any:
    """How far each pixel is from the border's brightness, 0..1, shape (H, W)."""
    grey = image.mean(axis=2) / 255.0
    border = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    return np.clip(np.abs(grey - border), 0.0, 1.0)


def _enlarge(image: Any, scale: int) -> Pixels:
    grown = image.repeat(scale, axis=0).repeat(scale, axis=1)
    whole: Pixels = np.rint(np.clip(grown, 0, 255)).astype(np.uint8)
    return whole


def _enlarge_labels(labels: Any, scale: int) -> Any:
    return labels.repeat(scale, axis=0).repeat(scale, axis=1)


def _edges(pixels: Pixels, labels: Any) -> Pixels:
    """Thin grey lines between superpixels."""
    line = np.zeros(labels.shape, dtype=bool)
    line[1:] |= labels[1:] != labels[:-1]
    line[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    marked = pixels.copy()
    marked[line] = (0.6 * marked[line] + 0.4 * 128).astype(np.uint8)
    return marked
