"""The PyTorch networks: what is between a pipeline's feeds and the probabilities.

Rule: `forward` gives logits (and a rating where there is one); `Served` is what is exported and
gives probabilities. A row's answer does not depend on the rows or the padding beside it.
Boundary: tensors in, tensors out; fit.py trains, export.py writes ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DigitsNet", "RecommendNet", "SentimentNet", "Served"]

_FAR = 1e4


class DigitsNet(nn.Module):  # type: ignore[misc] # torch is not followed
    """Two convolutions (32, 64 channels), each pooled, and one dense layer; perhaps normalised."""

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 32, batch_norm=batch_norm),
            *_convolution(32, 64, batch_norm=batch_norm),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Dropout(0.25), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.5)
        )
        self.out = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, 28, 28) in 0..1 to logits (n, 10)."""
        logits: Tensor = self.out(self.head(self.features(image)))
        return logits


def _convolution(before: int, after: int, *, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, padding=1)]
    if batch_norm:
        layers += [nn.BatchNorm2d(after)]
    return [*layers, nn.ReLU(), nn.MaxPool2d(2)]


class SentimentNet(nn.Module):  # type: ignore[misc] # torch is not followed
    """An LSTM over the tokens, or one each way, pooled by mean and maximum over the real tokens.

    Padding stands at the end, so that a forward LSTM meets it after every real token; for the
    other direction each row is reversed within its own length. The pools leave padding out.
    The first number of each word's vector starts as what people said of the word alone.
    """

    def __init__(self, *, valences: Tensor, bidirectional: bool) -> None:
        super().__init__()
        width, hidden = 64, 64
        self.embedding = nn.Embedding(len(valences), width, padding_idx=0)
        with torch.no_grad():
            self.embedding.weight *= 0.3
            self.embedding.weight[:, 0] = valences / 1.5
        self.forth = nn.LSTM(width, hidden, batch_first=True)
        self.back = nn.LSTM(width, hidden, batch_first=True) if bidirectional else None
        self.dropout = nn.Dropout(0.4)
        self.out = nn.Linear(hidden * (4 if bidirectional else 2), 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, t), 0 is padding, to logits (n, 3)."""
        real = tokens != 0
        mask = real.unsqueeze(-1).float()  # (n, t, 1)
        embedded = self.dropout(self.embedding(tokens))  # (n, t, width)
        pooled = _pools(self.forth(embedded)[0], mask)
        if self.back is not None:
            turned = embedded.gather(1, _reversal(real).unsqueeze(-1).expand_as(embedded))
            pooled = torch.cat([pooled, _pools(self.back(turned)[0], mask)], dim=1)
        logits: Tensor = self.out(self.dropout(pooled))
        return logits


def _pools(states: Tensor, mask: Tensor) -> Tensor:
    mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
    peak = (states + (mask - 1.0) * _FAR).amax(dim=1)
    return torch.cat([mean, peak], dim=1)


def _reversal(real: Tensor) -> Tensor:
    """For each place of a row, the place it holds when the row's real tokens are reversed."""
    ones = real.long()
    place = ones.cumsum(dim=1) - 1
    length = ones.sum(dim=1, keepdim=True)
    return torch.where(real, length - 1 - place, torch.ones_like(place).cumsum(dim=1) - 1)


class RecommendNet(nn.Module):  # type: ignore[misc] # torch is not followed
    """A dense network over user and film features; with vectors for ids when `ids` is given.

    Each categorical place has a vector; place 0 of `user` and `item` stands for an unknown id and
    is learnt by hiding known ids at random.
    """

    def __init__(
        self, *, categories: int, columns: int, genres: int, ids: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.places = nn.Embedding(categories, 8)
        self.user = self.item = None
        width = 2 + 8 * columns + genres
        if ids is not None:
            self.user, self.item = nn.Embedding(ids[0], 33), nn.Embedding(ids[1], 33)
            nn.init.normal_(self.user.weight, std=0.05)
            nn.init.normal_(self.item.weight, std=0.05)
            width += 2 * 32
        self.hidden = nn.Sequential(
            nn.Linear(width, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 48), nn.ReLU()
        )
        self.like = nn.Linear(48, 2)
        self.stars = nn.Linear(48, 1)

    def forward(
        self,
        numeric: Tensor,
        categories: Tensor,
        genres: Tensor,
        user: Tensor | None = None,
        item: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features (and ids, (n, 1) each) to logits (n, 2) and a rating 1..5, (n, 1)."""
        parts = [numeric, self.places(categories).flatten(1), genres]
        affinity: Tensor | float = 0.0
        if self.user is not None and self.item is not None:
            known_user, known_item = self._known(user), self._known(item)
            u, i = self.user(known_user).squeeze(1), self.item(known_item).squeeze(1)  # (n, 33)
            parts += [u[:, 1:], i[:, 1:]]
            dot = (u[:, 1:] * i[:, 1:]).sum(dim=1, keepdim=True)
            affinity = dot + u[:, :1] + i[:, :1]  # (n, 1)
        hidden = self.hidden(torch.cat(parts, dim=1))
        sign = torch.tensor([[-0.5, 0.5]])
        return self.like(hidden) + affinity * sign, 1.0 + 4.0 * torch.sigmoid(
            self.stars(hidden) + affinity
        )

    def _known(self, ids: Tensor | None) -> Tensor:
        if ids is None:
            raise ValueError("this network takes user and item")
        if not self.training:
            return ids
        return ids * (torch.rand(ids.shape) >= 0.05)


class Served(nn.Module):  # type: ignore[misc] # torch is not followed
    """A trained network with probabilities (and the rating, where there is one) as its outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *feeds: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The feeds in the pipeline's order to `probabilities` or (`probabilities`, `rating`)."""
        found = self.network(*feeds)
        if isinstance(found, tuple):
            logits, rating = found
            return torch.softmax(logits, dim=1), rating
        return torch.softmax(found, dim=1)
