"""Which reader a path is for: by what the file holds, not by its name alone.

Source: PyTorch's zip archives (TorchScript has `code/`, an exported program names its format `pt2`,
saved weights have neither); TensorFlow's SavedModel is a folder with `saved_model.pb`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from ..manifest import Backend
from .draft import NotRegistered

__all__ = ["SAVED_MODEL", "backend_of"]

SAVED_MODEL: Final = "saved_model.pb"
_FORMS: Final = (
    "an ONNX file, a TorchScript or torch.export file, a SavedModel folder, or an address"
)


def backend_of(path: Path) -> Backend:
    """The backend for `path`.

    Raises:
        NotRegistered: there is nothing, or nothing that can be served.
    """
    if path.is_dir():
        if (path / SAVED_MODEL).is_file():
            return "tensorflow"
        raise NotRegistered(
            f"could not register {path}: a folder must be a TensorFlow SavedModel with a file "
            f"{SAVED_MODEL}"
        )
    if not path.is_file():
        raise NotRegistered(f"could not register {path}: there is no such file")
    if path.suffix == ".onnx":
        return "onnx"
    if zipfile.is_zipfile(path):
        return _archive(path)
    raise NotRegistered(f"could not register {path}: it is not {_FORMS}")


def _archive(path: Path) -> Backend:
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] or name for name in archive.namelist()]
    if "archive_format" in names or any(n.endswith("exported_program.json") for n in names):
        return "torch-export"
    if any(name.startswith("code/") for name in names):
        return "torchscript"
    if "data.pkl" in names:
        raise NotRegistered(
            f"could not register {path}: it holds weights without the network; save the model "
            "with torch.jit.save or torch.export.save"
        )
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        raise NotRegistered(
            f"could not register {path}: it is a Keras file; write a SavedModel with "
            "model.export(folder)"
        )
    raise NotRegistered(f"could not register {path}: it is not {_FORMS}")
