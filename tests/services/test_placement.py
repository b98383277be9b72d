"""Cards: never two runner services on one by accident, never silently none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runners.errors import DeviceUnavailable
from services import placement
from services.placement import (
    cards,
    check_cards,
    held_kinds,
    hide_cards,
    place,
    see_card,
    see_first_card,
)
from services.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["cnn", "lstm", "dnn"]


class Registry:
    held = {"digits": "cnn", "income": "dnn"}

    def names(self) -> list[str]:
        return list(self.held)

    def versions(self, name: str) -> list[str]:
        return ["1"] if name in self.held else []

    def manifest(self, name: str, _: str):
        return type("Manifest", (), {"kind": self.held[name]})


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "auto"])
def test_each_service_gets_a_card_of_its_own(device) -> None:
    placed = place(KINDS, ["3", "1", "0", "2"], device=device, share=False)
    assert placed == {"cnn": "3", "lstm": "1", "dnn": "0"}


@pytest.mark.parametrize("held", [["0"], ["0", "1"]])
def test_too_few_cards_are_refused_in_a_sentence(held) -> None:
    with pytest.raises(DeviceUnavailable, match=r"cnn, lstm, dnn.*WEIGHBRIDGE_SHARE_GPU=true"):
        place(KINDS, held, device="cuda", share=False)
    with pytest.raises(DeviceUnavailable, match="named twice"):
        place(["cnn"], ["0", "0"], device="cuda", share=False)


def test_they_share_only_when_told_so() -> None:
    assert place(KINDS, ["5"], device="cuda", share=True) == dict.fromkeys(KINDS, "5")
    placed = place(KINDS, ["5", "6"], device="cuda", share=True)
    assert placed == {"cnn": "5", "lstm": "6", "dnn": "5"}


def test_auto_leaves_the_rest_on_the_cpu_and_cpu_takes_no_card() -> None:
    assert place(KINDS, ["0"], device="auto", share=False) == {"cnn": "0", "lstm": "", "dnn": ""}
    assert place(KINDS, ["0"], device="cpu", share=False) == dict.fromkeys(KINDS, "")
    assert place(KINDS, [], device="auto", share=False) == dict.fromkeys(KINDS, "")


def test_the_settings_name_the_cards_before_the_environment_does() -> None:
    assert cards(Settings(gpus="1, GPU-ab"), {"CUDA_VISIBLE_DEVICES": "7"}) == ["1", "GPU-ab"]
    assert cards(Settings(), {"CUDA_VISIBLE_DEVICES": "7,8"}) == ["7", "8"]
    assert cards(Settings(), {"CUDA_VISIBLE_DEVICES": ""}) == []
    assert cards(Settings(), {"CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_only_kinds_with_models_need_a_card() -> None:
    assert held_kinds(Registry(), None) == ["cnn", "dnn"]
    assert held_kinds(Registry(), ["income", "unknown"]) == ["dnn"]


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Two cards, and a folder of this test's own for the locks."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(placement, "_HELD", {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    return monkeypatch


@pytest.mark.parametrize(("kind", "card"), [("cnn", "4"), ("dnn", "6"), ("lstm", "")])
def test_a_runner_sees_its_own_card_only(visible, kind, card) -> None:
    assert see_card(kind, Settings(device="cuda"), Registry()) == card
    assert os.environ["CUDA_VISIBLE_DEVICES"] == card


def test_a_gateway_sees_the_first_card_and_others_see_none(visible) -> None:
    assert see_first_card(Settings(device="cuda", gpus="6,4")) == "6"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    hide_cards()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert see_first_card(Settings(device="cpu", gpus="4")) == ""


HOLD = """
import sys
from services.cardlock import CardLock
held = CardLock("4")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_card_that_another_process_holds_is_refused_until_that_ends(
    visible, tmp_path, caplog
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    try:
        assert other.stdout.readline() == b"held\n"
        for runner in ("service", "inprocess"):
            asked = Settings(device="cuda", runner=runner)
            with pytest.raises(DeviceUnavailable, match="card 4 is in use by another"):
                check_cards(asked, Registry())
        with pytest.raises(DeviceUnavailable):
            see_card("cnn", Settings(device="cuda"), Registry())
        assert see_card("cnn", Settings(device="auto"), Registry()) == ""
        assert "computes on the CPU: card 4 is in use" in caplog.text
        visible.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        assert see_card("cnn", Settings(device="cuda", share_gpu=True), Registry()) == "4"
        other.kill()
        other.wait()
        visible.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        check_cards(Settings(device="cuda", runner="service"), Registry())
        assert see_card("cnn", Settings(device="cuda"), Registry()) == "4"
    finally:
        other.kill()
        other.communicate()
