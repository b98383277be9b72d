"""What is checked before models are opened."""

from types import SimpleNamespace

import pytest

from runners.errors import ArtefactCorrupt, DeviceUnavailable
from services.models import check_device
from services.placement import held_kinds
from services.settings import Settings


def registry(**backends: str) -> SimpleNamespace:
    return SimpleNamespace(
        names=lambda: list(backends),
        versions=lambda name: ["1"] if name in backends else [],
        manifest=lambda name, _: SimpleNamespace(backend=backends[name]),
    )


def test_a_missing_cuda_runtime_stops_only_who_needs_it() -> None:
    asked = Settings(device="cuda")
    for held in (registry(), registry(a="onnx"), registry(a="remote", b="onnx")):
        with pytest.raises(DeviceUnavailable, match="ONNX Runtime offers"):
            check_device(asked, held)
    check_device(asked, registry(a="torch-export", b="remote"))
    check_device(Settings(device="cuda", models="a"), registry(a="tensorflow", b="onnx"))
    check_device(Settings(device="auto"), registry(a="onnx"))


def test_a_damaged_version_stops_nobody() -> None:
    def manifest(*_: str) -> None:
        raise ArtefactCorrupt("changed")

    held = SimpleNamespace(names=lambda: ["a"], versions=lambda _: ["1"], manifest=manifest)
    check_device(Settings(device="auto"), held)
    assert held_kinds(held, None) == []
