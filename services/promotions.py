"""Which version has the traffic of a model; on record when that changes.

Rule 1: the leading version of a model is the one that more than half of its units are assigned to;
without an experiment it is the newest that answers. Where no version has more than half, the last
leading one stays it.
Rule 2: when another version comes to lead, a `model_promoted` says so if it is newer, and a
`model_rolled_back` if it is older; who did it and why stand in it. It is durable before the change
takes effect, where the change is an experiment's definition.
Rule 3: what the log says last is what led before, also after a restart and for several gateways.
Boundary: the log is reached through the callables that are handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from audit.record import Event, ModelPromoted, ModelRolledBack, new_id, now_us
from experiments.plan import Snapshot
from runners.fleet import Fleet

from .access.caller import recorded_actor
from .router import newest_ready

__all__ = ["Promotions"]

_OWN = {"start", "file changed"}


class Promotions:
    """Notices changes of the leading versions of one gateway."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        leading: Callable[[], Awaitable[dict[str, str]]],
        record: Callable[[Event], Awaitable[object]],
    ) -> None:
        """`leading`: what led each model, as the log says; `record` appends an event."""
        self._fleet = fleet
        self._leading = leading
        self._record = record

    async def moving(self, snapshot: Snapshot, reason: str) -> None:
        """Record what changes when `snapshot` takes effect, or has changed in the fleet.

        Raises:
            AuditError: the log refused.
        """
        before = await self._leading()
        for model in self._fleet.names():
            version, previous = self._leader(model, snapshot), before.get(model)
            if version is None or version == previous:
                continue
            await self._record(self._event(model, version, previous, reason))

    def _leader(self, model: str, snapshot: Snapshot) -> str | None:
        definition = snapshot.get(model)
        if definition is not None:
            shares: Counter[str] = Counter()
            for arm in definition.arms:
                shares[arm.version] += float(arm.propensity)  # type: ignore[assignment]
            version, share = shares.most_common(1)[0]
            return version if share > 0.5 else None
        held = self._fleet.versions(model)
        version = newest_ready(self._fleet, model, held)
        return version if self._fleet.slot(model, version).state == "READY" else None

    def _event(self, model: str, version: str, previous: str | None, reason: str) -> Event:
        held = self._fleet.versions(model)
        back = previous in held and held.index(version) < held.index(previous)
        kind = ModelRolledBack if back else ModelPromoted
        return kind(
            id=new_id(),
            time_us=now_us(),
            model=model,
            version=version,
            digest=self._fleet.slot(model, version).manifest.digest,
            previous_version=previous,
            actor="weighbridge" if reason in _OWN else recorded_actor(""),
            reason=reason,
        )
