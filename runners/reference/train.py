"""The entry: train what is missing, evaluate it, and register it, signed.

Rule: a version is built in a temporary folder and enters the registry whole, or not at all.
Rule: a version already held is left alone, also when another process registers it meanwhile.
Boundary: the registry, the cache, the key and the console are the caller's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from ..errors import ModelNotFound, RunnerError
from ..manifest import Manifest, seal
from ..pipeline import PIPELINE, PIPELINE_VERSION, Pipeline
from ..registry import Registry
from .background import BACKGROUND, background
from .baseline import baselines
from .catalog import TASKS, VERSIONS, task
from .evaluation import EVALUATION, evaluate, headline
from .export import OPSET, answers, difference
from .fit import Part
from .plots import draw
from .progress import Watch, write_events
from .recipes import Trained, epochs_of, train_network, word_valences
from .show import figures_line, show
from .task import Dataset, Rows, Task

__all__ = ["train_all"]

CREATED_BY: Final = "weighbridge train"
_MOST_THREADS: Final = 4


@dataclass(frozen=True)
class _Run:
    """What the caller gave, for every version alike."""

    registry: Registry
    cache: Path
    signer: Ed25519PrivateKey
    console: Console
    fast: bool
    force: bool


@dataclass
class _Bench:
    """One task laid out: its data, and what its versions share."""

    task: Task
    data: Dataset
    baseline: dict[str, Any] | None = None


def train_all(
    registry: Registry,
    cache: Path,
    *,
    models: Sequence[str] | None = None,
    versions: Sequence[str] | None = None,
    fast: bool = False,
    force: bool = False,
    signer: Ed25519PrivateKey,
    console: Console,
) -> list[Manifest]:
    """Train and register the reference models that are not held yet.

    Args:
        registry: where they go; it is made to trust `signer`.
        cache: where data packages are kept; they are fetched when missing.
        models: names, default all four.
        versions: default both, "1" and "2".
        fast: seconds instead of minutes: few rows, two epochs; same artefacts, no accuracy.
        force: train again what is held, and replace it.
        signer: signs every manifest.
        console: progress bars on a terminal, plain lines elsewhere; then one table per version.

    Returns:
        The manifests of what was trained now, in order.

    Raises:
        ModelNotFound: a name or version that no reference model has.
        DataPackageMissing: data that cannot be had; the message says what to do.
        RunnerError: training, export or registration failed; nothing half-written is left.
    """
    run = _Run(registry, cache, signer, console, fast, force)
    plan = [(task(name), _known(name, versions or VERSIONS)) for name in models or TASKS]
    registry.pin(signer.public_key())
    made: list[Manifest] = []
    for item, numbers in plan:
        missing = [number for number in numbers if force or not registry.holds(item.name, number)]
        try:
            made += _train_task(run, item, missing)
        except OSError as exc:
            raise RunnerError(
                f"could not train {item.name}: {exc}; nothing half-written is left, run it again"
            ) from exc
    return made


def _known(name: str, versions: Sequence[str]) -> Sequence[str]:
    for version in versions:
        if version not in VERSIONS:
            raise ModelNotFound(f"{name} has no version '{version}'; known: {', '.join(VERSIONS)}")
    return versions


def _train_task(run: _Run, item: Task, versions: Sequence[str]) -> Iterator[Manifest]:
    if not versions:
        return
    data = item.load(run.cache)
    bench = _Bench(item, data.smaller(item.fast_rows) if run.fast else data)
    for version in versions:
        yield _train_version(run, bench, version)


def _train_version(run: _Run, bench: _Bench, version: str) -> Manifest:
    item, data = bench.task, bench.data
    tag = f"{item.name}:{version}"
    pipeline = item.pipeline(version, data)
    parts = {
        name: _part(pipeline, rows)
        for name, rows in (("train", data.train), ("valid", data.valid), ("test", data.test))
    }
    with (
        tempfile.TemporaryDirectory(prefix="weighbridge-train-") as name,
        Watch.on(run.console, tag, epochs_of(item.name, version, fast=run.fast)) as watch,
    ):
        trained = train_network(
            item.name,
            version,
            pipeline,
            parts,
            valences=data.valences,
            fast=run.fast,
            threads=min(len(os.sched_getaffinity(0)), _MOST_THREADS),
            watch=watch,
        )
        result = _evaluated(bench, pipeline, parts, trained, tag)
        result["history"] = [epoch._asdict() for epoch in watch.history]
        folder = Path(name)
        _fill(folder, bench, pipeline, trained, result)
        draw(folder, tag, watch.history, result)
        manifest = _manifest(run.registry, bench, version, trained, result)
        held = _register(run, folder, seal(folder, manifest, run.signer))
        write_events(run.registry.home / "tensorboard" / item.name / version, watch.history)
        watch.done(figures_line(result))
    show(run.console, tag, result)
    return held


def _part(pipeline: Pipeline, rows: Rows) -> Part:
    return Part(pipeline.before(rows.batch), rows.labels, rows.ratings)


def _evaluated(
    bench: _Bench, pipeline: Pipeline, parts: dict[str, Part], trained: Trained, tag: str
) -> dict[str, Any]:
    exported = answers(trained.onnx, parts["test"])
    largest = difference(tag, trained.answers, exported)
    result = evaluate(bench.task, bench.data.test, pipeline.after(exported))
    result["onnx_max_abs_difference"] = largest
    if bench.task.modality == "text":
        if bench.baseline is None:
            known = word_valences(pipeline, bench.data.valences)
            bench.baseline = baselines(parts["train"], parts["test"], bench.data.test, known)
        result["baselines"] = bench.baseline
    return result


def _fill(
    folder: Path, bench: _Bench, pipeline: Pipeline, trained: Trained, result: dict[str, Any]
) -> None:
    tidy = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    (folder / "model.onnx").write_bytes(trained.onnx)
    (folder / PIPELINE).write_bytes(pipeline.format())
    statistics = background(bench.task, bench.data.train)
    (folder / BACKGROUND).write_bytes(orjson.dumps(statistics, option=tidy) + b"\n")
    (folder / EVALUATION).write_bytes(orjson.dumps(result, option=tidy) + b"\n")


def _manifest(
    registry: Registry, bench: _Bench, version: str, trained: Trained, result: dict[str, Any]
) -> Manifest:
    item = bench.task
    follows = version != VERSIONS[0] and registry.holds(item.name, VERSIONS[0])
    return Manifest(
        name=item.name,
        version=version,
        kind=item.kind,
        modality=item.modality,
        framework=trained.framework,
        runtime=f"onnxruntime {ort.__version__}",
        opset=OPSET,
        signature=item.signature,
        labels=item.labels,
        positive_label=item.positive_label,
        threshold=item.threshold,
        protected=item.protected,
        training_data=bench.data.source,
        evaluation=headline(result),
        parent=registry.manifest(item.name, VERSIONS[0]).digest if follows else None,
        created_by=CREATED_BY,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        pipeline_version=PIPELINE_VERSION,
        files={},
    )


def _register(run: _Run, folder: Path, manifest: Manifest) -> Manifest:
    """Add a version; when another process was first, its version is the one that is held."""
    registry, name, version = run.registry, manifest.name, manifest.version
    if run.force and registry.holds(name, version):
        registry.delete(name, version)
        # If we crash here, the version is not held; training it again is what the caller asked.
    try:
        return registry.add(folder, manifest).manifest
    except RunnerError:
        if registry.holds(name, version):
            return registry.open(name, version).manifest
        raise
