"""Erasures and legal holds as the gateway's callers ask for them: `POST /v1/audit/…`.

Rule 1: the subject is named as a caller knows it (`unit`) or as records do (`unit_ref`); what is
refused is refused in words. The unit itself goes nowhere: not into the log, nor into a message.
Rule 2: who did it is the authenticated principal; the name that the caller sends stands beside it,
and is needed only where nobody is authenticated.
Source: docs/protocol.md, "Erasure and legal holds".
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Protocol

from audit.erasing import Erasing
from audit.keys import Keyring

from .access.caller import caller_name, recorded_actor
from .claims import checked_unit
from .faults import BadRequest, NotFound
from .scrubbing import scrub_reports

__all__ = ["Erasures", "LocalSubjects", "Subjects"]

_REF = re.compile(r"[0-9a-f]{32}")
_FIELDS = {"unit", "unit_ref", "actor", "reason"}
_MAX_TEXT = 256


class Subjects(Protocol):
    """Erases and holds: here (LocalSubjects), or by a notary elsewhere (remote_ledger.py)."""

    async def erase(self, unit_ref: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Erase a subject; what was done, as the fields of audit.erasing.Erased, and more."""

    async def hold(
        self, unit_ref: str, *, actor: str, reason: str, release: bool = False
    ) -> dict[str, Any]:
        """Hold a subject, or end a hold; what was done, as the fields of audit.erasing.Held."""


class LocalSubjects:
    """Erases and holds in the log of this process, and scrubs what was derived from it."""

    def __init__(self, erasing: Erasing, *, log: Path, reports: Path) -> None:
        """`log` and `reports` are the folders that are searched for derived data."""
        self._erasing = erasing
        self._log = log
        self._reports = reports

    async def erase(self, unit_ref: str, *, actor: str, reason: str) -> dict[str, Any]:
        """See Erasing.erase; `reports_removed` names the reports that spoke of the subject."""
        erased = await self._erasing.erase(unit_ref, actor=actor, reason=reason)
        removed = await asyncio.to_thread(scrub_reports, self._reports, self._log, unit_ref)
        return {**erased._asdict(), "reports_removed": removed}

    async def hold(
        self, unit_ref: str, *, actor: str, reason: str, release: bool = False
    ) -> dict[str, Any]:
        """See Erasing.hold."""
        held = await self._erasing.hold(unit_ref, actor=actor, reason=reason, release=release)
        return held._asdict()


class Erasures:
    """Reads such calls and answers them."""

    def __init__(self, subjects: Subjects, keyring: Keyring) -> None:
        """`keyring` turns a unit into the reference of its records."""
        self._subjects = subjects
        self._keyring = keyring

    async def answer(self, parts: list[str], body: dict[str, Any]) -> dict[str, Any]:
        """Answer `POST /v1/audit/PARTS`.

        Raises:
            BadRequest: the body is not such a call.
            NotFound: no such path, subject or hold.
            HoldStands: the subject must be kept.
            LogUnavailable: the disk refused.
        """
        if parts not in (["erasures"], ["holds"], ["holds", "release"]):
            raise NotFound("the path must be /v1/audit/erasures, /holds or /holds/release")
        unit_ref, actor, reason = self._parse(body)
        if parts != ["erasures"]:
            release = parts[-1] == "release"
            held = await self._subjects.hold(unit_ref, actor=actor, reason=reason, release=release)
            return {"unit_ref": unit_ref, **held}
        return {
            "unit_ref": unit_ref,
            **await self._subjects.erase(unit_ref, actor=actor, reason=reason),
        }

    def _parse(self, body: dict[str, Any]) -> tuple[str, str, str]:
        if set(body) - _FIELDS or ("unit" in body) == ("unit_ref" in body):
            raise BadRequest("send 'unit' or 'unit_ref', with 'actor' and 'reason'")
        for name, value in body.items():
            if name == "unit" and isinstance(value, str) and value:
                checked_unit(value)  # as calls may name it
            elif not (isinstance(value, str) and value.strip() and len(value) <= _MAX_TEXT):
                raise BadRequest(f"'{name}' must be a text of 1 to {_MAX_TEXT} characters")
        if "reason" not in body or ("actor" not in body and caller_name() is None):
            raise BadRequest("say who asks ('actor') and why ('reason')")
        actor = recorded_actor(body.get("actor", ""))
        if "unit" in body:
            return self._keyring.unit_ref(body["unit"]), actor, body["reason"]
        if not _REF.fullmatch(body["unit_ref"]):
            raise BadRequest("'unit_ref' must be 32 hex digits, as a record names the unit")
        return body["unit_ref"], actor, body["reason"]
