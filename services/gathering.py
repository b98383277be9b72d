"""Calls that arrive one by one, and go on together when others are known to be on their way.

grpc.aio accepts one call at a time, so that the calls of many clients would run one after another,
each as a batch of one and with a reply of its own. Who waits for the others shares all of that.
Rule 1: a call waits only for calls that are expected: as many as were there at once a moment ago.
The calls of a client that is alone are never held.
Rule 2: waiting ends when all of them are here, when none came between two looks (about two
milliseconds), or after `_LOOKS` looks. Who is still being answered then is expected no more, so
that a slow call does not delay the quick ones beside it.
Boundary: asyncio, one loop; a call is any object of its own.
"""

from __future__ import annotations

import asyncio

__all__ = ["Gathering"]

_LOOK_S = 0.001
_LOOKS = 5


class Gathering:
    """The calls of one server; a call is there from `arrive` until `leave`."""

    def __init__(self) -> None:
        """Nobody is there."""
        self._there: set[object] = set()
        self._expected = 1
        self._waiting: dict[object, asyncio.Future[None]] = {}
        self._seen = self._looks = 0

    async def arrive(self, call: object) -> None:
        """Come in; returns when the calls that are here may go on. `leave` must follow."""
        self._there.add(call)
        self._expected = max(self._expected, len(self._there))
        if self._expected == 1:
            return
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._seen = self._looks = 0
            loop.call_later(_LOOK_S, self._look, self._waiting)
        turn = self._waiting[call] = loop.create_future()
        if len(self._waiting) >= self._expected:
            self._go()
        await turn

    def leave(self, call: object) -> None:
        """It was answered, or given up; more than once does no harm."""
        self._there.discard(call)
        self._waiting.pop(call, None)

    def _look(self, waiting: dict[object, asyncio.Future[None]]) -> None:
        """Go on waiting only while calls keep coming.

        Between two looks the loop has read what its sockets held, however busy it was.
        """
        if waiting is not self._waiting:
            return  # they went on without it
        self._looks += 1
        if len(waiting) > self._seen and self._looks < _LOOKS:
            self._seen = len(waiting)
            asyncio.get_running_loop().call_later(_LOOK_S, self._look, waiting)
        else:
            self._there = set(waiting)
            self._expected = max(1, len(waiting))
            self._go()

    def _go(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for turn in waiting.values():
            if not turn.done():
                turn.set_result(None)
