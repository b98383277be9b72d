"""What a call needs: open to everybody, any authenticated principal, or one of some roles.

Rule 1: what is not named here needs `infer`: a forgotten path is closed, not open.
Rule 2: paths are read as the doors read them (http.py splits the decoded path at slashes and drops
empty parts), so that no spelling of a path reaches an endpoint by the role of another. Case counts,
as it does there.
Rule 3: only the probes are open, and only as they are spelled in the documents.
Source: docs/operations.md, "Access", holds the same table.
"""

from __future__ import annotations

from typing import Final

from .principal import ROLES, Role

__all__ = ["ANYBODY", "AUTHENTICATED", "FORCE", "Need", "http_need", "rpc_need"]

Need = frozenset[Role]

ANYBODY: Final[Need] = frozenset()
"""Open: probes of load balancers and orchestrators."""
AUTHENTICATED: Final[Need] = frozenset(ROLES)
"""Any role will do: questions that change nothing and show no record."""
INFER: Final[Need] = frozenset({"infer"})
OPERATE: Final[Need] = frozenset({"operate"})
ERASE: Final[Need] = frozenset({"erase"})
FORCE: Final[Need] = frozenset({"force-arm"})
"""Beside the need of the path, where a caller sends `x-weighbridge-arm`."""
REVIEW: Final[Need] = frozenset({"review"})
_FIGURES: Final[Need] = frozenset({"operate", "review"})

_PROBES = {"/v2/health/live", "/v2/health/ready", "/livez", "/readyz", "/healthz"}
_PAGES = {(), ("docs.json",), ("schema.json",), ("favicon.ico",)}
_OPERATED = {("v2", "repository"), ("v1", "experiments")}
_SERVICE = "/inference.GRPCInferenceService/"
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_METHODS: dict[str, Need] = {
    "ServerLive": ANYBODY,
    "ServerReady": ANYBODY,
    "ServerMetadata": AUTHENTICATED,
    "ModelReady": AUTHENTICATED,
    "ModelMetadata": AUTHENTICATED,
    "ModelConfig": AUTHENTICATED,
    "ModelStatistics": AUTHENTICATED,
    "RepositoryIndex": AUTHENTICATED,
    "RepositoryModelLoad": OPERATE,
    "RepositoryModelUnload": OPERATE,
}


def http_need(method: str, path: str) -> Need:
    """What `method` on the decoded `path` needs."""
    reading = method in ("GET", "HEAD")
    if path in _PROBES and reading:
        return ANYBODY
    parts = tuple(part for part in path.split("/") if part)
    if parts[:1] in (("v1",), ("v2",)):
        return _ours(parts, reading=reading)
    if parts == ("metrics",):
        return _FIGURES
    if reading and (parts in _PAGES or parts[:1] == ("static_content",)):
        return AUTHENTICATED
    return INFER


def _ours(parts: tuple[str, ...], *, reading: bool) -> Need:
    """Below `/v1` and `/v2`: questions, operations, erasure; everything else infers."""
    if parts[:2] == ("v1", "audit"):
        return ERASE
    if parts[:2] == ("v1", "overrides"):
        return REVIEW
    if reading or parts == ("v2", "repository", "index"):
        return AUTHENTICATED
    return OPERATE if parts[:2] in _OPERATED else INFER


def rpc_need(method: str) -> Need:
    """What the full gRPC method name needs; streams are inference."""
    if method.startswith(_HEALTH):
        return ANYBODY
    if method.startswith(_REFLECTION):
        return AUTHENTICATED
    if method.startswith(_SERVICE):
        return _METHODS.get(method.removeprefix(_SERVICE), INFER)
    return INFER
