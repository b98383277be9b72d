"""The `model.yaml` by which BentoML's model store knows an artefact.

Source: bentoml 1.4 `ModelInfo` (read back by `bentoml models list` and by `bentoml build`).
Rule: a pure function of the manifest's own words, written before the files are hashed, so that
the store's file is covered by the manifest like every other; JSON is valid YAML.
Boundary: no IO; the BentoML version is the only thing read from outside.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from .manifest import Manifest

__all__ = ["CARD", "card"]

CARD: Final = "model.yaml"


def card(manifest: Manifest) -> bytes:
    """Render the store's description of `manifest`; module-less, so nothing is ever unpickled."""
    framework, _, release = manifest.framework.partition(" ")
    return orjson.dumps(
        {
            "name": manifest.name,
            "version": manifest.version,
            "module": "",
            "labels": {"kind": manifest.kind, "modality": manifest.modality},
            "options": {},
            "metadata": {"pipeline_version": manifest.pipeline_version},
            "context": {
                "framework_name": framework,
                "framework_versions": {framework: release},
                "bentoml_version": version("bentoml"),
                "python_version": platform.python_version(),
            },
            "signatures": {},
            "api_version": "v1",
            "creation_time": manifest.created,
        },
        option=orjson.OPT_INDENT_2,
    )
