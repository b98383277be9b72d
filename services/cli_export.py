"""`weighbridge audit export`: an evidence pack of a time range, for a reviewer elsewhere.

Rule: reads the log and public keys, and nothing that is secret where `--key` is given; the file
appears whole or not at all. While a gateway writes, numbers and signatures that are on their way
are waited for, for a few seconds.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from audit.cosignature import CosignerKey
from audit.errors import NotFound, NotYetCheckpointed
from audit.note import VerifierKey
from audit.pack import write_pack
from audit.pack_range import Chosen, Wanted, choose
from audit.reader import LogReader
from audit.rotation import chain_of
from audit.writerlock import has_writer

from .accessed import (
    Actor,
    Force,
    LogFolder,
    LogKey,
    Reason,
    check_output,
    open_reader,
    record_access,
    trusted_key,
)
from .cli_edge import read_text
from .moments import moment_us
from .settings import settings
from .witnesses import parse_witnesses

__all__ = ["export"]

console = Console()
_WAIT_S = 5.0
_POLL_S = 0.25


def export(  # noqa: PLR0917  typer reads a command's options from its parameters
    since: Annotated[str, typer.Option("--from", help="first moment, ISO 8601, UTC")] = "",
    until: Annotated[str, typer.Option("--to", help="last moment, excluded; now if left out")] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="the archive to write")] = Path(
        "evidence.zip"
    ),
    earlier: Annotated[
        Path | None,
        typer.Option("--since-checkpoint", help="a checkpoint that the reviewer kept"),
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="public key of a witness; beside the settings' own")
    ] = None,
    log: LogFolder = None,
    public_key: LogKey = None,
    force: Force = False,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Write an evidence pack: the records of a time, with all that proves them, in one archive."""
    chosen = settings()
    reader = open_reader(log)
    check_output(out, force=force)
    now_us = round(datetime.now(UTC).timestamp() * 1_000_000)
    wanted = Wanted(
        from_us=moment_us(since, default=0),
        to_us=moment_us(until, default=now_us),
        log_key=VerifierKey.parse(trusted_key(public_key)),
        witness_keys=[
            *(found.key for found in parse_witnesses(chosen.witnesses)),
            *map(CosignerKey.parse, witness or ()),
        ],
        since=None if earlier is None else read_text(earlier),
    )
    target = f"{since or 'the beginning'} to {until or 'now'}"
    record_access(
        chosen, reader.directory, action="export", target=target, actor=actor, reason=reason
    )
    leaves = _settled(reader, wanted)
    _write(out, reader, wanted, leaves)
    if leaves.pruned:
        console.print(
            f"the log was pruned before leaf {reader.first()}: what is older is not in it",
            soft_wrap=True,
        )
    if leaves.missing:
        console.print(
            f"{leaves.missing} numbers are missing in it, and no gap explains them; the verifier "
            "will say so",
            soft_wrap=True,
        )


def _write(out: Path, reader: LogReader, wanted: Wanted, leaves: Chosen) -> None:
    """Write the archive whole or not at all, and say how it is checked."""
    # A name of its own: two exports at once would write into one another's.
    number, name = tempfile.mkstemp(dir=out.parent, prefix=f"{out.name}.")
    unfinished = Path(name)
    try:
        with open(number, "wb") as file:  # noqa: PTH123  a descriptor
            tree = write_pack(reader, wanted, leaves, file)
        unfinished.chmod(0o644)
        unfinished.replace(out.resolve())
    finally:
        unfinished.unlink(missing_ok=True)
    console.print(
        f"wrote {out}: records {leaves.first} to {leaves.end - 1}, proved against a checkpoint of "
        f"{tree.size}; check it with: weighbridge-verify {out} --key '{wanted.log_key}'",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def _signed(reader: LogReader, wanted: Wanted) -> int:
    return chain_of(reader.directory, wanted.log_key).open(reader.checkpoint()).size


def _settled(reader: LogReader, wanted: Wanted) -> Chosen:
    """The leaves to export; waits for what a living writer has stored and not signed yet."""
    deadline, stored = time.monotonic() + _WAIT_S, reader.size()
    while True:
        late = time.monotonic() > deadline or not has_writer(reader.directory)
        if not late and _signed(reader, wanted) < stored:
            time.sleep(_POLL_S)
            continue
        try:
            leaves = choose(reader, wanted)
            if late or not leaves.missing:
                return leaves
        except (NotYetCheckpointed, NotFound):
            if late:
                raise
        time.sleep(_POLL_S)
