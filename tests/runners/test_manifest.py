"""The signed manifest: round trip, digest, and every way of changing an artefact."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runners.errors import ArtefactCorrupt
from runners.manifest import (
    MANIFEST,
    Manifest,
    check_files,
    file_sha256,
    format_envelope,
    parse,
    seal,
)
from runners.tensor import Signature, TensorSpec

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "toy",
        "version": "1",
        "kind": "dnn",
        "modality": "table",
        "framework": "pytorch 2.13.0",
        "runtime": "onnxruntime 1.31.1",
        "opset": 17,
        "signature": Signature(
            (TensorSpec("age", "INT64", (-1, 1)),), (TensorSpec("label", "INT64", (-1, 1)),)
        ),
        "labels": ("no", "是"),
        "positive_label": "是",
        "threshold": "0.5",
        "protected": {"age_band": {"input": "age", "bands": [18, 25]}},
        "training_data": {"package": "toy", "rows": 3},
        "evaluation": {"accuracy": "0.9", "heldout_rows": 1},
        "parent": None,
        "created_by": "a test",
        "created": "2024-06-07T00:00:00+00:00",
        "pipeline_version": "1",
        "files": {"model.onnx": "00" * 32},
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "roc.png").write_bytes(b"picture")
    return tmp_path


def test_parse_and_format_are_inverse() -> None:
    assert parse(format_envelope(manifest(), SIGNER), SIGNER.public_key()) == manifest()


def test_the_digest_is_that_of_the_body_and_not_of_the_signature() -> None:
    first = parse(format_envelope(manifest(), SIGNER), SIGNER.public_key())
    second = parse(format_envelope(manifest(), OTHER), OTHER.public_key())
    assert first.digest == second.digest == manifest().digest
    assert first.digest.startswith("sha256:")
    assert len(first.digest) == 71


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Manifest)])
def test_every_field_is_in_the_digest(field: str) -> None:
    other = {
        "opset": 18,
        "signature": Signature((), ()),
        "labels": (),
        "protected": {},
        "training_data": {},
        "evaluation": {},
        "files": {},
    }
    changed = manifest(**{field: other.get(field, "other")})
    assert changed.digest != manifest().digest


def test_a_float_has_no_place_in_a_manifest() -> None:
    with pytest.raises(TypeError, match="write decimals as strings"):
        format_envelope(manifest(evaluation={"accuracy": 0.9}), SIGNER)


def test_a_signature_by_another_key_is_refused() -> None:
    with pytest.raises(ArtefactCorrupt, match="not by the trusted key"):
        parse(format_envelope(manifest(), OTHER), SIGNER.public_key())


def test_any_changed_byte_of_the_file_is_refused() -> None:
    data = format_envelope(manifest(), SIGNER)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(ArtefactCorrupt):
            parse(bytes(changed), SIGNER.public_key())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"manifest": {}}', b"\xff"])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(ArtefactCorrupt, match="not a signed manifest"):
        parse(data, SIGNER.public_key())


def test_a_signed_body_of_another_schema_is_refused() -> None:
    for changed in ({"schema": 2}, {"surprise": 1}):
        body = {**manifest().body(), **changed}
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        signature = base64.b64encode(SIGNER.sign(b"weighbridge/manifest/v1\n" + canonical))
        data = orjson.dumps({"manifest": body, "signed_by": "x", "signature": signature.decode()})
        with pytest.raises(ArtefactCorrupt):
            parse(data, SIGNER.public_key())


def test_sealing_covers_every_file_and_the_folder_checks(folder: Path) -> None:
    sealed = seal(folder, manifest(files={}), SIGNER)
    assert set(sealed.files) == {"model.onnx", "pictures/roc.png", "model.yaml"}
    assert sealed.files["model.onnx"] == file_sha256(folder / "model.onnx")
    assert parse((folder / MANIFEST).read_bytes(), SIGNER.public_key()) == sealed
    check_files(folder, sealed)


def test_a_changed_byte_in_any_file_is_found_and_named(folder: Path) -> None:
    sealed = seal(folder, manifest(), SIGNER)
    for name in sealed.files:
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ArtefactCorrupt, match=f"file '{name}' was changed"):
            check_files(folder, sealed)
        path.write_bytes(data)
    check_files(folder, sealed)


def test_a_missing_file_is_named(folder: Path) -> None:
    sealed = seal(folder, manifest(), SIGNER)
    (folder / "pictures" / "roc.png").unlink()
    with pytest.raises(ArtefactCorrupt, match=r"file 'pictures/roc\.png' is missing"):
        check_files(folder, sealed)


def test_a_file_too_many_is_named(folder: Path) -> None:
    sealed = seal(folder, manifest(), SIGNER)
    (folder / "custom_objects.pkl").write_bytes(b"code")
    with pytest.raises(ArtefactCorrupt, match=r"unexpected file 'custom_objects\.pkl'"):
        check_files(folder, sealed)


def test_a_link_is_no_file(folder: Path) -> None:
    sealed = seal(folder, manifest(), SIGNER)
    (folder / "copy").write_bytes(b"weights")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(folder / "copy")
    with pytest.raises(ArtefactCorrupt, match=r"'model\.onnx' is not a plain file"):
        check_files(folder, sealed)


def test_what_was_signed_before_schema_2_keeps_its_bytes() -> None:
    body = manifest().body()
    assert body["schema"] == 1
    assert not {"backend", "options"} & set(body)
    assert set(body["signature"]) == {"inputs", "outputs"}
    digest = "sha256:0bd25dabb786d969"
    assert manifest().digest.startswith(digest)


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "remote"},
        {"options": {"label_output": "y"}},
        {"signature": Signature((TensorSpec("x", "BF16", ()),), (), "none")},
        {"signature": Signature((TensorSpec("x", "FP32", (1, 1)),), (), "rows", ((("x", 1),),))},
    ],
)
def test_what_needs_more_is_schema_2_and_comes_back(changes: dict[str, Any]) -> None:
    made = manifest(**changes)
    assert made.body()["schema"] == 2
    assert parse(format_envelope(made, SIGNER), SIGNER.public_key()) == made
    assert made.digest != manifest().digest


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2, "backend": "onnx", "options": {}},
        {"schema": 1, "backend": "remote", "options": {}},
        {"schema": 2, "backend": "pickle", "options": {}},
        {"schema": 2, "backend": ["onnx"], "options": {"a": "b"}},
        {"schema": 2, "options": {"a": "b"}, "signature": {"inputs": [], "batching": "maybe"}},
        {"schema": 2, "signature": {"inputs": [], "outputs": [], "ties": [[["x", 0]]]}},
        {"schema": 2, "signature": {"inputs": [], "outputs": [], "ties": [["x"]]}},
    ],
)
def test_a_signed_body_of_mixed_schemas_is_refused(changes: dict[str, Any]) -> None:
    body = {**manifest().body(), **changes}
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    signature = base64.b64encode(SIGNER.sign(b"weighbridge/manifest/v1\n" + canonical))
    data = orjson.dumps({"manifest": body, "signed_by": "x", "signature": signature.decode()})
    with pytest.raises(ArtefactCorrupt):
        parse(data, SIGNER.public_key())
