"""Make SavedModels of the networks' weights, register them, and write what they answer.

Run by test_backends.py in a process of its own: TensorFlow costs 16 s and 650 MB.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runners.backends import Opening, open_model
from runners.errors import RunnerError
from runners.intake.draft import Wish
from runners.intake.register import register
from runners.intake.sniff import backend_of
from runners.intake.tensorflow import read_saved_model
from runners.registry import Registry

CPU = Opening(device="cpu")
SHAPES = {"cnn": [None, 1, 12, 12], "lstm": [None, 6], "dnn": [None, 9]}


def cnn(w, x):
    x = tf.transpose(x, [0, 2, 3, 1])
    x = tf.nn.conv2d(x, tf.transpose(w["conv.weight"], [2, 3, 1, 0]), 1, "VALID") + w["conv.bias"]
    scale = w["norm.weight"] / tf.sqrt(w["norm.running_var"] + 1e-5)
    x = tf.nn.relu((x - w["norm.running_mean"]) * scale + w["norm.bias"])
    x = tf.transpose(tf.nn.max_pool2d(x, 2, 2, "VALID"), [0, 3, 1, 2])
    x = tf.reshape(x, [-1, 200])
    return tf.nn.softmax(x @ tf.transpose(w["head.weight"]) + w["head.bias"])


def lstm(w, x):
    x = tf.gather(w["embed.weight"], x)
    h = c = tf.zeros([tf.shape(x)[0], 7])
    for step in range(6):
        z = (
            x[:, step] @ tf.transpose(w["lstm.weight_ih_l0"])
            + h @ tf.transpose(w["lstm.weight_hh_l0"])
            + w["lstm.bias_ih_l0"]
            + w["lstm.bias_hh_l0"]
        )
        i, f, g, o = tf.split(z, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
    return tf.nn.softmax(h @ tf.transpose(w["head.weight"]) + w["head.bias"])


def dnn(w, x):
    x = tf.tanh(x @ tf.transpose(w["first.weight"]) + w["first.bias"])
    return tf.sigmoid(x @ tf.transpose(w["last.weight"]) + w["last.bias"])


def save(folder: Path, call, spec) -> Path:
    module = tf.Module()
    module.call = tf.function(lambda x: {"y": call(x)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures=module.call)
    return folder


def held(registry: Registry, folder: Path, name: str):
    assert backend_of(folder) == "tensorflow"
    done = register(
        registry,
        read_saved_model(folder, "serving_default"),
        Wish(name=name, version="1"),
        signer=Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
        open_model=lambda artefact: open_model(artefact, CPU),
    )
    model = open_model(registry.open(name, "1"), CPU)
    model.warm_up()
    return model, done.manifest.signature.batching


def refusal(call) -> str:
    try:
        call()
    except RunnerError as exc:
        return str(exc)
    return "nothing was refused"


def main(folder: Path) -> None:
    registry, answers = Registry(folder / "home"), {}
    for name, call in (("cnn", cnn), ("lstm", lstm), ("dnn", dnn)):
        stored = dict(np.load(folder / f"{name}.npz"))
        x = stored.pop("held_out")
        w = {key: tf.constant(value) for key, value in stored.items()}
        spec = tf.TensorSpec(SHAPES[name], x.dtype, "x")
        path = save(folder / name, lambda x, w=w, call=call: call(w, x), spec)
        model, batching = held(registry, path, name)
        answers |= {name: model.infer({"x": x})["y"], f"{name}_batching": batching}
    spec = tf.TensorSpec([None, 1], tf.string, "x")
    model, _ = held(registry, save(folder / "upper", tf.strings.upper, spec), "upper")
    answers["upper"] = model.infer({"x": np.array([[b"a"], [b"bc"]], dtype=object)})["y"]
    artefact = registry.open("dnn", "1")
    answers["cuda"] = refusal(lambda: open_model(artefact, Opening(device="cuda")))
    answers["unknown"] = refusal(lambda: read_saved_model(folder / "dnn", "other"))
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
