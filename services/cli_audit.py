"""`weighbridge audit verify`, `key`, `show`, `prove` and `check`: from files alone.

Rule: these commands work while a server writes and after it has gone. They change nothing, but what
they show of the live log is put on record first (accessed.py). `verify` needs the public key only,
which `audit key` prints. Searching and SQL are in cli_query.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from audit.boundary import pruned_words
from audit.canonical import is_canonical
from audit.complete import check_complete
from audit.errors import NotFound, ProofError
from audit.index import Index
from audit.note import VerifierKey
from audit.prove import prove as make_proof
from audit.prove import verify_proof
from audit.reader import LogReader
from audit.record import as_mapping
from audit.verify import verify_log
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
from .cli_complete import findings_body, print_json, read_metrics
from .cli_edge import for_programs, read_text
from .masterkey import load_keyring
from .settings import settings
from .witnesses import parse_witnesses

__all__ = ["check", "key", "prove", "show", "verify"]

console = Console()
_IN_FLIGHT_S = 30.0

Decision = Annotated[str, typer.Argument(help="the decision id of a reply")]


def _leaf(reader: LogReader, decision: str) -> int:
    with Index(reader.directory) as index:
        leaf = index.find(decision)
    if leaf is None:
        raise NotFound(f"the log holds no decision {decision}{pruned_words(reader.directory)}")
    return leaf


def key() -> None:
    """Print the public key that reviewers verify with."""
    chosen = settings()
    console.print(
        str(load_keyring(chosen).verifier_key(chosen.origin)), soft_wrap=True, markup=False
    )


def show(
    decision: Decision,
    log: LogFolder = None,
    raw: Annotated[bool, typer.Option("--raw", help="the exact bytes that are hashed")] = False,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Print the record of a decision, as it stands in the log."""
    reader = open_reader(log)
    leaf = _leaf(reader, decision)
    record_access(
        settings(), reader.directory, action="show", target=decision, actor=actor, reason=reason
    )
    if raw:
        sys.stdout.buffer.write(reader.entry(leaf).data)
        return
    for_programs()
    found = {"leaf": leaf} | dict(as_mapping(reader.entry(leaf).event))
    console.print_json(orjson.dumps(found).decode())


def prove(
    decision: Decision,
    *,
    log: LogFolder = None,
    out: Annotated[Path | None, typer.Option(help="write the proof to a file")] = None,
    force: Force = False,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Print a proof (C2SP tlog-proof) that a decision is in the log, with its signed checkpoint."""
    if out is not None:
        check_output(out, force=force)
    reader = open_reader(log)
    text = make_proof(reader, _leaf(reader, decision))
    record_access(
        settings(), reader.directory, action="prove", target=decision, actor=actor, reason=reason
    )
    if out is None:
        for_programs()  # its signature lines begin with a dash that ASCII lacks
        console.print(text, soft_wrap=True, markup=False, highlight=False, end="")
    else:
        out.write_text(text, encoding="utf-8")
        console.print(f"wrote {out}", soft_wrap=True)


def check(
    proof: Annotated[Path, typer.Argument(help="a file that `audit prove --out` wrote")],
    record: Annotated[Path, typer.Argument(help="a file with what `audit show --raw` printed")],
    public_key: Annotated[
        str, typer.Option("--key", help="what `audit key` had printed by the time of the proof")
    ],
) -> None:
    """Check that a record is in the log, from a proof and the public key alone."""
    data = record.read_bytes()
    try:
        found = verify_proof(read_text(proof), data, trusted_key(public_key))
    except ProofError as exc:
        if is_canonical(data):
            raise
        how = f"{record} does not hold a record's exact bytes, which `audit show --raw` prints"
        raise ProofError(f"{exc}; {how}") from exc
    console.print(
        f"the record is leaf {found.index} of {found.checkpoint.origin}, under a signed checkpoint "
        f"of {found.checkpoint.size} leaves",
        soft_wrap=True,
    )


def verify(
    *,
    log: LogFolder = None,
    public_key: LogKey = None,
    earlier: Annotated[
        Path | None, typer.Option(help="a checkpoint kept from before: the log must extend it")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="also prove that no answer is missing, or name it")
    ] = False,
    since: Annotated[
        Path | None, typer.Option(help="a checkpoint: only what came after it is counted")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="a saved /metrics page of the gateway, to compare with")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check every byte of the log: frames, tree, signatures, consistency and completeness."""
    if (since or metrics) and not complete:
        raise ValueError("--since and --metrics belong to --complete")
    if since and earlier:
        raise ValueError("give --since or --earlier: the log must extend either")
    chosen, reader = settings(), open_reader(log)
    trusted = trusted_key(public_key)
    # A living gateway has answers under way whose numbers are not on disk yet.
    in_flight_s = _IN_FLIGHT_S if has_writer(reader.directory) else 0.0
    witnesses = [address.key for address in parse_witnesses(chosen.witnesses)]
    if complete:
        counted = check_complete(
            reader.directory,
            VerifierKey.parse(trusted),
            since=read_text(since) if since else None,
            metrics=read_metrics(metrics),
            in_flight_s=in_flight_s,
            witnesses=witnesses,
        )
        if as_json:
            print_json(counted.body())
        else:
            console.print(
                counted.findings.text() + counted.text(),
                soft_wrap=True,
                markup=False,
                highlight=False,
            )
        raise typer.Exit(0 if counted.ok else 1)
    found = verify_log(
        reader.directory,
        trusted,
        earlier_checkpoint=read_text(earlier) if earlier else None,
        in_flight_s=in_flight_s,
        witnesses=witnesses,
    )
    if as_json:
        print_json(findings_body(found))
    else:
        console.print(found.text(), soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(0 if found.ok else 1)
