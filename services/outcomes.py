"""Outcomes: what became of a decision, reported later, recorded once.

Rule: an outcome is identified by its `event_id`; the same one again gets the same receipt and makes
no second record, a different one under the same id is refused. Late and out of order is fine.
The unit is stored as its keyed reference only.
Rule: one call after the other is looked up and recorded, and noted before its answer leaves; one
whose caller left goes on to its end, since a record that is on its way cannot be called back.
Rule: a call may bring thousands, and answers of models wait on the same event loop: after each
`_PIECE` outcomes others have their turn.
Read next: reported.py (what is on record).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from audit.keys import Keyring
from audit.record import Outcome, decimal, new_id, now_us

from .faults import BadRequest, Conflict
from .outcomebook import Named
from .recorder import Appender
from .reported import Reported

__all__ = ["Outcomes"]

_MAX_PER_CALL = 10_000
_PIECE = 64  # some milliseconds
_T = TypeVar("_T")
_FIELDS = {"event_id", "decision", "unit", "metric", "value", "observed_us"}
_MAX_TEXT = 256
_DECISION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Outcomes:
    """Takes outcomes, each once."""

    def __init__(self, appender: Appender, keyring: Keyring, reported: Reported) -> None:
        """`reported` knows those on record; it is closed with this."""
        self._appender = appender
        self._keyring = keyring
        self._reported = reported
        self._writing = asyncio.Lock()
        self._work: asyncio.Task[dict[str, Any]] | None = None  # the loop itself would forget it

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
        await self._writing.acquire()
        self._work = asyncio.create_task(self._record(events))
        return await asyncio.shield(self._work)

    def heard(self) -> None:
        """An outcome came to the log by another way than `report`."""
        self._reported.heard()

    async def close(self) -> None:
        """Wait for what is under way, then release what knows the outcomes on record."""
        async with self._writing:
            await self._reported.close()

    async def _record(self, events: Sequence[Outcome]) -> dict[str, Any]:
        """Look up and append, in the turn of `report`, which ends with this."""
        try:
            named = [self._reported.name(event) async for _, event in _in_turns(events)]
            found = await self._reported.find([name.key for name in named])
            contents = {key: stands.content for key, stands in found.items()}
            fresh: dict[bytes, tuple[Named, Outcome]] = {}
            async for place, name in _in_turns(named):
                if contents.setdefault(name.key, name.content) != name.content:
                    used = events[place].event_id
                    raise Conflict(f"event_id '{used}' was used before for another outcome")
                if name.key not in found:
                    fresh.setdefault(name.key, (name, events[place]))
            leaves = {key: stands.leaf for key, stands in found.items()}
            leaves |= await self._append_all(list(fresh.values()))
        finally:
            self._writing.release()
        return {
            "recorded": len(fresh),
            "repeated": len(events) - len(fresh),
            "leaves": [leaves[name.key] for name in named],
        }

    async def _append_all(self, fresh: Sequence[tuple[Named, Outcome]]) -> dict[bytes, int]:
        """Append all, and note all that are stored, whatever becomes of one; key to leaf.

        All are begun without waiting for any, so that many share a group.
        """
        begun = [asyncio.create_task(self._append(*one)) async for _, one in _in_turns(fresh)]
        done: list[tuple[bytes, int] | BaseException] = []
        for start in range(0, len(begun), _PIECE):
            piece = begun[start : start + _PIECE]
            done += await asyncio.gather(*piece, return_exceptions=True)
        for found in done:
            if isinstance(found, BaseException):
                self._reported.heard()  # it may be on record all the same
                raise found
        return dict(found for found in done if not isinstance(found, BaseException))

    async def _append(self, named: Named, event: Outcome) -> tuple[bytes, int]:
        receipt = await self._appender.append(event, durability="strict")
        self._reported.note(named, receipt.index)
        return named.key, receipt.index

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
