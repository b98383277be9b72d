"""The whole way of a foreign model into the registry.

The order: copy its files -> sign a first manifest -> open it with the backend that will serve it ->
find inputs that it answers -> see its outputs' real shapes -> ask whether rows may meet (probe.py)
-> sign the final manifest -> open and warm that up -> add it to the registry.
Rule: whatever fails on the way is one sentence, and the registry is as it was.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..manifest import PLAIN, Manifest, seal
from ..model import Model
from ..registry import NETWORK_FOLDER, Artefact, Registry
from ..tensor import DTYPES, Batching, Signature, pack
from ..warm import EXAMPLE
from .draft import Draft, NotRegistered, Port, Wish, named_once, ties_of
from .look import look_at

__all__ = ["Registered", "register"]

_CREATED_BY: Final = "weighbridge register"
_LAST_CHARACTER: Final = "\uffff"
_MODALITY: Final = "tensor"


class Registered(NamedTuple):
    """The version as it is held, and why it is batched or not."""

    manifest: Manifest
    why: str


def register(
    registry: Registry,
    draft: Draft,
    wish: Wish,
    *,
    signer: Ed25519PrivateKey,
    open_model: Callable[[Artefact], Model],
) -> Registered:
    """Load, run, check, sign and hold one version.

    Raises:
        NotRegistered: the model cannot be served, or cannot be served as wished.
        RunnerError: the tag is held, the device is missing, or the disk refused.
    """
    tag = f"{wish.name}:{wish.version}"
    if registry.holds(wish.name, wish.version):
        raise NotRegistered(f"could not register {tag}: it is held already; choose another version")
    named_once(draft.inputs, "inputs")
    with tempfile.TemporaryDirectory(prefix="weighbridge-register-") as name:
        folder = Path(name)
        _copy(draft.files, folder)
        first = seal(
            folder, _manifest(draft, wish, _signature(draft.inputs, draft.outputs)), signer
        )
        model = open_model(Artefact(folder, first))
        outputs, example, finding = look_at(draft, wish, model.infer)
        batching: Batching = "rows" if finding.apart else "none"
        signature = Signature(
            tuple(port.spec for port in draft.inputs),
            tuple(port.spec for port in outputs),
            batching,
            ties_of(draft.inputs, batching),
        )
        final = _manifest(draft, wish, signature)
        _check_labels(final, wish)
        (folder / EXAMPLE).write_bytes(pack(example))
        sealed = seal(folder, final, signer)
        open_model(Artefact(folder, sealed)).warm_up()
        registry.pin(signer.public_key())
        return Registered(registry.add(folder, sealed).manifest, finding.why)


def _copy(files: Mapping[str, Path], folder: Path) -> None:
    for name, source in files.items():
        target = folder / NETWORK_FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> Signature:
    return Signature(tuple(p.spec for p in inputs), tuple(p.spec for p in outputs), "none")


def _manifest(draft: Draft, wish: Wish, signature: Signature) -> Manifest:
    options = dict(draft.options)
    if wish.labels:
        options["label_output"] = wish.label_output or "label"
        if wish.score_output:
            options["score_output"] = wish.score_output
    return Manifest(
        name=wish.name,
        version=wish.version,
        kind=wish.kind,
        modality=_MODALITY,
        framework=draft.framework,
        runtime=draft.runtime,
        opset=draft.opset,
        signature=signature,
        labels=wish.labels,
        positive_label=wish.positive_label,
        threshold=wish.threshold,
        protected={},
        training_data={},
        evaluation={},
        parent=None,
        created_by=_CREATED_BY,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        pipeline_version=PLAIN,
        files={},
        backend=draft.backend,
        options=options,
    )


def _check_labels(manifest: Manifest, wish: Wish) -> None:
    outputs = {spec.name: spec for spec in manifest.signature.outputs}
    if not wish.labels:
        if wish.positive_label or wish.threshold or wish.label_output or wish.score_output:
            raise NotRegistered("could not use the label options: --labels is missing")
        return
    _check_names(wish.labels)
    for name in filter(None, (manifest.label_output, wish.score_output)):
        if name not in outputs:
            held = ", ".join(f"'{held}'" for held in outputs)
            raise NotRegistered(
                f"could not find output '{name}' for the labels; name one of {held} with "
                "--label-output or --score-output"
            )
    spec = outputs[manifest.label_output]
    if not (spec.datatype == "BYTES" or DTYPES[spec.datatype].kind in "iu"):
        raise NotRegistered(
            f"could not use output '{spec.name}' for the labels: it holds {spec.datatype}, not "
            "whole numbers or texts"
        )
    if manifest.signature.batching == "none" and any(dim != 1 for dim in spec.shape):
        raise NotRegistered(
            f"could not use output '{spec.name}' for the labels: the model is not batched, so a "
            "request has one label, and this output may hold more"
        )
    if wish.positive_label is not None and wish.positive_label not in wish.labels:
        raise NotRegistered("could not use --positive-label: it is not one of --labels")


def _check_names(labels: tuple[str, ...]) -> None:
    """Refuse labels that could not be told apart, or that no record of the log can count."""
    twice = [name for name, times in Counter(labels).items() if times > 1]
    if twice:
        raise NotRegistered(f"could not use --labels: '{twice[0]}' is there twice")
    strange = [name for name in labels if not name.isprintable() or max(name) > _LAST_CHARACTER]
    if strange:
        raise NotRegistered(
            f"could not use the label {strange[0]!a}: records take printable characters up to "
            "U+FFFF; give it another name"
        )
