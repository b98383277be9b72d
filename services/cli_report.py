"""`weighbridge report` and `demo`: a period in one page, and all of it on held-out data.

Rule: heavy packages are imported by the command that needs them; who asked for a report is on
record first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .accessed import Actor, Reason, check_outside, record_access
from .settings import settings

__all__ = ["demo", "report"]

console = Console()


def report(
    *,
    since: Annotated[str, typer.Option("--from", help="first moment, ISO 8601, UTC")] = "",
    until: Annotated[str, typer.Option("--to", help="last moment, ISO 8601, UTC")] = "",
    out: Annotated[Path | None, typer.Option(help="folder for report.html and .json")] = None,
    examples: Annotated[int, typer.Option(min=0, help="worked explanations per model")] = 2,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Write the audit report of a period as one HTML file and one JSON file."""
    from .reporting import write_report  # noqa: PLC0415  matplotlib is slow to import

    if out is not None:
        check_outside(out)
    chosen = settings()
    if chosen.log_dir.is_dir():
        period = f"from {since or 'the beginning'} to {until or 'now'}, {examples} examples"
        record_access(
            chosen, chosen.log_dir, action="report", target=period, actor=actor, reason=reason
        )
    written = write_report(chosen, since=since, until=until, out=out, examples=examples)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


def demo(
    rows: Annotated[int, typer.Option(help="held-out rows of each data set")] = 400,
) -> None:
    """Replay held-out data through a running server, then report and verify."""
    from .demo import run  # noqa: PLC0415  needs the extra `dev`

    raise typer.Exit(run(settings(), rows=rows, console=console))
