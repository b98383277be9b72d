"""Read a PyTorch file: a TorchScript module or an exported program.

Rule: an exported program says its inputs itself. A TorchScript module knows how many tensors it
takes and nothing of their types and shapes, so whoever registers it says them.
Boundary: imports torch; reads one file, changes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from ..errors import ModelFailed
from .draft import Draft, NotRegistered, Port

__all__ = ["read_torch"]

_FILES: Final = {"torchscript": "model.pt", "torch-export": "model.pt2"}


def read_torch(
    path: Path,
    backend: Literal["torchscript", "torch-export"],
    *,
    inputs: Sequence[Port] = (),
    outputs: Sequence[str] = (),
    compiled: bool = False,
) -> Draft:
    """Read `path`.

    Args:
        path: the file.
        backend: which of the two it is (sniff.py).
        inputs: names, types and shapes, for a TorchScript module; none for an exported program.
        outputs: names of the outputs, in order; `output__N` or the graph's own without them.
        compiled: run it through `torch.compile`.

    Raises:
        NotRegistered: PyTorch is missing or cannot load it, or it takes other things than tensors.
    """
    try:
        backend_module: Any = importlib.import_module("..torch", __package__)
    except ImportError as exc:
        raise NotRegistered(
            "could not read a PyTorch file: the package 'torch' is missing; install the extra "
            "'torch'"
        ) from exc
    data = path.read_bytes()
    options = {"compile": "true"} if compiled else {}
    try:
        if backend == "torchscript":
            if compiled:
                raise NotRegistered(
                    "could not use --compile: torch.compile takes exported programs, not "
                    "TorchScript; save the model with torch.export.save"
                )
            _check_script(backend_module.load_script(data, "cpu"), inputs, path)
            ports, gives = tuple(inputs), tuple[Port, ...]()
        else:
            if inputs:
                raise NotRegistered("could not use --input: an exported program has its own")
            ports, gives = _program_ports(backend_module, data)
    except ModelFailed as exc:
        raise NotRegistered(f"could not register {path.name}: {exc}") from exc
    if outputs:
        if gives and len(gives) != len(outputs):
            raise NotRegistered(
                f"could not use --output: it is given {len(outputs)} times and the model has "
                f"{len(gives)} outputs"
            )
        gives = tuple(
            Port(name, port.datatype, port.dims) for name, port in zip(outputs, gives, strict=False)
        )
        options["outputs"] = ",".join(outputs)
    elif gives:
        options["outputs"] = ",".join(port.name for port in gives)
    version = backend_module.torch.__version__
    return Draft(
        backend=backend,
        framework=f"pytorch {version}",
        runtime=f"torch {version}",
        inputs=ports,
        outputs=gives,
        files={_FILES[backend]: path},
        options=options,
    )


def _check_script(module: Any, inputs: Sequence[Port], path: Path) -> None:
    arguments = list(module.forward.schema.arguments)[1:]
    needed = [argument for argument in arguments if not argument.has_default_value()]
    for argument in needed:
        if str(argument.type) != "Tensor":
            raise NotRegistered(
                f"could not register {path.name}: its input '{argument.name}' is a "
                f"{argument.type}, and only tensors can be sent"
            )
    if not len(needed) <= len(inputs) <= len(arguments) or not inputs:
        names = ", ".join(argument.name for argument in needed)
        raise NotRegistered(
            f"could not read the input shapes of {path.name}: a TorchScript file has none; give "
            f"each of its inputs ({names}) in order, for example --input {needed[0].name}:FP32:-1,4"
            if needed
            else f"could not register {path.name}: it has no inputs"
        )


def _program_ports(backend_module: Any, data: bytes) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    program = backend_module.load_program(data)
    backend_module.structure_of(program)
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    takes, gives = (
        tuple(_port(nodes.get(name), str(name), backend_module) for name in names)
        for names in (signature.user_inputs, signature.user_outputs)
    )
    return takes, gives


def _port(node: Any, name: str, backend_module: Any) -> Port:
    value = None if node is None else node.meta.get("val")
    datatype = backend_module.DATATYPES.get(getattr(value, "dtype", None))
    if value is None or datatype is None:
        raise NotRegistered(
            f"could not register the model: '{name}' is not a tensor of a datatype that the "
            "protocol has"
        )
    dims = tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape)
    return Port(name, datatype, dims)
