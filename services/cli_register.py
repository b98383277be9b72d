"""`weighbridge register`: a model of one's own, from a file, a folder or an address.

Rule: nothing is registered that was not loaded and run here; a refusal is one sentence that names
the option that helps.
Read next: runners/intake/register.py (the way of a model), docs/models.md (what can be registered).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from runners.backends import open_model
from runners.intake.draft import Draft, Kind, NotRegistered, Port, Wish, parse_port
from runners.intake.onnx import read_onnx
from runners.intake.register import Registered, register
from runners.intake.remote import is_address, read_remote
from runners.intake.sniff import backend_of
from runners.intake.tensorflow import read_saved_model
from runners.intake.torch import read_torch
from runners.tensor import Batch, TensorSpec

from .codec import decode
from .faults import BadRequest
from .masterkey import load_or_create_keyring
from .models import open_registry, opening, registry_signer
from .oip import message
from .settings import settings

__all__ = ["register_model"]

console = Console()


def register_model(  # noqa: PLR0917  typer reads a command's options from its parameters
    path: Annotated[str, typer.Argument(help="file, SavedModel folder, or address of a model")],
    name: Annotated[str, typer.Option(help="name to serve it under")],
    version: Annotated[str, typer.Option(help="version to serve it under")],
    kind: Annotated[Kind, typer.Option(help="which runner service serves it")] = "dnn",
    batch: Annotated[
        Literal["auto", "yes", "no"], typer.Option(help="may requests share a run")
    ] = "auto",
    labels: Annotated[str, typer.Option(help="class names, comma separated")] = "",
    label_output: Annotated[str | None, typer.Option(help="output that holds the label")] = None,
    score_output: Annotated[str | None, typer.Option(help="output with probabilities")] = None,
    positive_label: Annotated[str | None, typer.Option(help="the label that selects")] = None,
    threshold: Annotated[str | None, typer.Option(help="what the score is compared with")] = None,
    example: Annotated[Path | None, typer.Option(help="a JSON infer body it answers")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="name:FP32:-1,4, where a file has none")
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", help="names of a torch model's outputs")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="run a torch.export file through torch.compile")
    ] = False,
    signature: Annotated[
        str | None, typer.Option(help="a SavedModel's signature; serving_default when left out")
    ] = None,
    remote_name: Annotated[str | None, typer.Option(help="name on the remote server")] = None,
    remote_version: Annotated[str | None, typer.Option(help="version on the remote server")] = None,
    token_env: Annotated[
        str | None, typer.Option(help="environment variable with the remote's bearer token")
    ] = None,
    idempotent: Annotated[
        bool, typer.Option(help="a remote call that may have run may be sent again")
    ] = False,
) -> None:
    """Register a model: read its signature, load it, try it, sign it and hold it."""
    chosen = settings()
    if is_address(path):
        draft = read_remote(
            path,
            model=remote_name,
            version=remote_version,
            token_env=token_env,
            idempotent=idempotent,
            messages=message,
        )
    else:
        ports = tuple(parse_port(text) for text in inputs or ())
        draft = _read(
            Path(path), ports, tuple(outputs or ()), signature=signature, compiled=compiled
        )
    wish = Wish(
        name=name,
        version=version,
        kind=kind,
        labels=tuple(text.strip() for text in labels.split(",") if text.strip()),
        label_output=label_output,
        score_output=score_output,
        positive_label=positive_label,
        threshold=_decimal(threshold),
        batch=batch,
        example=None if example is None else _example(example),
    )
    done = register(
        open_registry(chosen),
        draft,
        wish,
        signer=registry_signer(load_or_create_keyring(chosen)),
        open_model=lambda artefact: open_model(artefact, opening(chosen)),
    )
    _show(done)


def _read(
    path: Path,
    inputs: tuple[Port, ...],
    outputs: tuple[str, ...],
    *,
    signature: str | None,
    compiled: bool,
) -> Draft:
    backend = backend_of(path)
    if backend in ("torchscript", "torch-export"):
        return read_torch(path, backend, inputs=inputs, outputs=outputs, compiled=compiled)
    if inputs or outputs or compiled:
        raise NotRegistered(
            "could not use --input, --output or --compile: they are for PyTorch files, and "
            f"{path.name} is none"
        )
    if backend == "tensorflow":
        return read_saved_model(path, signature or "serving_default")
    return read_onnx(path)


def _decimal(text: str | None) -> str | None:
    if text is not None:
        try:
            float(text)
        except ValueError as exc:
            raise NotRegistered(f"could not use --threshold {text}: it is no number") from exc
    return text


def _example(path: Path) -> Batch:
    try:
        found = decode(path.read_bytes(), None, None)
    except (BadRequest, OSError) as exc:
        raise NotRegistered(f"could not read the example {path}: {exc}") from exc
    return {name: tensor.data for name, tensor in found.inputs.items()}


def _show(done: Registered) -> None:
    manifest = done.manifest
    table = Table("", "name", "datatype", "shape", box=None)
    for word, specs in (
        ("input", manifest.signature.inputs),
        ("output", manifest.signature.outputs),
    ):
        for spec in specs:
            table.add_row(word, spec.name, spec.datatype, _shape(spec))
    console.print(table)
    together = "batched" if manifest.signature.batching == "rows" else "each request alone"
    console.print(f"{together}: {done.why}", soft_wrap=True, markup=False)
    console.print(
        f"registered {manifest.name}:{manifest.version} ({manifest.backend}, {manifest.runtime}), "
        f"{manifest.digest}; a running gateway serves it after "
        f"POST /v2/repository/models/{manifest.name}/load",
        soft_wrap=True,
        markup=False,
    )


def _shape(spec: TensorSpec) -> str:
    return "[" + ",".join(map(str, spec.shape)) + "]"
