"""The whole way of a foreign model into the registry.

The order: copy its files -> sign a first manifest -> open it with the backend that will serve it ->
find inputs that it answers -> see its outputs' real shapes -> ask whether rows may meet (probe.py)
-> sign the final manifest -> open and warm that up -> add it to the registry.
Rule: whatever fails on the way is one sentence, and the registry is as it was.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import InputInvalid, ModelFailed, RunnerError
from ..manifest import PLAIN, Manifest, seal
from ..model import Model
from ..registry import NETWORK_FOLDER, Artefact, Registry
from ..tensor import DTYPES, Array, Batch, Signature, Tensor, datatype_of, pack
from ..warm import EXAMPLE
from .draft import Draft, NotRegistered, Port, named_once
from .example import Infer, draw, find_recipe
from .probe import Finding, may_batch, probe_rows

__all__ = ["Kind", "Registered", "Wish", "register"]

Kind = Literal["cnn", "lstm", "dnn"]
Draw = Callable[[int, np.random.Generator], Batch]
_CREATED_BY: Final = "weighbridge register"
_MODALITY: Final = "tensor"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What whoever registers a model says about it.

    Attributes:
        kind: which runner service serves it, where models run in services of their own.
        labels: names of the classes that `label_output` gives, by number or by name.
        batch: "auto" looks and asks; "yes" refuses the model unless rows may meet; "no" never.
        example: inputs that the model answers, instead of random ones.
    """

    name: str
    version: str
    kind: Kind = "dnn"
    labels: tuple[str, ...] = ()
    label_output: str | None = None
    score_output: str | None = None
    positive_label: str | None = None
    threshold: str | None = None
    batch: Literal["auto", "yes", "no"] = "auto"
    example: Batch | None = None


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
    registry.pin(signer.public_key())
    with tempfile.TemporaryDirectory(prefix="weighbridge-register-") as name:
        folder = Path(name)
        _copy(draft.files, folder)
        first = seal(
            folder, _manifest(draft, wish, _signature(draft.inputs, draft.outputs)), signer
        )
        model = open_model(Artefact(folder, first))
        outputs, example, finding = _looked_at(draft, wish, model)
        batching: Literal["rows", "none"] = "rows" if finding.apart else "none"
        signature = Signature(
            tuple(port.spec for port in draft.inputs),
            tuple(port.spec for port in outputs),
            batching,
        )
        final = _manifest(draft, wish, signature)
        _check_labels(final, wish)
        (folder / EXAMPLE).write_bytes(pack(example))
        sealed = seal(folder, final, signer)
        open_model(Artefact(folder, sealed)).warm_up()
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


def _looked_at(draft: Draft, wish: Wish, model: Model) -> tuple[tuple[Port, ...], Batch, Finding]:
    """The outputs as they really are, inputs to warm up with, and whether rows may meet."""
    if wish.example is None:
        recipe = find_recipe(draft.inputs, model.infer)
        larger = recipe._replace(size=recipe.size + 1)
        draws: list[Draw] = [
            lambda rows, rng: draw(draft.inputs, recipe, rows, rng),
            lambda rows, rng: draw(draft.inputs, larger, rows, rng),
        ]
    else:
        given = _checked(draft.inputs, wish.example)
        draws = [lambda rows, rng: _chosen(given, draft.inputs, rows, rng)]
    answers = _answers(draws, model.infer, wish)
    outputs = _outputs(draft.outputs, answers)
    example = wish.example or draws[0](2, np.random.default_rng(0))
    return outputs, example, _finding(draft, wish, outputs, draws[0], model.infer)


def _checked(inputs: Sequence[Port], example: Batch) -> Batch:
    tensors = {name: Tensor(name, datatype_of(data.dtype), data) for name, data in example.items()}
    try:
        Signature(tuple(port.spec for port in inputs), (), "none").check(tensors)
    except InputInvalid as exc:
        raise NotRegistered(f"could not use the example: {exc}") from exc
    return example


def _chosen(example: Batch, ports: Sequence[Port], rows: int, rng: np.random.Generator) -> Batch:
    """`rows` of the example's rows; an input whose first dimension is fixed comes as it is."""
    free = [port.name for port in ports if port.dims and isinstance(port.dims[0], str)]
    held = {len(example[name]) for name in free}
    if len(held) != 1 or not min(held):
        return example
    picked = np.resize(rng.permutation(held.pop()), rows)
    return {name: data[picked] if name in free else data for name, data in example.items()}


def _answers(draws: Sequence[Draw], infer: Infer, wish: Wish) -> list[dict[str, Array]]:
    """What the model says to a few batches of other sizes; the first one must be answered."""
    found: list[dict[str, Array]] = []
    for make in draws:
        for rows in (2, 3):
            try:
                found.append(infer(make(rows, np.random.default_rng(1))))
            except (ModelFailed, InputInvalid) as exc:
                if not found and wish.example is not None:
                    found.append(_answer_to_example(infer, wish.example))
                elif not found:
                    raise NotRegistered(f"could not register the model: {exc}") from exc
    return found


def _answer_to_example(infer: Infer, example: Batch) -> dict[str, Array]:
    try:
        return infer(example)
    except RunnerError as exc:
        raise NotRegistered(f"could not use the example: the model says: {exc}") from exc


def _outputs(declared: Sequence[Port], answers: Sequence[Mapping[str, Array]]) -> tuple[Port, ...]:
    """Each output as declared where that is what was seen, else as it was seen."""
    known = {port.name: port for port in declared}
    names = list(known) or list(answers[0])
    ports = []
    for name in names:
        seen = [answer[name] for answer in answers if name in answer]
        if len(seen) != len(answers):
            raise NotRegistered(f"could not register the model: it did not give output '{name}'")
        port = known.get(name)
        if port is None or not all(
            port.spec.admits(data.shape) and data.dtype == DTYPES[port.datatype] for data in seen
        ):
            port = Port(name, datatype_of(seen[0].dtype), _dims(seen))
        ports.append(port)
    named_once(ports, "outputs")
    return tuple(ports)


def _dims(seen: Sequence[Array]) -> tuple[int | str, ...]:
    shapes = {data.shape for data in seen}
    if len({len(shape) for shape in shapes}) != 1:
        raise NotRegistered(
            "could not register the model: the number of an output's dimensions changes from call "
            "to call"
        )
    return tuple(sizes[0] if len(set(sizes)) == 1 else "" for sizes in zip(*shapes, strict=True))


def _finding(
    draft: Draft, wish: Wish, outputs: Sequence[Port], make: Draw, infer: Infer
) -> Finding:
    if wish.batch == "no":
        return Finding(apart=False, why="as was asked for")
    found = may_batch(draft.inputs, outputs, strict=wish.batch == "auto")
    if found.apart:
        found = probe_rows(make, infer, outputs)
    if wish.batch == "yes" and found.apart is None:
        return Finding(apart=True, why=f"as was asked for, although {found.why}")
    if wish.batch == "yes" and not found.apart:
        raise NotRegistered(
            f"could not register {wish.name}:{wish.version} with --batch yes: {found.why}; leave "
            "the option out to serve each request alone"
        )
    return found


def _check_labels(manifest: Manifest, wish: Wish) -> None:
    outputs = {spec.name: spec for spec in manifest.signature.outputs}
    if not wish.labels:
        if wish.positive_label or wish.threshold or wish.label_output or wish.score_output:
            raise NotRegistered("could not use the label options: --labels is missing")
        return
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
