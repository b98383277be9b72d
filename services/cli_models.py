"""`weighbridge train`, `models`, `experiments` and `bento`: what is there to serve.

Rule: heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.plan import load_folder

from .cli_table import print_rows
from .masterkey import load_or_create_keyring
from .models import open_registry, registry_signer
from .settings import settings

__all__ = ["bento", "experiments", "models", "train"]

_FIGURES = ("accuracy", "auc", "macro_f1", "rmse")
console = Console()


def train(
    model: Annotated[str | None, typer.Argument(help="one model; all when left out")] = None,
    version: Annotated[str | None, typer.Option(help="one version; both when left out")] = None,
    fast: Annotated[bool, typer.Option(help="seconds instead of minutes, worse models")] = False,
    force: Annotated[bool, typer.Option(help="train what the registry already holds")] = False,
) -> None:
    """Train, evaluate, export and register the reference models."""
    from runners.reference.catalog import TASKS, VERSIONS  # noqa: PLC0415

    chosen = settings()
    registry = open_registry(chosen)
    wanted = [
        (n, v) for n in ([model] if model else TASKS) for v in ([version] if version else VERSIONS)
    ]
    if not force and all(registry.holds(*tag) for tag in wanted):
        console.print(f"nothing to train: {registry.home} holds all of it", soft_wrap=True)
        return
    from runners.reference.train import train_all  # noqa: PLC0415  torch and TensorFlow are slow

    keyring = load_or_create_keyring(chosen)
    made = train_all(
        registry,
        chosen.data_dir,
        models=[model] if model else None,
        versions=[version] if version else None,
        fast=fast,
        force=force,
        signer=registry_signer(keyring),
        console=console,
    )
    held = sum(len(registry.versions(name)) for name in registry.names())
    console.print(f"trained {len(made)} versions; {registry.home} now holds {held}", soft_wrap=True)


def models() -> None:
    """List the model versions in the registry, with digests and figures."""
    registry = open_registry(settings())
    if not registry.names():
        console.print(
            f"no model under {registry.home}; `weighbridge train` makes four", soft_wrap=True
        )
        return
    rows = []
    for name in registry.names():
        for version in registry.versions(name):
            manifest = registry.manifest(name, version)
            figures = (manifest.evaluation.get(key) for key in _FIGURES)
            digest = manifest.digest.removeprefix("sha256:")[:12]
            rows.append((f"{name}:{version}", manifest.kind, manifest.framework, digest, *figures))
    print_rows(("model", "kind", "framework", "digest", *_FIGURES), rows)


def experiments(
    folder: Annotated[Path | None, typer.Argument(help="folder of definitions")] = None,
) -> None:
    """Check experiment definitions and show what they assign."""
    rows = []
    for definition in load_folder(folder or settings().definitions).values():
        arms = ", ".join(f"{a.name}={a.version} ({a.propensity})" for a in definition.arms)
        rows.append(
            (
                definition.name,
                definition.model,
                definition.kind,
                definition.epoch,
                arms,
                definition.version[:12],
            )
        )
    print_rows(("experiment", "model", "kind", "epoch", "arms", "version"), rows)


def bento() -> None:
    """Build a bento with the registered models, offline."""
    from .packaging import build  # noqa: PLC0415

    console.print(f"built {build(settings())}", soft_wrap=True)
