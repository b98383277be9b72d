"""Whether every answer between two checkpoints is in the log: numbers, counters and leaves agree.

    1  the log verifies, and the later checkpoint extends the earlier one   (verify.py)
    2  of each gateway process every number is a decision's or a gap's, up to the highest one that
       a decision, a gap or its last `counters` record speaks of
    3  what the process counted is in the log: at each `counters` record at least as many decisions
       as it had recorded; recorded and refused are what was handed out; answered is no more than
       recorded, and traced no more than answered
    4  the process said at its end that nothing was on its way; else what came after its last
       number cannot be known, and that is said
    5  what the gateway's own metrics count (`weighbridge_records_total`), if given, is in the log;
       the last second of it may be in leaves that no checkpoint covers yet, and that is said
Rule: reads files only. Of a pruned log, counting goes on from what the `pruned` record states.
Where the log cannot be read to its end nothing is counted, a problem beside those of step 1.
Read next: leafcount.py (steps 2 to 5), services/tally.py (who counts).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .canonical import loads
from .cosignature import CosignerKey
from .errors import AuditError, DecodeError
from .findings import Findings, printable
from .leafcount import InstanceCount, LeafCount
from .note import VerifierKey
from .prunecheck import checked_anew
from .reader import LogReader
from .rotation import chain_of
from .verify import verify_log

__all__ = ["Completed", "InstanceCount", "check_complete"]


@dataclass(frozen=True, slots=True)
class Completed:
    """What was found.

    Attributes:
        findings: of `verify_log`.
        first, end: the leaves [first, end) between the checkpoints.
        records: how many of each type are there.
        instances: by name, in order of appearance.
        problems: what does not agree; empty if all does.
        notes: what cannot be known.
        counted: whether all leaves between the checkpoints were.
    """

    findings: Findings
    first: int
    end: int
    records: dict[str, int]
    instances: dict[str, InstanceCount]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    counted: bool = True

    @classmethod
    def uncounted(cls, findings: Findings, why: str) -> "Completed":
        """What is known where nothing could be counted."""
        problem = f"nothing was counted: {printable(why)}"
        return cls(findings, 0, 0, {}, {}, (problem,), (), counted=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return self.findings.ok and not self.problems

    def body(self) -> dict[str, Any]:
        """Everything, for programs: JSON types only."""
        instances = {
            name: asdict(one) | {"ended": one.ended} for name, one in self.instances.items()
        }
        return {
            "ok": self.ok,
            "origin": self.findings.origin,
            "steps": self.findings.steps,
            "failed": self.findings.failed,
            "counted": self.counted,
            "from_leaf": self.first,
            "to_leaf": self.end,
            "records": self.records,
            "instances": instances,
            "problems": [*map(str, self.findings.problems), *self.problems],
            "notes": [*self.findings.notes, *self.notes],
        }

    def text(self) -> str:
        """The same as plain text, after that of the findings."""
        lines = [self._between()] if self.counted else []
        for one in self.instances.values():
            ended = "ended in order" if one.ended else "did not say that it ended"
            lines.append(
                f"instance   {one.instance}: numbers {one.first} to {one.last}, {one.decisions} "
                f"recorded, {one.refused} refused, {ended}"
            )
        lines += [f"note       {note}" for note in self.notes]
        lines += [f"PROBLEM    {problem}" for problem in self.problems]
        verdict = "no answer is missing" if self.ok else "something is missing or contradicts"
        if not self.counted:
            verdict = "whether an answer is missing cannot be said"
        return "\n".join([*lines, f"complete   {verdict}", ""])

    def _between(self) -> str:
        if self.end <= self.first:
            return "between    no leaves"
        kinds = ", ".join(f"{n} {name}" for name, n in sorted(self.records.items()))
        count = self.end - self.first
        return f"between    leaves {self.first} to {self.end - 1}: {count} = {kinds}"


def check_complete(
    directory: Path,
    key: VerifierKey,
    *,
    since: str | None = None,
    metrics: Mapping[str, int] | None = None,
    in_flight_s: float = 0.0,
    witnesses: Sequence[CosignerKey] = (),
) -> Completed:
    """Check that no answer is missing between two checkpoints.

    Args:
        directory: the log's.
        key: its public key, any that it ever had.
        since: the earlier checkpoint, a signed note; from the beginning if None.
        metrics: what gateway processes say that they recorded, by instance.
        in_flight_s: as verify_log's.
        witnesses: as verify_log's.

    Returns:
        What was found; damage is reported, never raised.
    """

    def check() -> Completed:
        findings = verify_log(
            directory,
            key,
            earlier_checkpoint=since,
            in_flight_s=in_flight_s,
            witnesses=witnesses,
        )
        return _completed(directory, key, findings, since, metrics or {}, in_flight_s=in_flight_s)

    return checked_anew(directory, check)


def _completed(
    directory: Path,
    key: VerifierKey,
    findings: Findings,
    since: str | None,
    metrics: Mapping[str, int],
    *,
    in_flight_s: float,
) -> Completed:
    """Count, where the log can be read."""
    if not findings.read:
        return Completed.uncounted(findings, "the log cannot be read")
    try:
        signed, chain = LogReader(directory).checkpoint(), chain_of(directory, key)
        start = 0 if since is None else chain.open(since).size
        span = range(start, chain.open(signed).size)
        return _counted(directory, findings, span, metrics, in_flight_s=in_flight_s)
    except (AuditError, OSError) as exc:  # `findings` names the place
        return Completed.uncounted(findings, str(exc))


def _counted(
    directory: Path,
    findings: Findings,
    span: range,
    metrics: Mapping[str, int],
    *,
    in_flight_s: float,
) -> Completed:
    """Count the leaves of `span`, and what those before it say of their numbers."""
    reader, end = LogReader(directory), span.stop
    try:
        counting = LeafCount(directory, max(span.start, reader.first()))
        for leaf, data in reader.raw(None, end):
            body = loads(data)
            if not isinstance(body, dict):
                raise DecodeError(f"could not count leaf {leaf}: it is not an event")
            counting.entry(leaf, body)
    except (KeyError, TypeError, ValueError) as exc:
        raise DecodeError("could not count: the fields of a record are malformed") from exc
    counting.finish(in_flight_s, metrics, _unsigned(reader, end) if metrics else Counter())
    return Completed(
        findings,
        counting.start,
        end,
        dict(counting.records),
        counting.instances,
        tuple(counting.problems),
        tuple(counting.notes),
    )


def _unsigned(reader: LogReader, end: int) -> Counter[str]:
    """How many decisions of each instance lie behind the first `end` leaves."""
    bodies = (loads(data) for _, data in reader.raw(end, reader.size()))
    return Counter(
        str(body["instance"])
        for body in bodies
        if isinstance(body, dict) and body.get("type") == "decision"
    )
