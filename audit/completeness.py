"""Whether every answer that was given is in the log: contiguous numbers, explained gaps.

Each gateway process numbers its answers 1, 2, 3, … A number is accounted for by the decision that
carries it, or by a `gap` event that says why an answer was refused. Anything else is missing: an
answer may have left without a record. The last `counters` event of a process says how many numbers
it handed out, so that missing ones after the last one on record show, too.
Rule: pure; fed with events in log order; memory is proportional to what is out of order.
Rule: what is recent is measured from the record that the log ends with (`LogEnd`): where a clock
was wrong for a while, the latest time may lie anywhere in the log.
Read next: verify.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class LogEnd(NamedTuple):
    """The end of a log that is being written, or was.

    Attributes:
        time_us: of its last record.
        in_flight_s: how long something may be on its way to a living log; 0 for a closed one.
    """

    time_us: int
    in_flight_s: float

    def near(self, time_us: int) -> bool:
        """Whether what belongs to a record of that time may still be on its way."""
        return abs(self.time_us - time_us) < self.in_flight_s * 1_000_000


class Missing(NamedTuple):
    """Numbers [first, last] of an instance that nothing accounts for."""

    instance: str
    first: int
    last: int
    next_time_us: int  # when the answer after them was recorded


@dataclass
class _Instance:
    done: int = 0  # every number up to here is accounted for
    ahead: dict[int, int] = field(default_factory=dict)  # number -> time
    gaps: dict[int, int] = field(default_factory=dict)  # first -> last
    claimed: tuple[int, int] = (0, 0)  # so many numbers were handed out, said when

    def advance(self) -> None:
        while True:
            following = self.done + 1
            if following in self.ahead:
                del self.ahead[following]
                self.done = following
            elif following in self.gaps:
                self.done = max(self.done, self.gaps.pop(following))
            else:
                return

    def missing(self, name: str) -> Iterator[Missing]:
        spans = sorted(
            [(seq, seq, time) for seq, time in self.ahead.items()]
            + [(first, last, 0) for first, last in self.gaps.items()]
        )
        reached = self.done
        for first, last, time in spans:
            if first > reached + 1:
                yield Missing(name, reached + 1, first - 1, time)
            reached = max(reached, last)
        if self.claimed[0] > reached:
            yield Missing(name, reached + 1, *self.claimed)


class Completeness:
    """Accounts for the numbers of every instance."""

    def __init__(self) -> None:
        self._instances: dict[str, _Instance] = {}
        self.decisions = 0
        self.refused = 0
        self.both: list[tuple[str, int]] = []

    def resume(self, instance: str, through: int, ahead: Iterable[tuple[int, int]]) -> None:
        """Begin with what was accounted for before the first event: of a pruned log."""
        state = self._instances.setdefault(instance, _Instance())
        state.done = max(state.done, through)
        state.gaps |= dict(ahead)
        state.advance()

    def state(self) -> dict[str, tuple[int, list[tuple[int, int]]]]:
        """For each instance up to where all is accounted for, and what beyond; see `resume`."""
        return {
            name: (state.done, sorted([(n, n) for n in state.ahead] + list(state.gaps.items())))
            for name, state in self._instances.items()
        }

    def decision(self, instance: str, seq: int, time_us: int) -> bool:
        """Account for a decision; False if its number was already taken by another one."""
        self.decisions += 1
        state = self._instances.setdefault(instance, _Instance())
        if seq == state.done + 1:
            state.done = seq
        elif seq in state.ahead or seq <= state.done:
            return False
        else:
            state.ahead[seq] = time_us
        if state.ahead or state.gaps:
            state.advance()
        return True

    def decisions_of(self, instance: str, numbers: Sequence[int]) -> bool:
        """Account for decisions whose numbers, in any order, follow those before without a hole.

        Returns:
            Whether they do; if not, nothing is accounted for, and `decision` takes each.
        """
        state = self._instances.setdefault(instance, _Instance())
        if state.ahead or state.gaps:
            return False
        first, count = state.done + 1, len(numbers)
        following = list(range(first, first + count))
        if numbers != following and sorted(numbers) != following:
            return False
        state.done += count
        self.decisions += count
        return True

    def gap(self, instance: str, first: int, last: int) -> None:
        """Account for numbers whose answers were refused."""
        self.refused += max(0, last - first + 1)
        state = self._instances.setdefault(instance, _Instance())
        if first <= state.done:
            # An append that failed may have been stored after all: recorded and refused.
            self.both.append((instance, first))
            first = state.done + 1
        if first <= last:
            state.gaps[first] = max(last, state.gaps.get(first, 0))
            state.advance()

    def claim(self, instance: str, seq: int, time_us: int) -> None:
        """Account for a count: the instance has handed out the numbers up to `seq`."""
        state = self._instances.setdefault(instance, _Instance())
        state.claimed = max(state.claimed, (seq, time_us))

    def missing(self) -> list[Missing]:
        """Every range of numbers that nothing accounts for."""
        return [m for name, state in self._instances.items() for m in state.missing(name)]

    def instances(self) -> dict[str, int]:
        """For each instance the highest number up to which all is accounted for."""
        return {name: state.done for name, state in self._instances.items()}
