"""Training of a PyTorch network: early stopping, a learning rate that rises and falls, fixed seed.

Rule: the weights kept are those of the epoch with the lowest validation loss; training ends when
`patience` epochs in a row were no better.
Rule: same feeds, plan and seed on one machine give the same weights.
Boundary: numpy feeds in, numpy answers out; nothing here knows a task.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..tensor import Array
from .networks import Served
from .progress import Epoch, Watch

__all__ = ["Part", "Plan", "fit", "predict"]

_PREDICT_ROWS: Final = 512


@dataclass(frozen=True)
class Plan:
    """How to train; `by_length` batches rows of like length together and trims their padding."""

    epochs: int
    batch_rows: int
    learning_rate: float
    patience: int
    weight_decay: float = 0.01
    smoothing: float = 0.0
    rating_weight: float = 0.0
    class_weights: tuple[float, ...] | None = None
    by_length: bool = False
    augment: Callable[[Tensor], Tensor] | None = None
    seed: int = 7


@dataclass(frozen=True)
class Part:
    """What is trained or tested on: feeds in the network's order, and the truth."""

    feeds: Mapping[str, Array]
    labels: NDArray[np.int64]
    ratings: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def tensors(self, index: NDArray[np.int64], *, trim: bool) -> list[Tensor]:
        """The feeds of some rows; with `trim`, without the padding that all of them share."""
        taken = [values[index] for values in self.feeds.values()]
        if trim:
            taken = [values[:, : max(int((values != 0).sum(axis=1).max()), 1)] for values in taken]
        return [torch.from_numpy(np.ascontiguousarray(values)) for values in taken]

    def order(self, *, by_length: bool) -> NDArray[np.int64]:
        """The rows in their own order, or from short to long."""
        if not by_length:
            return np.arange(len(self))
        lengths = np.sum([(values != 0).sum(axis=1) for values in self.feeds.values()], axis=0)
        return np.argsort(lengths, kind="stable")


def fit(network: nn.Module, train: Part, valid: Part, plan: Plan, watch: Watch) -> None:
    """Train `network` in place; O(epochs · rows).

    Args:
        network: gives logits, or (logits, rating).
        train: rows to learn from.
        valid: rows that decide when to stop and which weights to keep.
        plan: how.
        watch: told of every epoch.
    """
    random = np.random.default_rng(plan.seed)
    batches = -(-len(train) // plan.batch_rows)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(plan.epochs * batches))
    best, kept, waited = np.inf, copy.deepcopy(network.state_dict()), 0
    for number in range(1, plan.epochs + 1):
        network.train()
        total = 0.0
        for index in _batches(train, plan, random):
            loss = _loss(network, train, index, plan)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(index)
        valid_loss, accuracy = _measure(network, valid, plan)
        rate = float(schedule.get_last_lr()[0])
        watch.epoch(Epoch(number, rate, total / len(train), valid_loss, accuracy))
        if valid_loss < best:
            best, kept, waited = valid_loss, copy.deepcopy(network.state_dict()), 0
        elif (waited := waited + 1) >= plan.patience:
            break
    network.load_state_dict(kept)
    network.eval()


def _cosine(steps: int) -> Callable[[int], float]:
    """A rise over the first twentieth of `steps`, then half a cosine down to a hundredth."""
    rise = max(steps // 20, 1)

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        done = min((step - rise) / max(steps - rise, 1), 1.0)
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))

    return share


def _batches(part: Part, plan: Plan, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    order = random.permutation(len(part))
    count = -(-len(part) // plan.batch_rows)
    if plan.by_length:
        # Like lengths together, but never the same neighbours twice.
        lengths = np.sum([(values != 0).sum(axis=1) for values in part.feeds.values()], axis=0)
        order = order[np.argsort(lengths[order] + random.uniform(0, 6, len(order)))]
    pieces = np.array_split(order, count)
    for at in random.permutation(count):
        yield pieces[at]


def _loss(network: nn.Module, part: Part, index: NDArray[np.int64], plan: Plan) -> Tensor:
    feeds = part.tensors(index, trim=plan.by_length)
    if plan.augment is not None and network.training:
        feeds = [plan.augment(feeds[0]), *feeds[1:]]
    found = network(*feeds)
    logits, rating = found if isinstance(found, tuple) else (found, None)
    weights = None if plan.class_weights is None else torch.tensor(plan.class_weights)
    smoothing = plan.smoothing if network.training else 0.0
    loss = nn.functional.cross_entropy(
        logits, torch.from_numpy(part.labels[index]), weight=weights, label_smoothing=smoothing
    )
    if rating is not None and part.ratings is not None:
        truth = torch.from_numpy(part.ratings[index]).reshape(-1, 1)
        loss = loss + plan.rating_weight * nn.functional.mse_loss(rating, truth)
    return loss


def _measure(network: nn.Module, part: Part, plan: Plan) -> tuple[float, float]:
    """Validation loss and accuracy."""
    network.eval()
    total, right = 0.0, 0
    order = part.order(by_length=plan.by_length)
    with torch.no_grad():
        for start in range(0, len(order), _PREDICT_ROWS):
            index = order[start : start + _PREDICT_ROWS]
            total += _loss(network, part, index, plan).item() * len(index)
    scores = predict(network, part, by_length=plan.by_length)["probabilities"]
    right = int((scores.argmax(axis=1) == part.labels).sum())
    return total / len(part), right / len(part)


def predict(network: nn.Module, part: Part, *, by_length: bool) -> dict[str, Array]:
    """The framework's own answers for every row, in the rows' order."""
    served = Served(network).eval()
    order = part.order(by_length=by_length)
    pieces: list[list[Array]] = []
    with torch.no_grad():
        for start in range(0, len(order), _PREDICT_ROWS):
            found = served(*part.tensors(order[start : start + _PREDICT_ROWS], trim=by_length))
            answers = found if isinstance(found, tuple) else (found,)
            pieces.append([answer.numpy() for answer in answers])
    places = np.argsort(order)
    joined = [np.concatenate(column)[places] for column in zip(*pieces, strict=True)]
    return dict(zip(("probabilities", "rating"), joined, strict=False))
