"""`weighbridge witness`: a witness for other people's logs, a program of its own.

Rule: it has its own key and its own state, shares neither with a log, and refuses an address that
others can reach until it is told to. The state is the witness: whoever loses it must not go on
with its key.
Read next: audit/witness.py (what it signs), witness_http.py (how it is asked).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from audit.witness import Witness
from audit.witness_key import load_or_create

from .accessed import given_key
from .witness_http import WitnessDoor

__all__ = ["run_witness"]

console = Console()
_CONNECTIONS = 256


def run_witness(  # noqa: PLR0917  typer reads a command's options from its parameters
    state: Annotated[Path, typer.Option(help="folder of its key and of what it signed")],
    log: Annotated[
        list[str] | None, typer.Option(help="public key of a log to witness; may be repeated")
    ] = None,
    name: Annotated[str, typer.Option(help="what it signs under, for a new key")] = "",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port; 0 picks a free one")] = 3002,
    prefix: Annotated[str, typer.Option(help="a path in front, such as /w1")] = "",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="listen beyond loopback")
    ] = False,
    print_key: Annotated[
        bool, typer.Option("--print-key", help="print the public key, making it first, and end")
    ] = False,
) -> None:
    """Cosign the checkpoints of logs, each only if it extends the last (C2SP tlog-witness)."""
    cosigner = load_or_create(state, name or None)
    if print_key:
        console.print(str(cosigner.key), soft_wrap=True, markup=False, highlight=False)
        return
    if not log:
        raise ValueError("name at least one log: --log 'KEY', as `weighbridge audit key` prints it")
    if not allow_remote and not _loopback(host):
        raise ValueError(f"{host} can be reached by others; say --allow-remote if that is meant")
    if prefix and not re.fullmatch(r"(/[\w.~-]+)+", prefix, re.ASCII):
        raise ValueError("--prefix is a path such as /w1, without a slash at its end")
    keys = list(map(given_key, log))
    with closing(Witness(state, cosigner, keys, now_s=lambda: int(time.time()))) as witness:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with closing(socket.create_server((host, port), family=family)) as listening:
            _announce(listening, str(cosigner.key), prefix, witness.sizes())
            asyncio.run(_serve(WitnessDoor(witness, str(cosigner.key), prefix), listening))


def _announce(listening: socket.socket, key: str, prefix: str, sizes: dict[str, int]) -> None:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    lines = [f"witness http://{shown}:{port}{prefix}", f"key     {key}"]
    lines += [f"log     {origin}, {size} records cosigned" for origin, size in sizes.items()]
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


async def _serve(door: WitnessDoor, listening: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415  a server, which only this command needs

    config = uvicorn.Config(
        door,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    await uvicorn.Server(config).serve(sockets=[listening])


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
