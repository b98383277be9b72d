"""The TensorFlow side of training: a program of its own, started by keras_fit.py.

Usage: python -P keras_child.py FOLDER. Reads FOLDER/job.json (settings) and FOLDER/feeds.npz;
writes FOLDER/model.onnx and FOLDER/answers.npz (the framework's own probabilities for the
held-out rows); prints one JSON line for each epoch, and at the end one with the versions.
Rule: nothing of this project is imported, so that TensorFlow's seconds, threads and warnings stay
in this process.
Source: Keras 3 functional models; tf2onnx `convert.from_keras`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(
    KERAS_BACKEND="tensorflow",
    TF_CPP_MIN_LOG_LEVEL="3",
    CUDA_VISIBLE_DEVICES="-1",
    TF_ENABLE_ONEDNN_OPTS="0",
)  # before the import: TensorFlow reads them once

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

_PARTS = ("train", "valid", "test")


def _say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class _Report(keras.callbacks.Callback):  # type: ignore[misc] # keras publishes no types
    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the epoch's figures."""
        figures = logs or {}
        _say(
            number=epoch + 1,
            learning_rate=float(self.model.optimizer.learning_rate),
            train_loss=figures["loss"],
            valid_loss=figures["val_loss"],
            valid_accuracy=figures["val_accuracy"],
        )


def _network(job: dict[str, Any]) -> Any:
    layers = keras.layers
    numeric = keras.Input((job["numbers"],), name="numeric", dtype="float32")
    categories = keras.Input((job["columns"],), name="categories", dtype="int64")
    vectors = layers.Embedding(job["places"], job["width"])(categories)  # (n, columns, width)
    hidden = layers.Concatenate()([numeric, layers.Flatten()(vectors)])
    for units in job["hidden"]:
        hidden = layers.Dense(units, use_bias=not job["batch_norm"])(hidden)
        if job["batch_norm"]:
            hidden = layers.BatchNormalization()(hidden)
        hidden = layers.Dropout(job["dropout"])(layers.Activation("relu")(hidden))
    out = layers.Dense(2, activation="softmax", name="probabilities")(hidden)
    return keras.Model([numeric, categories], out)


def _train(model: Any, job: dict[str, Any], arrays: dict[str, Any]) -> None:
    feeds = {part: [arrays[f"{part}_numeric"], arrays[f"{part}_categories"]] for part in _PARTS}
    steps = job["epochs"] * -(-len(arrays["train_labels"]) // job["batch_rows"])
    schedule = keras.optimizers.schedules.CosineDecay(
        job["learning_rate"] / 10,
        steps,
        warmup_target=job["learning_rate"],
        warmup_steps=max(steps // 10, 1),
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=job["weight_decay"]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=job["patience"], restore_best_weights=True
    )
    model.fit(
        feeds["train"],
        arrays["train_labels"],
        batch_size=job["batch_rows"],
        validation_data=(feeds["valid"], arrays["valid_labels"]),
        epochs=job["epochs"],
        callbacks=[_Report(), stop],
        verbose=0,
    )


def _export(model: Any, path: Path, opset: int) -> None:
    converted, _ = tf2onnx.convert.from_keras(model, opset=opset)
    graph = converted.graph
    old = graph.output[0].name
    for node in graph.node:  # the served name, whatever the converter called it
        node.output[:] = ["probabilities" if name == old else name for name in node.output]
        node.input[:] = ["probabilities" if name == old else name for name in node.input]
    graph.output[0].name = "probabilities"
    onnx.checker.check_model(converted)
    path.write_bytes(converted.SerializeToString())


def main(folder: Path) -> None:
    """Train, export and answer the held-out rows of the job in `folder`."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(job["seed"])
    tf.config.experimental.enable_op_determinism()
    with np.load(folder / "feeds.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    model = _network(job)
    _train(model, job, arrays)
    _export(model, folder / "model.onnx", job["opset"])
    answers = model.predict(
        [arrays["test_numeric"], arrays["test_categories"]], batch_size=1024, verbose=0
    )
    np.savez(folder / "answers.npz", probabilities=answers)
    _say(framework=f"tensorflow {tf.__version__}", keras=keras.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
