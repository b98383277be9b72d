"""What a gateway keeps in mind of the log's records about models.

Which artefact was put on record for each model and version, and which version led each model last.
Rule: the newest record counts. One that a pruning carried over is as old as the leaf it was.
Boundary: pure; an event to a fact.
Read next: outcomebook.py (where facts outlast a process), ledger.py (who asks).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from audit.reader import Entry
from audit.record import Carried, Event, ModelPromoted, ModelRegistered, ModelRolledBack

__all__ = ["ARTEFACT", "LEADING", "Fact", "fact_of", "since"]

ARTEFACT: Final = "artefact"
LEADING: Final = "leading"


class Fact(NamedTuple):
    """One thing that an event says.

    Attributes:
        kind: ARTEFACT or LEADING.
        model: its name.
        version: that an artefact is of; empty where a version is the value.
        value: `DIGEST DEVICE`, or the version that leads.
    """

    kind: str
    model: str
    version: str
    value: str


def fact_of(event: Event) -> Fact | None:
    """What an event says of a model; None if that is nothing."""
    if isinstance(event, ModelRegistered):
        return Fact(ARTEFACT, event.model, event.version, f"{event.digest} {event.device}")
    if isinstance(event, ModelPromoted | ModelRolledBack):
        return Fact(LEADING, event.model, "", event.version)
    return None


def since(entry: Entry) -> int:
    """From which leaf on holds what an entry says: its own, or the one that it repeats."""
    event = entry.event
    return min(event.was_leaf, entry.index) if isinstance(event, Carried) else entry.index
