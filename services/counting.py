"""Fairness windows over the log: every decision is counted once, in the order of the leaves.

Rule 1: groups come from the sealed part of the record, so that the count can be made again from the
log by whoever holds the key.
Rule 2: a model's next window starts behind the last one that the log holds, also after a restart;
a window is written when it is `window_s` old, and at the end.
Rule 3: a group of few people is not named: a window stands in the log for ever (fairness.py).
Boundary: no IO; clocks are arguments. A window's age is by the monotonic one: the wall clock may be
set back while it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from audit.fairness import SMALLEST, Window
from audit.record import Decision, FairnessWindow, new_id
from audit.seals import Seals
from audit.shapes import flaw

__all__ = ["Counting"]


class Counting:
    """The open windows, one per model."""

    def __init__(
        self,
        seals: Seals,
        *,
        minimum: int,
        window_s: float,
        positive: Callable[[str, str], str | None],
    ) -> None:
        """`positive(model, version)` gives the label that counts as selected, or None."""
        self._seals = seals
        self._minimum = minimum
        self._window_s = window_s
        self._positive = positive
        self._counted: dict[str, int] = {}
        self._open: dict[str, Window] = {}
        self._opened_s: dict[str, float] = {}

    def counted(self) -> dict[str, int]:
        """Up to which leaf closed windows cover each model."""
        return dict(self._counted)

    def restore(self, counted: Mapping[str, int]) -> None:
        """Take up what `counted` said; before any `resume`."""
        self._counted = dict(counted)

    def first_open(self) -> int | None:
        """The first leaf that an open window counts; None without one."""
        found = (window.first_leaf for window in self._open.values())
        return min((leaf for leaf in found if leaf is not None), default=None)

    def resume(self, window: FairnessWindow) -> None:
        """Take note of a window that the log already holds; before any `take`.

        One that is malformed is passed over: it was stored before that was looked at.
        """
        if flaw(window) is not None:
            return
        before = self._counted.get(window.model, 0)
        self._counted[window.model] = max(before, window.to_leaf)

    def take(self, leaf: int, event: Decision, now_s: float) -> None:
        """Count one decision, unless a window covers it or its model declares no groups.

        Raises:
            PayloadDamaged: its sealed part cannot be read; it is not counted.
        """
        if leaf < self._counted.get(event.model, 0) or event.sealed is None:
            return
        secret = self._seals.secret(event)
        groups = secret["groups"] if secret is not None else []  # erased: counted before, or never
        positive = self._positive(event.model, event.version) if groups else None
        if positive is None:
            return
        window = self._open.get(event.model)
        if window is None:
            window = self._open[event.model] = Window(
                event.model, positive, self._minimum, smallest=SMALLEST
            )
            self._opened_s[event.model] = now_s
        window.add(
            arm=event.arm_served,
            version=event.version,
            groups=groups,
            leaf=leaf,
            time_us=event.time_us,
            unit=event.unit_ref,
        )

    def due(self, now_s: float, *, time_us: int, final: bool) -> list[FairnessWindow]:
        """The records of every window that is old enough, or of all; they are closed by this.

        Args:
            now_s: monotonic seconds, as `take` was given.
            time_us: of the records.
            final: all of them.
        """
        ripe = [
            model
            for model, opened in self._opened_s.items()
            if final or now_s - opened >= self._window_s
        ]
        records = []
        for model in ripe:
            window = self._open.pop(model)
            del self._opened_s[model]
            self._counted[model] = window.last_leaf + 1
            records += [
                FairnessWindow(id=new_id(), time_us=time_us, **fields)
                for fields in window.records()
            ]
        return records
