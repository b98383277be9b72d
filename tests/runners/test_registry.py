"""The registry: exact tags, whole versions only, the pinned key, and BentoML reads it too."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.models import ModelStore
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runners.errors import ArtefactCorrupt, ModelNotFound, RunnerError
from runners.manifest import MANIFEST, Manifest, seal
from runners.registry import Registry
from runners.tensor import Signature, TensorSpec

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def manifest(name: str = "toy", version: str = "1", **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "kind": "dnn",
        "modality": "table",
        "framework": "pytorch 2.13.0",
        "runtime": "onnxruntime 1.31.1",
        "opset": 17,
        "signature": Signature((TensorSpec("x", "INT64", (-1, 1)),), ()),
        "labels": ("no", "yes"),
        "positive_label": "yes",
        "threshold": "0.5",
        "protected": {},
        "training_data": {},
        "evaluation": {},
        "parent": None,
        "created_by": "a test",
        "created": "2024-06-07T00:00:00+00:00",
        "pipeline_version": "1",
        "files": {},
    }
    return Manifest(name=name, version=version, **{**values, **changes})


def artefact(folder: Path, name: str = "toy", version: str = "1", **changes: Any) -> Manifest:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights of " + name.encode() + version.encode())
    (folder / "pipeline.json").write_bytes(b"{}")
    return seal(folder, manifest(name, version, **changes), SIGNER)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "home")
    registry.pin(SIGNER.public_key())
    return registry


def add(registry: Registry, tmp_path: Path, name: str = "toy", version: str = "1") -> Manifest:
    folder = tmp_path / f"{name}-{version}"
    return registry.add(folder, artefact(folder, name, version)).manifest


def test_what_is_added_is_held_whole(registry: Registry, tmp_path: Path) -> None:
    made = add(registry, tmp_path)
    assert registry.names() == ("toy",)
    assert registry.versions("toy") == ("1",)
    assert registry.manifest("toy", "1") == made
    opened = Registry(registry.home).open("toy", "1")
    assert opened.manifest == made
    assert opened.read("model.onnx") == b"weights of toy1"


def test_an_empty_home_holds_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "nowhere")
    assert registry.names() == ()
    assert registry.versions("toy") == ()
    assert not (tmp_path / "nowhere").exists()


def test_versions_stand_in_the_order_of_numbers(registry: Registry, tmp_path: Path) -> None:
    for version in ("10", "2", "1", "rc"):
        add(registry, tmp_path, version=version)
    assert registry.versions("toy") == ("1", "2", "10", "rc")


@pytest.mark.parametrize("version", ["1", "latest", "", "..", "10/", "*"])
def test_only_the_exact_tag_is_found(registry: Registry, tmp_path: Path, version: str) -> None:
    add(registry, tmp_path, version="10")
    with pytest.raises(ModelNotFound, match="is not held"):
        registry.open("toy", version)


@pytest.mark.parametrize("name", ["to", "TOY", "", "..", "../models/toy", "toy/10", "toy\n"])
def test_only_the_exact_name_is_found(registry: Registry, tmp_path: Path, name: str) -> None:
    add(registry, tmp_path, version="10")
    with pytest.raises(ModelNotFound):
        registry.manifest(name, "10")


def test_a_changed_byte_in_any_file_is_found_and_named(registry: Registry, tmp_path: Path) -> None:
    add(registry, tmp_path)
    held = registry.open("toy", "1").path
    for path in sorted(held.iterdir()):
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(ArtefactCorrupt, match=path.name):
            registry.open("toy", "1")
        path.write_bytes(data)
    registry.open("toy", "1")


def test_a_file_changed_after_opening_is_found_when_read(
    registry: Registry, tmp_path: Path
) -> None:
    add(registry, tmp_path)
    opened = registry.open("toy", "1")
    (opened.path / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtefactCorrupt, match=r"model\.onnx"):
        opened.read("model.onnx")
    with pytest.raises(ArtefactCorrupt, match=r"nothing\.txt"):
        opened.read("nothing.txt")


def test_another_versions_manifest_is_refused(registry: Registry, tmp_path: Path) -> None:
    add(registry, tmp_path)
    held = registry.open("toy", "1").path
    shutil.copytree(held, held.with_name("2"))
    with pytest.raises(ArtefactCorrupt, match="is the one of toy:1"):
        registry.open("toy", "2")


def test_a_held_version_is_not_replaced(registry: Registry, tmp_path: Path) -> None:
    made = add(registry, tmp_path)
    folder = tmp_path / "again"
    with pytest.raises(RunnerError, match="toy:1: it is held already"):
        registry.add(folder, artefact(folder, created_by="someone else"))
    assert registry.open("toy", "1").manifest == made
    assert not any((registry.home / "staging").iterdir())


def test_an_untrusted_signer_is_refused(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    artefact(folder)
    forged = seal(folder, manifest(), OTHER)
    with pytest.raises(ArtefactCorrupt, match="not by the trusted key"):
        registry.add(folder, forged)
    assert registry.names() == ()


def test_a_folder_changed_after_sealing_is_refused(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    sealed = artefact(folder)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtefactCorrupt, match=r"model\.onnx"):
        registry.add(folder, sealed)
    assert registry.names() == ()


def test_a_manifest_that_is_not_the_folders_is_refused(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    artefact(folder)
    with pytest.raises(ArtefactCorrupt, match="says something else"):
        registry.add(folder, manifest())


@pytest.mark.parametrize("name", ["Toy", "../toy", "toy:1", ""])
def test_a_name_that_is_no_tag_is_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(RunnerError, match="use a-z"):
        registry.add(folder, artefact(folder, name))


def test_a_disk_that_refuses_leaves_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toy"
    sealed = artefact(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunnerError, match="No space left on device"):
        registry.add(folder, sealed)
    assert registry.names() == ()
    assert not any((registry.home / "staging").iterdir())


def test_a_version_killed_while_it_was_written_is_not_seen(
    registry: Registry, tmp_path: Path
) -> None:
    add(registry, tmp_path)
    half = registry.home / "staging" / "killed" / "toy" / "2"
    half.mkdir(parents=True)
    (half / MANIFEST).write_bytes(b"half")
    assert registry.versions("toy") == ("1",)
    add(registry, tmp_path, version="2")
    assert registry.versions("toy") == ("1", "2")


def test_what_is_deleted_is_gone_and_may_come_again(registry: Registry, tmp_path: Path) -> None:
    add(registry, tmp_path)
    registry.delete("toy", "1")
    assert registry.names() == ()
    with pytest.raises(ModelNotFound):
        registry.delete("toy", "1")
    shutil.rmtree(tmp_path / "toy-1")
    add(registry, tmp_path)
    registry.open("toy", "1")


def test_a_key_is_pinned_once(registry: Registry) -> None:
    registry.pin(SIGNER.public_key())
    with pytest.raises(RunnerError, match="holds another key"):
        registry.pin(OTHER.public_key())
    found = Registry(registry.home).public_key()
    assert found.public_bytes_raw() == SIGNER.public_key().public_bytes_raw()


def test_without_a_key_nothing_is_trusted(registry: Registry, tmp_path: Path) -> None:
    add(registry, tmp_path)
    (registry.home / "signer.pub").unlink()
    with pytest.raises(RunnerError, match="no public key is pinned"):
        Registry(registry.home).open("toy", "1")
    Registry(registry.home, SIGNER.public_key()).open("toy", "1")


def test_a_pinned_file_that_is_no_key_is_refused(registry: Registry) -> None:
    (registry.home / "signer.pub").write_bytes(b"nonsense")
    with pytest.raises(RunnerError, match="could not read the pinned public key"):
        Registry(registry.home).public_key()


def test_bentoml_finds_the_same_models(registry: Registry, tmp_path: Path) -> None:
    add(registry, tmp_path)
    add(registry, tmp_path, version="2")
    store = ModelStore(registry.home / "models")
    assert sorted(str(model.tag) for model in store.list()) == ["toy:1", "toy:2"]
    assert str(store.get("toy:latest").tag) == "toy:2"
    assert store.get("toy:1").info.labels == {"kind": "dnn", "modality": "table"}
    registry.delete("toy", "2")
    assert str(store.get("toy:latest").tag) == "toy:1"


def _race(home: Path, folder: Path, sealed: Manifest, start: Any, results: Any) -> None:
    start.wait()
    try:
        Registry(home).add(folder, sealed)
        results.put("added")
    except RunnerError as exc:
        results.put(str(exc))


def test_of_two_processes_that_add_one_tag_one_wins_whole(
    registry: Registry, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    made = [artefact(tmp_path / str(n), created_by=f"process {n}") for n in range(2)]
    racers = [
        context.Process(
            target=_race, args=(registry.home, tmp_path / str(n), made[n], start, results)
        )
        for n in range(2)
    ]
    for racer in racers:
        racer.start()
    start.set()
    found = sorted(results.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join()
    assert found == ["added", "could not add toy:1: it is held already"]
    assert registry.open("toy", "1").manifest in made


def test_the_bentoml_command_lists_what_is_held(registry: Registry, tmp_path: Path) -> None:
    add(registry, tmp_path)
    environment = {**os.environ, "BENTOML_HOME": str(registry.home), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "models", "list", "-o", "json"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"toy:1"' in done.stdout
