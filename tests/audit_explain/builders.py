"""Small models and rows for the explainer's tests; seeded, no files."""

import numpy as np
from sklearn.datasets import load_digits

WORDS = {"good": 2.0, "bad": -2.0, "not": -1.0, "好": 2.0, "坏": -2.0, "书": 0.1}


def softmax(scores):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def digit(index):
    """A real 8x8 digit of scikit-learn, drawn at 28x28, (1, 28, 28, 1) UINT8."""
    small = load_digits().images[index] / 16.0
    large = np.kron(small, np.ones((3, 3)))
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 2:26, 2:26, 0] = (large * 255).astype(np.uint8)
    return {"image": image}


class DigitModel:
    """Nearest class mean of the 8x8 means, softened; remembers how many rows each call had."""

    def __init__(self):
        data = load_digits()
        means = [data.data[data.target == k].mean(axis=0) for k in range(10)]
        self.means = np.stack(means)  # (10, 64)
        self.calls = []

    def __call__(self, batch):
        images = batch["image"]
        assert images.dtype == np.uint8
        assert images.shape[1:] == (28, 28, 1)
        self.calls.append(len(images))
        inner = images[:, 2:26, 2:26, 0].astype(float).reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4))
        pixels = inner.reshape(-1, 64) / 255 * 16
        distance = ((pixels[:, None] - self.means) ** 2).sum(axis=2)
        return softmax(-distance / 100).astype(np.float32)


def text_row(text):
    cells = np.empty((1, 1), dtype=object)
    cells[0, 0] = text.encode()
    return {"text": cells}


def text_model(batch):
    """negative / neutral / positive from the words that are there."""
    scores = []
    for raw in batch["text"][:, 0]:
        text = raw.decode()
        total = sum(weight * text.count(word) for word, weight in WORDS.items())
        scores.append([-total, 0.0, total])
    return softmax(np.array(scores)).astype(np.float32)


def cell(value):
    if isinstance(value, bytes):
        found = np.empty((1, 1), dtype=object)
        found[0, 0] = value
        return found
    return np.array([[value]], dtype=np.int64)


BACKGROUND = {
    "modality": "table",
    "rows": 1000,
    "inputs": [
        {"name": "age", "datatype": "INT64", "categorical": False, "id": False, "mean": 40.0,
         "std": 13.0, "min": 17.0, "max": 90.0,
         "quantiles": {"0": 17, "5": 19, "25": 28, "50": 37, "75": 48, "95": 63, "100": 90}},
        {"name": "hours", "datatype": "INT64", "categorical": False, "id": False, "mean": 40.0,
         "std": 12.0, "min": 1.0, "max": 99.0,
         "quantiles": {"0": 1, "5": 18, "25": 38, "50": 42, "75": 47, "95": 60, "100": 99}},
        {"name": "education", "datatype": "BYTES", "categorical": True, "id": False,
         "values": ["HS", "BA", "PhD"], "frequencies": [0.6, 0.35, 0.05]},
        {"name": "user_id", "datatype": "INT64", "categorical": False, "id": True, "mean": 5.0,
         "std": 3.0, "min": 1.0, "max": 9.0, "quantiles": {"0": 1, "50": 5, "100": 9}},
    ],
}  # fmt: skip


def table_row(age=52, hours=45, education=b"PhD", user_id=7):
    values = {"age": age, "hours": hours, "education": education, "user_id": user_id}
    return {name: cell(value) for name, value in values.items()}


def table_model(batch):
    assert batch["age"].dtype == np.int64
    assert set(batch["user_id"].ravel()) == {7}
    degree = np.array([{b"HS": -1.0, b"BA": 0.5}.get(e, 1.5) for e in batch["education"][:, 0]])
    score = 0.05 * (batch["age"][:, 0] - 40.0) + 0.02 * (batch["hours"][:, 0] - 40.0) + degree
    return softmax(np.stack([np.zeros_like(score), score], axis=1)).astype(np.float32)
