"""The models of one deployment: which registry, which devices, and an empty fleet for them.

Rule: what the settings say about models is turned into objects here and nowhere else; nothing is
loaded yet. The gateway, the runner services, the explainer and the commands all begin with this.
Read next: runners/backends.py (who loads), wiring.py (who owns the fleet of a gateway).
"""

from __future__ import annotations

from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from audit.keys import Keyring
from runners.backends import Opening, open_model
from runners.errors import ArtefactCorrupt, RunnerError
from runners.fleet import Fleet
from runners.onnx import check_installation
from runners.registry import SIGNER, Registry

from .oip import message
from .settings import Settings
from .telemetry import current_traceparent

__all__ = ["check_device", "open_fleet", "open_registry", "opening", "registry_signer"]


def registry_signer(keyring: Keyring) -> Ed25519PrivateKey:
    """The key that signs model manifests, derived from the master key."""
    return Ed25519PrivateKey.from_private_bytes(keyring.derived("registry"))


def open_registry(settings: Settings) -> Registry:
    """The models held under the home folder, or those that came with the bento being served."""
    source = Path(__file__).resolve().parents[1]
    pinned = source / SIGNER
    if not pinned.exists():
        return Registry(settings.bentoml_home)
    key = load_pem_public_key(pinned.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ArtefactCorrupt(f"could not use {SIGNER}: it is not an Ed25519 key")
    inside = source.parent
    home = inside if (inside / "models").is_dir() else Path(BentoMLContainer.bentoml_home.get())
    return Registry(home, key)


def opening(settings: Settings) -> Opening:
    """What the backends need to know of this deployment."""
    return Opening(
        device=settings.device,
        threads=settings.threads,
        context=current_traceparent.get,
        messages=message,
    )


def check_device(settings: Settings, registry: Registry) -> None:
    """Refuse an ONNX Runtime that cannot do what is asked, unless no model here needs it.

    Raises:
        DeviceUnavailable: as `runners.onnx.check_installation`; other backends refuse themselves.
    """
    found = set()
    for name in settings.model_names() or registry.names():
        for version in registry.versions(name):
            try:
                found.add(registry.manifest(name, version).backend)
            except RunnerError:
                continue  # it is not served either; the repository index says why
    if not found or "onnx" in found:
        check_installation(settings.device)


def open_fleet(settings: Settings) -> Fleet:
    """An empty fleet whose models run on the configured device, each in its own backend."""
    registry, chosen = open_registry(settings), opening(settings)
    check_device(settings, registry)
    return Fleet(
        registry=registry,
        open_model=lambda artefact: open_model(artefact, chosen),
        max_batch_rows=settings.max_batch_rows,
        max_queued_rows=settings.max_queued_rows,
    )
