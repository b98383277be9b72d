"""Outcomes: what became of a decision, reported later, recorded once.

Rule: an outcome is identified by its `event_id`; the same one again gets the same receipt and makes
no second record, a different one under the same id is refused. Late and out of order is fine.
The unit is stored as its keyed reference only.
Rule: a call may bring thousands, and answers of models wait on the same event loop: after each
`_PIECE` outcomes others have their turn.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from audit.keys import Keyring
from audit.record import Event, Outcome, decimal, new_id, now_us

from .faults import BadRequest, Conflict
from .recorder import Appender

__all__ = ["Outcomes"]

_MAX_PER_CALL = 10_000
_PIECE = 64  # some milliseconds
_T = TypeVar("_T")
_FIELDS = {"event_id", "decision", "unit", "metric", "value", "observed_us"}
_MAX_TEXT = 256
_DECISION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Seen(NamedTuple):
    content: tuple[str | None, str | None, str, str]
    leaf: int


class Outcomes:
    """The outcomes recorded so far, by event id."""

    def __init__(self, appender: Appender, keyring: Keyring) -> None:
        """Start empty; `remember` feeds what the log already holds."""
        self._appender = appender
        self._keyring = keyring
        self._seen: dict[str, _Seen] = {}
        self._writing = asyncio.Lock()

    def remember(self, entries: Iterable[tuple[int, Event]]) -> None:
        """Take in the outcomes of the log, at start."""
        for index, event in entries:
            if isinstance(event, Outcome):
                self._seen[event.event_id] = _Seen(_content(event), index)

    async def report(self, body: dict[str, Any]) -> dict[str, Any]:
        """Record `{"outcomes": [...]}`, or one outcome object.

        Returns:
            `{"recorded": n, "repeated": n, "leaves": [index, ...]}`.

        Raises:
            BadRequest: an outcome is not well-formed; then none of the call was recorded.
            Conflict: an event id was used before for something else.
            AuditError: the log refused; the call may be repeated.
        """
        listed = body.get("outcomes", [body])
        if not isinstance(listed, list) or not 1 <= len(listed) <= _MAX_PER_CALL:
            raise BadRequest(f"'outcomes' must be a list of 1 to {_MAX_PER_CALL} objects")
        events = [self._parse(item, place) async for place, item in _in_turns(listed)]
        async with self._writing:
            first: dict[str, Outcome] = {}
            async for _, event in _in_turns(events):
                self._refuse_conflict(event, first.setdefault(event.event_id, event))
            fresh = {event.event_id: event for event in events if event.event_id not in self._seen}
            await self._append_all(list(fresh.values()))
        return {
            "recorded": len(fresh),
            "repeated": len(events) - len(fresh),
            "leaves": [self._seen[event.event_id].leaf for event in events],
        }

    async def _append_all(self, events: Sequence[Outcome]) -> None:
        """Append all and learn of all, whatever becomes of one of them or of the caller.

        A record that is on its way cannot be called back: were it not remembered, the same outcome
        sent again would make a second one.
        """
        work = asyncio.create_task(self._begin_all(events))
        try:
            done = await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
            raise
        for found in done:
            if found is not None:
                raise found

    async def _begin_all(self, events: Sequence[Outcome]) -> list[BaseException | None]:
        """Begin all without waiting for any, so that many share a group; then wait."""
        begun = [asyncio.create_task(self._append(event)) async for _, event in _in_turns(events)]
        done: list[BaseException | None] = []
        for start in range(0, len(begun), _PIECE):
            piece = begun[start : start + _PIECE]
            done += await asyncio.gather(*piece, return_exceptions=True)
        return done

    async def _append(self, event: Outcome) -> None:
        receipt = await self._appender.append(event, durability="strict")
        self._seen[event.event_id] = _Seen(_content(event), receipt.index)

    def _refuse_conflict(self, event: Outcome, first: Outcome) -> None:
        seen = self._seen.get(event.event_id)
        before = seen.content if seen is not None else _content(first)
        if before != _content(event):
            raise Conflict(f"event_id '{event.event_id}' was used before for another outcome")

    def _parse(self, item: object, place: int) -> Outcome:
        where = f"outcome {place}"
        if not isinstance(item, dict) or set(item) - _FIELDS:
            raise BadRequest(f"{where} must be an object with fields of {sorted(_FIELDS)}")
        unit, decision = _word(item, "unit", where), _word(item, "decision", where)
        if decision and not _DECISION.fullmatch(decision):
            raise BadRequest(f"{where}: 'decision' must be an id that an answer came with")
        event_id, metric = _word(item, "event_id", where), _word(item, "metric", where)
        if not event_id or not metric or not (unit or decision):
            raise BadRequest(f"{where} needs 'event_id', 'metric', and 'decision' or 'unit'")
        value = item.get("value")
        if isinstance(value, bool):
            value = int(value)
        if not isinstance(value, int | float) or not abs(value) <= 1e15:
            raise BadRequest(f"{where}: 'value' must be a number")
        observed = item.get("observed_us", time.time_ns() // 1000)
        if type(observed) is not int or not 0 <= observed < 1 << 53:
            raise BadRequest(f"{where}: 'observed_us' must be Unix microseconds")
        return Outcome(
            id=new_id(),
            time_us=now_us(),
            decision=decision,
            unit_ref=self._keyring.unit_ref(unit) if unit else None,
            metric=metric,
            value=decimal(value),
            event_id=event_id,
            observed_us=observed,
        )


async def _in_turns(items: Sequence[_T]) -> AsyncIterator[tuple[int, _T]]:
    """As `enumerate`; others have their turn now and then."""
    for place, item in enumerate(items):
        if place and place % _PIECE == 0:
            await asyncio.sleep(0)
        yield place, item


def _word(item: dict[str, Any], name: str, where: str) -> str | None:
    value = item.get(name)
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= _MAX_TEXT):
        raise BadRequest(f"{where}: '{name}' must be a text of 1 to {_MAX_TEXT} characters")
    return value


def _content(event: Outcome) -> tuple[str | None, str | None, str, str]:
    return event.decision, event.unit_ref, event.metric, event.value
