"""Before any worker starts: what would make every worker fail is found once and said in a sentence.

Rule: BentoML restarts a worker that dies, which is right at three in the morning and wrong for a
taken port; so the process that starts the workers first tries what they will need: the keys, the
log (opening it is recovering it) and its seals, or the notary that keeps it elsewhere, the devices
and the gRPC port. Nothing is kept open. What must not start at all (an open door to the world, a
TLS key for all to read) is found here, too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import click
from bentoml._internal.configuration.containers import BentoMLContainer

from audit.errors import AuditError
from audit.log import Log
from audit.recovery import Cut
from audit.seals import Seals
from runners.errors import RunnerError

from .access.checks import check_access
from .masterkey import load_or_create_keyring
from .models import check_device, open_registry
from .notary_link import LINK_FILES, check_link
from .placement import check_cards
from .remote_ledger import RemoteLedger
from .settings import Settings, SettingsError, settings

__all__ = ["check", "settings_at_start"]

_FILES = ("api_keys", "jwt_jwks", "tls_cert", "tls_key", "tls_client_ca", *LINK_FILES)


def settings_at_start() -> Settings:
    """The settings, for a module that a start imports; ends the process as `check` does.

    The traceback of an import would bury it.
    """
    try:
        return settings()
    except SettingsError as exc:
        sys.stderr.write(f"weighbridge: not started: {exc}\n")
        raise SystemExit(1) from exc


def check(settings: Settings) -> None:
    """Try what the workers will need; end the process with status 1 and a sentence if it fails.

    BentoML starts the workers of a bento inside the bento's own folder; a relative home means the
    folder that the operator stands in, so it is made absolute here, for all of them; so are files.
    """
    os.environ["WEIGHBRIDGE_HOME"] = str(settings.home.absolute())
    os.environ["WEIGHBRIDGE_DEFINITIONS"] = str(settings.definitions.absolute())
    for name in _FILES:
        where = getattr(settings, name)
        if where and "://" not in where:
            os.environ[f"WEIGHBRIDGE_{name.upper()}"] = str(Path(where).absolute())
    try:
        check_access(settings, _http_host())
        registry = open_registry(settings)
        check_device(settings, registry)
        check_cards(settings, registry)
        _check_port(settings.host, settings.grpc_port)
        check_link(settings)
        recovered = None
        if settings.notary:
            _check_notary(settings)
        else:
            recovered = _check_log(settings)
    except (AuditError, RunnerError, OSError, ValueError) as exc:
        sys.stderr.write(f"weighbridge: not started: {exc}\n")
        raise SystemExit(1) from exc
    if recovered is not None:
        sys.stderr.write(f"weighbridge: recovered the log: cut a torn tail, {recovered}\n")


def _check_log(settings: Settings) -> Cut | None:
    """Open the log, which is recovering it, and close it; what was cut off its end.

    The keys of sealed parts are made, too, where there are none: on a disk that is full it is they,
    the largest files of a new log, that find no room.
    """
    keyring = load_or_create_keyring(settings)
    log = Log.open(settings.log_dir, keyring, origin=settings.origin)
    try:
        Seals(settings.log_dir, keyring, create=True)
    except OSError as exc:
        why = exc.strerror or type(exc).__name__
        raise OSError(
            f"could not make the keys of sealed parts in {settings.log_dir}: {why}"
        ) from exc
    finally:
        log.close()
    return log.recovered.cut


def _check_notary(settings: Settings) -> None:
    """Be lent the keys once; whoever waits for a notary that is not there yet waits here."""
    loop = asyncio.new_event_loop()  # of our own: what starts the workers has another
    try:
        ledger = loop.run_until_complete(_opened(settings))
        loop.run_until_complete(ledger.close())
    finally:
        loop.close()


async def _opened(settings: Settings) -> RemoteLedger:
    ledger = RemoteLedger(settings)
    await ledger.open()
    return ledger


def _http_host() -> str:
    """Where BentoML will listen: its command line wins, then its configuration (ours included)."""
    context = click.get_current_context(silent=True)
    given = context.params.get("host") if context is not None else None
    return str(given or BentoMLContainer.http.host.get())


def _check_port(host: str, port: int) -> None:
    """Raise OSError when another program listens on `port` (0 is always free)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise OSError(
                f"could not listen on {host}:{port} for gRPC: {exc.strerror}; stop the program "
                "that does, or set WEIGHBRIDGE_GRPC_PORT to a free port"
            ) from exc
