"""The signed statement of what one model version is: every file's hash, signature and figures.

`manifest.json` is an envelope {"manifest": body, "signed_by": key id, "signature": base64}.
The body is canonical JSON (sorted keys, ASCII keys, integers and strings, no floats), and the
Ed25519 signature (RFC 8032) covers the line `weighbridge/manifest/v1` followed by those bytes.
Schema 2 adds `backend`, `options`, `signature.batching` and `signature.ties`. A manifest that needs
none of them is written as schema 1, so that it has one form, and every manifest ever signed keeps
its bytes.
Rule 1: `digest` is the SHA-256 of the body alone, so that it covers every file and no signature.
Rule 2: a folder holds exactly the files its manifest names, or it is corrupt.
Boundary: files and hashes only; registry.py decides which key is trusted.
Law: `parse(format_envelope(m, key), key.public_key()) == m`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, get_args

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .card import CARD, card
from .errors import ArtefactCorrupt
from .tensor import DTYPES, Batching, Signature, TensorSpec

__all__ = [
    "MANIFEST",
    "PLAIN",
    "Backend",
    "Manifest",
    "Protected",
    "check_files",
    "file_sha256",
    "format_envelope",
    "key_id",
    "parse",
    "seal",
]

MANIFEST: Final = "manifest.json"
SCHEMAS: Final = (1, 2)
PLAIN: Final = "none"  # the `pipeline_version` of a model without a pipeline
Backend = Literal["onnx", "torchscript", "torch-export", "tensorflow", "remote"]
BACKENDS: Final = get_args(Backend)
_DOMAIN: Final = b"weighbridge/manifest/v1\n"
_CHUNK_BYTES: Final = 1 << 20


class Protected(TypedDict):
    """Where a protected attribute is read: an input, and the lower bounds of bands if numeric."""

    input: str
    bands: list[int] | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One model version; every decimal is a string, so that the canonical form has no floats."""

    name: str
    version: str
    kind: str
    modality: str
    framework: str
    runtime: str
    opset: int
    signature: Signature
    labels: tuple[str, ...]
    positive_label: str | None
    threshold: str | None
    protected: Mapping[str, Protected]
    training_data: Mapping[str, str | int]
    evaluation: Mapping[str, str | int]
    parent: str | None
    created_by: str
    created: str
    pipeline_version: str
    files: Mapping[str, str]
    backend: Backend = "onnx"
    options: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def explainable(self) -> bool:
        """Whether the artefact brings what an explanation needs: labels and a background."""
        return bool(self.labels) and self.pipeline_version != PLAIN

    @cached_property
    def label_output(self) -> str:
        """The output that holds each row's label, if `labels` names any."""
        return self.options.get("label_output", "label")

    @cached_property
    def score_output(self) -> str:
        """The output that holds each row's probabilities, shape (rows, labels), if there is one."""
        return self.options.get("score_output", "probabilities")

    @property
    def schema(self) -> int:
        """1 for what the first programs could read, else 2."""
        signature = self.signature
        plain = signature.batching == "rows" and not signature.ties
        return 1 if plain and self.backend == "onnx" and not self.options else 2

    @cached_property
    def digest(self) -> str:
        """`sha256:` and the hex hash of the canonical body; the name of this exact artefact."""
        return "sha256:" + hashlib.sha256(_canonical(self)).hexdigest()

    def body(self) -> dict[str, Any]:
        """The JSON form, without the signature; inverse of `parse`'s reading."""
        values = {member.name: getattr(self, member.name) for member in fields(self)}
        signature: dict[str, Any] = {
            "inputs": [_spec_body(spec) for spec in self.signature.inputs],
            "outputs": [_spec_body(spec) for spec in self.signature.outputs],
        }
        if self.schema == 1:
            del values["backend"], values["options"]
        else:
            signature["batching"] = self.signature.batching
            signature["ties"] = [list(map(list, tie)) for tie in self.signature.ties]
        values["signature"] = signature
        values["labels"] = list(self.labels)
        return {"schema": self.schema, **values}


def _spec_body(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _canonical(manifest: Manifest) -> bytes:
    body = manifest.body()
    _refuse_floats(body, manifest.name)
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER)


def _refuse_floats(value: object, where: str) -> None:
    if isinstance(value, float):
        raise TypeError(f"manifest of {where}: {value!r} is a float; write decimals as strings")
    if isinstance(value, Mapping):
        for item in value.values():
            _refuse_floats(item, where)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item, where)


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def format_envelope(manifest: Manifest, signer: Ed25519PrivateKey) -> bytes:
    """Sign a manifest; inverse of `parse`."""
    signature = signer.sign(_DOMAIN + _canonical(manifest))
    envelope = {
        "manifest": manifest.body(),
        "signed_by": key_id(signer.public_key()),
        "signature": base64.b64encode(signature).decode(),
    }
    return orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


def parse(data: bytes, key: Ed25519PublicKey, *, where: str = MANIFEST) -> Manifest:
    """Read and verify an envelope.

    Args:
        data: the content of manifest.json.
        key: the public key that is trusted; nothing in the file is believed before it agrees.
        where: what to call the file in a refusal.

    Raises:
        ArtefactCorrupt: not the one encoding of an envelope, a signature that does not verify,
            or a body of another schema.
    """
    try:
        envelope = orjson.loads(data)
        body, signed_by = envelope["manifest"], envelope["signed_by"]
        signature = base64.b64decode(envelope["signature"], validate=True)
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtefactCorrupt(f"could not read {where}: it is not a signed manifest") from exc
    try:
        key.verify(signature, _DOMAIN + canonical)
    except InvalidSignature as exc:
        raise ArtefactCorrupt(
            f"could not verify {where}: the signature is not by the trusted key {key_id(key)} "
            f"(the file names {str(signed_by)[:16]!r}); restore the file or train the version again"
        ) from exc
    manifest = _read_body(body, where)
    if data != _enveloped(body, str(signed_by), signature) or signed_by != key_id(key):
        raise ArtefactCorrupt(f"could not read {where}: bytes around the signed body were changed")
    return manifest


def _enveloped(body: object, signed_by: str, signature: bytes) -> bytes:
    envelope = {
        "manifest": body,
        "signed_by": signed_by,
        "signature": base64.b64encode(signature).decode(),
    }
    return orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


def _read_body(body: dict[str, Any], where: str) -> Manifest:
    schema = body.get("schema")
    if schema not in SCHEMAS:
        raise ArtefactCorrupt(
            f"could not read {where}: schema {schema!r}, this program knows 1 and 2"
        )
    values = {name: value for name, value in body.items() if name != "schema"}
    try:
        values["signature"] = Signature(
            inputs=tuple(_read_spec(spec) for spec in values["signature"]["inputs"]),
            outputs=tuple(_read_spec(spec) for spec in values["signature"]["outputs"]),
            batching=_batching(values["signature"]),
            ties=_ties(values["signature"]),
        )
        values["labels"] = tuple(values["labels"])
        manifest = Manifest(**values)
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtefactCorrupt(f"could not read {where}: a field is missing or unknown") from exc
    if manifest.backend not in BACKENDS or manifest.body() != body:
        raise ArtefactCorrupt(f"could not read {where}: its fields are not those of its schema")
    return manifest


def _batching(signature: Mapping[str, Any]) -> Batching:
    found: Batching = signature.get("batching", "rows")
    if found not in get_args(Batching):
        raise KeyError(found)
    return found


def _ties(signature: Mapping[str, Any]) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Groups of dimensions that the inputs of the same signature have."""
    ranks = {spec["name"]: len(spec["shape"]) for spec in signature["inputs"]}
    ties = tuple(tuple((n, a) for n, a in tie) for tie in signature.get("ties", ()))
    for name, axis in (place for tie in ties for place in tie):
        if not 0 <= axis < ranks[name]:
            raise KeyError(name)
    return ties


def _read_spec(spec: Mapping[str, Any]) -> TensorSpec:
    if spec["datatype"] not in DTYPES:
        raise KeyError(spec["datatype"])
    return TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"]))


def file_sha256(path: Path) -> str:
    """The hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix(), path


def seal(folder: Path, manifest: Manifest, signer: Ed25519PrivateKey) -> Manifest:
    """Write the store's card, hash every file of `folder`, and write the signed manifest.json.

    Returns:
        `manifest` with `files` filled in; the folder is then ready for `Registry.add`.
    """
    (folder / CARD).write_bytes(card(manifest))
    hashes = {name: file_sha256(path) for name, path in _walk(folder) if name != MANIFEST}
    sealed = replace(manifest, files=hashes)
    (folder / MANIFEST).write_bytes(format_envelope(sealed, signer))
    return sealed


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file of `folder` with the manifest; O(bytes).

    Raises:
        ArtefactCorrupt: names the first file that is changed, missing, a link, or not in the
            manifest.
    """
    tag = f"{manifest.name}:{manifest.version}"
    held = dict(_walk(folder))
    held.pop(MANIFEST, None)
    for name, expected in sorted(manifest.files.items()):
        path = held.pop(name, None)
        if path is None:
            raise ArtefactCorrupt(f"could not open {tag}: file '{name}' is missing")
        if path.is_symlink() or not path.is_file():
            raise ArtefactCorrupt(f"could not open {tag}: '{name}' is not a plain file")
        found = file_sha256(path)
        if found != expected:
            raise ArtefactCorrupt(
                f"could not open {tag}: file '{name}' was changed (sha256 {found[:16]}…, "
                f"the manifest says {expected[:16]}…); restore it or train the version again"
            )
    if held:
        raise ArtefactCorrupt(f"could not open {tag}: unexpected file '{min(held)}'")
