"""Cards: never two runner services on one by accident, never silently none."""

import os

import pytest

from runners.errors import DeviceUnavailable
from services.placement import cards, held_kinds, hide_cards, place, see_card, see_cards
from services.settings import Settings

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


def test_a_runner_sees_its_own_card_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, card in {"cnn": "4", "dnn": "6", "lstm": ""}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        assert see_card(kind, Settings(device="cuda"), Registry()) == card


def test_a_gateway_sees_what_is_named_and_others_see_none(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    see_cards(Settings())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    see_cards(Settings(gpus="6"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    hide_cards()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
