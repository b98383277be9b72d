"""Which runner service computes on which card: decided before any library sees the driver.

Rule 1: two processes of ours never share a card, unless WEIGHBRIDGE_SHARE_GPU says so: not two
runner services of one gateway (they are placed), nor those of two gateways (cardlock.py).
Rule 2: a process sees its own card only (`CUDA_VISIBLE_DEVICES`), so `cuda:0` inside it cannot be
another's. The explainer, and a gateway whose models run in services, see none.
Rule 3: every process works this out alike, from the settings and the registry; nothing is passed.
BentoML's own placement is not used: it hands out cards that are not there with a warning, and stops
placing at all when CUDA_VISIBLE_DEVICES is set, which puts every service on the first card.
Source: CUDA Programming Guide, "CUDA Environment Variables"; bentoml 1.4 `ResourceAllocator`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Final

from bentoml._internal.resource import system_resources

from runners.errors import DeviceUnavailable, RunnerError
from runners.onnx import Device
from runners.registry import Registry

from .cardlock import CardLock
from .settings import Settings

__all__ = [
    "KINDS",
    "cards",
    "check_cards",
    "held_kinds",
    "hide_cards",
    "place",
    "see_card",
    "see_first_card",
]


KINDS: Final = ("cnn", "lstm", "dnn")
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_GPU: Final = "nvidia.com/gpu"
_HELD: Final[dict[str, CardLock]] = {}  # for the life of the process

log = logging.getLogger("weighbridge")


def cards(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The cards that may be used: WEIGHBRIDGE_GPUS, else CUDA_VISIBLE_DEVICES, else all."""
    named = settings.gpus or environment.get(_VISIBLE)
    if named is not None:
        return [card.strip() for card in named.split(",") if card.strip() not in ("", "-1")]
    return [str(card) for card in system_resources()[_GPU]]


def held_kinds(registry: Registry, wanted: Sequence[str] | None) -> list[str]:
    """The kinds of which the registry holds a version that is to be served, in a fixed order."""
    found = set()
    for name in registry.names() if wanted is None else wanted:
        for version in registry.versions(name):
            try:
                found.add(registry.manifest(name, version).kind)
            except RunnerError:
                continue  # it is not served either; the runner says why
    return [kind for kind in KINDS if kind in found]


def place(
    kinds: Sequence[str], held: Sequence[str], *, device: Device, share: bool
) -> dict[str, str]:
    """The card of each kind; "" for none.

    Args:
        kinds: the runner services that have models.
        held: the cards, as `cards` gives them.
        device: with "auto" the services without a card run on the CPU; with "cpu" all do.
        share: whether two services may have one card.

    Raises:
        DeviceUnavailable: a card would be shared, or a card is named twice.
    """
    if device == "cpu" or not held:
        return dict.fromkeys(kinds, "")
    if share:
        return {kind: held[turn % len(held)] for turn, kind in enumerate(kinds)}
    if len(set(held)) != len(held):
        raise DeviceUnavailable(
            "a card is named twice in WEIGHBRIDGE_GPUS: name each once, or set "
            "WEIGHBRIDGE_SHARE_GPU=true to let runner services share"
        )
    if len(kinds) > len(held) and device != "auto":
        raise DeviceUnavailable(
            f"{len(kinds)} runner services ({', '.join(kinds)}) would share {len(held)} card(s): "
            "name more in WEIGHBRIDGE_GPUS, serve fewer kinds with WEIGHBRIDGE_MODELS, or set "
            "WEIGHBRIDGE_SHARE_GPU=true"
        )
    free = iter(held)
    return {kind: next(free, "") for kind in kinds}


def see_card(kind: str, settings: Settings, registry: Registry) -> str:
    """Let this process see, and hold, the card of its kind and no other; returns it.

    Raises:
        DeviceUnavailable: it would be shared.
    """
    placed = place(
        held_kinds(registry, settings.model_names()),
        cards(settings),
        device=settings.device,
        share=settings.share_gpu,
    )
    return _see(placed.get(kind, ""), settings)


def see_first_card(settings: Settings) -> str:
    """The same for a process that holds every model, and so uses the first card only.

    Raises:
        DeviceUnavailable: another process of ours uses it.
    """
    found = [] if settings.device == "cpu" else cards(settings)
    return _see(found[0] if found else "", settings)


def check_cards(settings: Settings, registry: Registry) -> None:
    """Whether the cards that the workers will take are free now; nothing stays held.

    Raises:
        DeviceUnavailable: one would be shared.
    """
    held = cards(settings)
    if settings.runner == "service":
        kinds = held_kinds(registry, settings.model_names())
        placed = place(kinds, held, device=settings.device, share=settings.share_gpu)
    else:
        placed = {"gateway": held[0] if held and settings.device != "cpu" else ""}
    if settings.device in ("cuda", "tensorrt") and not settings.share_gpu:
        for card in filter(None, placed.values()):
            CardLock(card).close()


def hide_cards() -> None:
    """Let this process see no card."""
    os.environ[_VISIBLE] = ""


def _see(card: str, settings: Settings) -> str:
    """Hold `card` and see it alone; with "auto" a card that another holds is left to it."""
    if card and not settings.share_gpu:
        try:
            _HELD[card] = _HELD.get(card) or CardLock(card)
        except DeviceUnavailable as exc:
            if settings.device != "auto":
                raise
            log.warning("this process computes on the CPU: %s", exc)
            card = ""
    os.environ[_VISIBLE] = card
    return card
