"""Read a model on another Open Inference Protocol server: ask for its metadata.

Accepted: `http://host:port/v2/models/NAME[/versions/V]`, `grpc://host:port/NAME[/V]` (and `https`,
`grpcs`), or the bare server with the name as an option.
Rule: an address with a user or password in it is refused, because it would be signed and stored; a
token is named by the environment variable that holds it.
Boundary: one call to the address that the operator gave.
"""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import RunnerError
from ..tensor import DTYPES, Signature
from ..wires import SCHEMES, Lost, Place, Unsent, wire_to
from .draft import Draft, NotRegistered, Port

__all__ = ["is_address", "read_remote"]

_TIMEOUT_S: Final = 10.0


class _Target(NamedTuple):
    server: str
    model: str
    version: str


def is_address(text: str) -> bool:
    """Whether `text` is meant as an address and not as a path."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def read_remote(
    address: str,
    *,
    model: str | None,
    version: str | None,
    token_env: str | None,
    idempotent: bool,
    messages: Any,
) -> Draft:
    """Ask the server at `address` for the model's metadata.

    Args:
        address: as the module says.
        model: the name there, if the address has none.
        version: the version there; the server's choice without one.
        token_env: the environment variable that holds a bearer token.
        idempotent: whether a call that may have run may be sent again.
        messages: the protocol's gRPC messages by name.

    Raises:
        NotRegistered: no such address or model, or the server is away.
    """
    target = _target(address, model, version)
    token = os.environ.get(token_env) if token_env else None
    if token_env and not token:
        raise NotRegistered(f"could not use --token-env: the variable {token_env} is not set")
    place = Place(target.server, target.model, target.version, token)
    wire = wire_to(place, Signature((), ()), messages)
    try:
        found = wire.metadata(_TIMEOUT_S)
    except (Unsent, Lost) as exc:
        raise NotRegistered(
            f"could not reach the server of model '{target.model}'; check that it runs and that "
            "the address is right"
        ) from exc
    except RunnerError as exc:
        raise NotRegistered(f"could not read the metadata of '{target.model}': {exc}") from exc
    finally:
        wire.close_once()
    options = {"address": target.server, "model": target.model, "version": target.version}
    if token_env:
        options["token_env"] = token_env
    if idempotent:
        options["idempotent"] = "true"
    scheme = urlsplit(target.server).scheme
    return Draft(
        backend="remote",
        framework="remote",
        runtime=f"remote {scheme}",
        inputs=tuple(_port(*tensor) for tensor in found["inputs"]),
        outputs=tuple(_port(*tensor) for tensor in found["outputs"]),
        options=options,
    )


def _target(address: str, model: str | None, version: str | None) -> _Target:
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise NotRegistered(
            "could not use the address: it holds a user or password, which would be stored; give "
            "a token by --token-env"
        )
    if not parts.hostname or parts.query or parts.fragment:
        raise NotRegistered(
            "could not use the address: write it as http://host:port/v2/models/NAME"
        )
    path = [unquote(part) for part in parts.path.split("/") if part]
    if parts.scheme.startswith("http") and path:
        match path:
            case ["v2", "models", name] | ["v2", "models", name, "versions", _]:
                model, version = name, path[4] if len(path) == 5 else version
            case _:
                raise NotRegistered(
                    "could not use the address: its path must be /v2/models/NAME[/versions/V]"
                )
    elif path:
        if len(path) > 2:
            raise NotRegistered("could not use the address: write it as grpc://host:port/NAME[/V]")
        model, version = path[0], path[1] if len(path) == 2 else version
    if not model:
        raise NotRegistered("could not use the address: it names no model; give --remote-name")
    return _Target(f"{parts.scheme}://{parts.netloc}", model, version or "")


def _port(name: str, datatype: str, dims: tuple[int, ...]) -> Port:
    if datatype not in DTYPES:
        raise NotRegistered(
            f"could not register the model: '{name}' is a {datatype}, which the protocol lacks"
        )
    return Port(name, datatype, tuple("" if dim < 0 else dim for dim in dims))
