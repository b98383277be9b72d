"""Read a TensorFlow SavedModel: the inputs and outputs of one of its signatures.

Boundary: imports TensorFlow; reads a folder, changes nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ..errors import ModelFailed
from .draft import Draft, NotRegistered, Port

__all__ = ["read_saved_model"]


def read_saved_model(folder: Path, signature: str) -> Draft:
    """Read the signature of that name.

    Raises:
        NotRegistered: TensorFlow is missing or cannot load it, or the signature is not of tensors.
    """
    try:
        backend_module: Any = importlib.import_module("..tensorflow", __package__)
    except ImportError as exc:
        raise NotRegistered(
            "could not read a SavedModel: the package 'tensorflow' is missing; install the extra "
            "'tensorflow'"
        ) from exc
    try:
        _, found = backend_module.load_signature(folder, signature)
    except ModelFailed as exc:
        raise NotRegistered(f"could not register {folder.name}: {exc}") from exc
    _, takes = found.structured_input_signature
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    version = backend_module.tf.__version__
    return Draft(
        backend="tensorflow",
        framework=f"tensorflow {version}",
        runtime=f"tensorflow {version}",
        inputs=tuple(_port(name, spec, backend_module) for name, spec in takes.items()),
        outputs=tuple(
            _port(name, spec, backend_module) for name, spec in found.structured_outputs.items()
        ),
        files=files,
        options={"signature": signature},
    )


def _port(name: str, spec: Any, backend_module: Any) -> Port:
    datatype = backend_module.DATATYPES.get(getattr(spec, "dtype", None))
    shape = getattr(spec, "shape", None)
    if datatype is None or shape is None:
        raise NotRegistered(
            f"could not register the model: '{name}' is not a tensor of a datatype that the "
            "protocol has"
        )
    if shape.rank is None:
        return Port(name, datatype, ())
    return Port(name, datatype, tuple("" if dim is None else int(dim) for dim in shape))
