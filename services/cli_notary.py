"""`weighbridge notary`: the one writer of a log, without a gateway; and an explainer beside it.

Rule 1: it owns the keys and the log of its home folder. Gateways append over its Unix socket, or
over TCP with certificates on both sides, and hold no key that signs.
Rule 2: it says that it is ready when it is: on its standard error, to systemd (sd_notify) where
that started it, and to whoever runs `weighbridge notary --check`.
Rule 3: SIGTERM, SIGINT: what was asked is answered, a last checkpoint signed, the lock released.
Read next: ledger.py (what is opened), remote_ledger.py (the gateway's side).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Annotated, Any

import typer
from rich.console import Console

from audit.errors import AuditError
from audit.link_client import NotaryClient

from .ledger import LocalLedger
from .notary_link import check_link
from .settings import Settings, settings
from .settling import settle_memory

__all__ = ["run_explainer", "run_notary"]

errors = Console(stderr=True)
_CHECK_S = 5.0
_NICE = 10


def run_notary(
    check: Annotated[
        bool, typer.Option("--check", help="ask the running one whether it can record, and end")
    ] = False,
) -> None:
    """Keep the log for gateways of this and other machines, until SIGTERM."""
    chosen = settings()
    if check:
        raise typer.Exit(_check(chosen))
    if chosen.notary:
        raise ValueError(
            "WEIGHBRIDGE_NOTARY says that the log is elsewhere; unset it to keep one here"
        )
    check_link(chosen)
    asyncio.run(_keep(chosen))


def run_explainer() -> None:
    """Explain and count what the log of this home says, beside `weighbridge notary`."""
    from .follower import open_follower  # noqa: PLC0415  imports lime and scikit-learn
    from .placement import hide_cards  # noqa: PLC0415

    os.nice(_NICE)
    hide_cards()

    async def follow() -> None:
        stopped = _stopping()
        follower = await open_follower(settings())
        try:
            await stopped.wait()
        finally:
            await follower.close()

    asyncio.run(follow())


async def _keep(chosen: Settings) -> None:
    stopped = _stopping()
    ledger = LocalLedger(chosen)
    await ledger.open()
    try:
        settle_memory()
        _announce(chosen, ledger)
        await stopped.wait()
        _notify("STOPPING=1")
    finally:
        await ledger.close()
    _say("stopped: the log is signed and closed")


def _announce(chosen: Settings, ledger: LocalLedger) -> None:
    cut = ledger.notary.recovery.cut
    if cut is not None:
        _say(f"recovered the log: cut a torn tail, {cut}")
    _say(f"log {ledger.notary.origin}, {ledger.notary.size} records")
    where = [f"unix:{chosen.run_dir / 'notary.sock'}"]
    host = chosen.notary_listen.rpartition(":")[0]
    where += [f"{host}:{port} (TLS)" for port in ledger.ports]
    _say(f"ready: {', '.join(where)}")
    _notify("READY=1")


def _say(text: str) -> None:
    errors.print(f"notary: {text}", soft_wrap=True, markup=False, highlight=False)


def _stopping() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3), Type=notify)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def _check(chosen: Settings) -> int:
    """0 when the notary of this home answers and its disk takes records."""
    try:
        found = asyncio.run(_health(chosen))
    except AuditError as exc:
        _say(str(exc))
        return 1
    failure = found["failure"] or found["checkpoint_failure"]
    _say(f"{found['leaves']} records, {found['signed']} signed; {failure or 'all is well'}")
    return 0 if failure is None else 1


async def _health(chosen: Settings) -> dict[str, Any]:
    client = NotaryClient(chosen.run_dir / "notary.sock", timeout_s=_CHECK_S, patience_s=0.5)
    try:
        return await client.ask("health")
    finally:
        await client.close()
