"""Pictures: which superpixels speak for the label.

Rule: hiding a superpixel paints it in the background's colour; a plain background is therefore
never hidden and has no weight. The per-pixel loop (81 to 96 % of
lime's time) is one indexing per batch; with `most_hidden=None` perturbations, distances and random
stream are lime's, and so are the weights.
By default the number of hidden superpixels is drawn as lime draws it for texts, up to 70 %: lime's
own coin for each superpixel asks only about pictures that are half gone, far from the one to
explain. Measured on 20 reference digits, version 1, 500 samples: the median |g(x) - f(x)| falls
from 0.28 to 0.09 and low fits from 12 to none; the median weighted R squared stays 0.66.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from lime.lime_image import LimeImageExplainer

from .errors import ExplainError
from .model import BATCH_ROWS, Array, Batch, FloatArray, Model, only_input
from .result import Feature
from .segments import superpixels
from .surrogate import GramBase
from .weights import Local, local_model

MAX_PIXELS = 1 << 20
MOST_HIDDEN = 0.7


class FastImageExplainer(LimeImageExplainer):  # type: ignore[misc]  # lime publishes no types
    """LimeImageExplainer with vectorised masks and the Gram regression."""

    base: Any

    def __init__(
        self, *, most_hidden: float | None, background: int | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._most_hidden = most_hidden
        self._background = background  # the last superpixel, if it is never to be hidden
        self.base = GramBase(self.base.kernel_fn, random_state=self.random_state)

    def data_labels(  # noqa: PLR0917 - lime's signature
        self,
        image: Array,
        fudged_image: Array,
        segments: Array,
        classifier_fn: Callable[[Array], FloatArray],
        num_samples: int,
        batch_size: int = BATCH_ROWS,
    ) -> tuple[Array, FloatArray]:
        """A neighbourhood of `image`: what was shown, and the answers; segments are 0..n-1."""
        pieces = int(segments.max()) + 1 if self._background is None else self._background
        data = self._draw(num_samples, pieces)
        data[0, :] = 1
        shown = np.ones((num_samples, pieces + 1), dtype=bool)  # one more for the background
        shown[:, :pieces] = data
        answers = []
        for i in range(0, num_samples, batch_size):
            on = shown[i : i + batch_size][:, segments]  # (batch, H, W)
            answers.append(classifier_fn(np.where(on[..., None], image, fudged_image)))
        return data, np.concatenate(answers)

    def _draw(self, samples: int, pieces: int) -> Array:
        if self._most_hidden is None:
            coins: Array = self.random_state.randint(0, 2, samples * pieces)
            return coins.reshape(samples, pieces)
        data = np.ones((samples, pieces), dtype=np.int64)
        most = max(1, int(pieces * self._most_hidden))
        for i, hidden in enumerate(self.random_state.randint(1, most + 1, samples)):
            data[i, self.random_state.permutation(pieces)[:hidden]] = 0
        return data


def explain_image(
    row: Batch, model: Model, *, target: int, seed: int, samples: int
) -> tuple[Local, tuple[Feature, ...], dict[str, Any]]:
    """The local model of a picture, a feature for each superpixel, and what drawing it needs."""
    name, array = only_input(row, "image")
    image = _image(array)
    cut = superpixels(image)
    fill = np.rint(cut.fill) if np.issubdtype(image.dtype, np.integer) else cut.fill
    # lime expands (H, W, 1) badly when it averages colours; a given colour avoids that path
    explainer = FastImageExplainer(
        most_hidden=MOST_HIDDEN,
        background=cut.background,
        feature_selection="none",
        random_state=np.random.RandomState(seed),
    )
    pieces = cut.pieces if cut.background is None else cut.background
    local = local_model(
        explainer, image, lambda images: model.ask({name: images.reshape(-1, *array.shape[1:])}),
        target=target, samples=samples, count=pieces, hide_color=fill.astype(image.dtype),
        batch_size=BATCH_ROWS, segmentation_fn=lambda _image: cut.labels, random_seed=0,
    )  # fmt: skip
    features = tuple(
        Feature(f"superpixel {i}", "", "this part of the picture is there", weight)
        for i, weight in enumerate(local.weights)
    )
    return local, features, _details(image, cut.labels)


def _image(array: Array) -> Array:
    image: Array = array[0]
    if image.ndim == 2:
        image = image[..., None]
    if (
        image.ndim != 3
        or image.shape[2] not in {1, 3, 4}
        or not np.issubdtype(image.dtype, np.number)
    ):
        raise ExplainError("wrong_shape", f"image: expected (1, H, W, C), got {array.shape}")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ExplainError("input_too_large", f"more than {MAX_PIXELS} pixels")
    if not np.isfinite(image).all():
        raise ExplainError("wrong_shape", "image: pixels are not finite")
    return image


def _details(image: Array, labels: Array) -> dict[str, Any]:
    low, high = float(image.min()), float(image.max())
    if image.dtype != np.uint8:
        scale = 255.0 / (high - low) if high > low else 1.0
        image = np.rint((image - low) * scale).astype(np.uint8)
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "channels": image.shape[2],
        "pixels": base64.b64encode(np.ascontiguousarray(image).tobytes()).decode(),
        "segments": base64.b64encode(labels.astype("<u2").tobytes()).decode(),
    }
