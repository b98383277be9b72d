"""Overrides: a person replaced a model's answer; on record beside the decision, which stays.

Rule 1: the decision must be in the log, and be about one row; what it answered is taken from there,
never from the caller.
Rule 2: who did it is the authenticated principal, beside the name that was sent; and why is said.
Source: docs/protocol.md, "Overrides".
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Protocol

from audit.boundary import pruned_words
from audit.errors import EventInvalid, NotFound
from audit.index import Index
from audit.reader import LogReader
from audit.record import Decision, Override, new_id, now_us

from .access.caller import caller_name, recorded_actor
from .faults import BadRequest
from .recorder import Appender

__all__ = ["LocalReviews", "Overrides", "Reviews"]

_DECISION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FIELDS = {"decision", "label", "actor", "reason"}
_MAX_TEXT = 256


class Reviews(Protocol):
    """Records overrides: here (LocalReviews), or by a notary elsewhere (remote_ledger.py)."""

    async def override(
        self, decision: str, label: str, *, actor: str, reason: str
    ) -> dict[str, Any]:
        """Record it; the leaf, and the label before and after."""


class LocalReviews:
    """Records overrides in the log of this process."""

    def __init__(self, appender: Appender, log: Path) -> None:
        """`log` is where the decisions are looked up."""
        self._appender = appender
        self._log = log

    async def override(
        self, decision: str, label: str, *, actor: str, reason: str
    ) -> dict[str, Any]:
        """Put an override on record.

        Raises:
            NotFound: the log holds no such decision.
            EventInvalid: it is about several rows, or a text is empty or too long.
            LogUnavailable: the disk refused.
        """
        for name, text in (("label", label), ("actor", actor), ("reason", reason)):
            if not text.strip() or len(text) > 2 * _MAX_TEXT:
                raise EventInvalid(f"could not override: give the {name}, in words")
        event = await asyncio.to_thread(self._find, decision)
        if event.rows != 1:
            raise EventInvalid(f"could not override {decision}: it answered {event.rows} rows")
        receipt = await self._appender.append(
            Override(
                id=new_id(),
                time_us=now_us(),
                decision=decision,
                actor=actor,
                reason=reason,
                label_before=event.label,
                label_after=label,
            ),
            durability="strict",
        )
        return {"leaf": receipt.index, "label_before": event.label, "label_after": label}

    def _find(self, decision: str) -> Decision:
        with Index(self._log) as index:
            leaf = index.find(decision)
        event = None if leaf is None else LogReader(self._log).entry(leaf).event
        if not isinstance(event, Decision):
            pruned = pruned_words(self._log)
            raise NotFound(f"could not override {decision}: the log holds no such decision{pruned}")
        return event


class Overrides:
    """Reads `POST /v1/overrides` and answers it."""

    def __init__(self, reviews: Reviews) -> None:
        """`reviews` records them."""
        self._reviews = reviews

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Record `{"decision", "label", "reason"}`, with `actor` where nobody is authenticated.

        Raises:
            BadRequest: the body is not such a call.
            AuditError: as LocalReviews.override.
        """
        if set(body) - _FIELDS or not {"decision", "label", "reason"} <= set(body):
            raise BadRequest("send 'decision', 'label' and 'reason', and 'actor'")
        for name, value in body.items():
            if not (isinstance(value, str) and value.strip() and len(value) <= _MAX_TEXT):
                raise BadRequest(f"'{name}' must be a text of 1 to {_MAX_TEXT} characters")
        if not _DECISION.fullmatch(body["decision"]):
            raise BadRequest("'decision' must be an id that an answer came with")
        if "actor" not in body and caller_name() is None:
            raise BadRequest("say who overrides ('actor')")
        actor = recorded_actor(body.get("actor", ""))
        found = await self._reviews.override(
            body["decision"], body["label"], actor=actor, reason=body["reason"]
        )
        return {"decision": body["decision"], **found}
