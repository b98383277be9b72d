"""Which way leads to a remote model: its address says.

Read next: wire.py (what the ways have in common).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from .errors import ModelFailed
from .tensor import Signature
from .wire import Lost, Place, Unsent, Wire
from .wire_grpc import GrpcWire
from .wire_http import HttpWire

__all__ = ["SCHEMES", "Lost", "Place", "Unsent", "Wire", "wire_to"]

SCHEMES: Final = ("http", "https", "grpc", "grpcs")


def wire_to(place: Place, signature: Signature, messages: Any) -> Wire:
    """The way that the address's scheme names.

    Raises:
        ModelFailed: it names none, or gRPC messages are needed and not at hand.
    """
    scheme = urlsplit(place.address).scheme
    if scheme in ("http", "https"):
        return HttpWire(place, signature)
    if scheme in ("grpc", "grpcs") and messages is not None:
        return GrpcWire(place, signature, messages)
    raise ModelFailed(f"could not reach a remote model by '{scheme}'")
