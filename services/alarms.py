"""Alarms over the log: what somebody should look at, on record as an `alert`, once.

Rule 1: a sample-ratio mismatch: the units of an experiment's epoch did not split as promised
(anytime-valid, so looking after each unit is fair; experiments/srm.py is the same test at once).
Rule 2: a fairness window in which a group's selection rate is below four fifths of the best.
Rule 3: an alarm is raised when it begins and again only after it ended; what the log already says
is not said again after a restart.
Source: Lindon and Malek 2022 (the ratio of Dirichlet normalisers, one unit at a time).
Boundary: no IO; takes events, gives events.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from audit.record import (
    Alert,
    AssignmentConfig,
    Decision,
    FairnessWindow,
    decimal,
    decode,
    encode,
    new_id,
)
from audit.shapes import flaw
from experiments.srm import ALPHA, CONCENTRATION

__all__ = ["FAIRNESS", "MISMATCH", "Alarms"]

MISMATCH, FAIRNESS = "sample_ratio_mismatch", "below_four_fifths"
_MAX_UNITS = 1_000_000
_UNIT = 8


class _Split:
    """The split of one epoch of one definition, unit by unit."""

    def __init__(self, event: AssignmentConfig) -> None:
        self.config = event
        widths: Counter[str] = Counter()
        for part in _list(event.definition.get("ranges")):
            try:
                widths[str(part["arm"])] += max(int(part["last"]) - int(part["first"]) + 1, 0)
            except (KeyError, TypeError, ValueError) as exc:
                raise ValueError("could not watch a split: its ranges are malformed") from exc
        total = widths.total() or 1
        self.shares = {arm: width / total for arm, width in widths.items()}
        self.counts: Counter[str] = Counter()
        self._units: set[bytes] = set()
        self._log_e = self.highest = 0.0

    def take(self, unit_ref: str, arm: str) -> None:
        unit = hashlib.blake2b(unit_ref.encode(), digest_size=_UNIT).digest()
        share = self.shares.get(arm)
        if not share or unit in self._units or len(self._units) >= _MAX_UNITS:
            return
        self._units.add(unit)
        seen = CONCENTRATION + self.counts.total()
        self._log_e += math.log((CONCENTRATION * share + self.counts[arm]) / seen / share)
        self.highest = max(self.highest, self._log_e)
        self.counts[arm] += 1

    def state(self) -> dict[str, Any]:
        """What `restore` takes; JSON."""
        return {
            "config": encode(self.config).decode(),
            "counts": dict(self.counts),
            "units": base64.b64encode(b"".join(self._units)).decode(),
            "log_e": self._log_e,
            "highest": self.highest,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> _Split:
        """The inverse of `state`.

        Raises:
            TypeError: it is none.
        """
        config = decode(state["config"].encode())
        if not isinstance(config, AssignmentConfig):
            raise TypeError("could not restore a split: it names no definition")
        split, units = cls(config), base64.b64decode(state["units"])
        split.counts.update(state["counts"])
        split._units = {units[at : at + _UNIT] for at in range(0, len(units), _UNIT)}
        split._log_e, split.highest = state["log_e"], state["highest"]
        return split

    @property
    def mismatched(self) -> bool:
        return math.exp(-self.highest) <= ALPHA


class Alarms:
    """Watches one log. Feed it every event in order; `take` and `window` may give an alert."""

    def __init__(self) -> None:
        self._splits: dict[str, _Split] = {}
        self._raised: set[tuple[str, ...]] = set()

    def state(self) -> dict[str, Any]:
        """What was made of all events so far, for `restore`; JSON."""
        splits = {version: split.state() for version, split in self._splits.items()}
        return {"raised": sorted(self._raised), "splits": splits}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave; before anything else."""
        self._raised = {tuple(key) for key in state["raised"]}
        self._splits = {version: _Split.restore(one) for version, one in state["splits"].items()}

    def resume(self, event: Alert | FairnessWindow) -> None:
        """Take note of what the log already holds, in order; before any `take`.

        What is malformed is passed over: it was stored before that was looked at.
        """
        if flaw(event) is not None:
            return
        if isinstance(event, FairnessWindow):
            for group in event.groups:
                if group["verdict"] == "ok":
                    self._raised.discard(_cell(event.model, _group(event, group)))
            return
        details = event.details
        if event.name == MISMATCH:
            self._raised.add((MISMATCH, str(details.get("experiment_version"))))
        elif event.name == FAIRNESS:
            self._raised.add(_cell(event.model or "", details))

    def take(self, event: Decision | AssignmentConfig, now_us: int) -> Alert | None:
        """Take in a definition or a decision; an alert if a split has just become impossible.

        Raises:
            ValueError: the definition has no ranges that could be split by.
        """
        if isinstance(event, AssignmentConfig):
            if event.experiment_version not in self._splits:
                self._splits[event.experiment_version] = _Split(event)
            return None
        split = self._splits.get(event.experiment_version or "")
        if split is None or event.arm_assigned is None:
            return None
        key = (MISMATCH, event.experiment_version or "")
        if key in self._raised:
            return None
        split.take(event.unit_ref, event.arm_assigned)
        if not split.mismatched:
            return None
        self._raised.add(key)
        config, counts = split.config, split.counts
        shares = {arm: decimal(round(share, 6)) for arm, share in split.shares.items()}
        return Alert(
            id=new_id(),
            time_us=now_us,
            name=MISMATCH,
            severity="critical",
            message=f"the units of experiment '{config.experiment}' do not split as promised",
            model=config.model,
            details={
                "experiment": config.experiment,
                "experiment_version": config.experiment_version,
                "epoch": config.epoch,
                "units": dict(counts),
                "shares": dict(shares),
                "p_value": decimal(math.exp(-split.highest)),
                "alpha": decimal(ALPHA),
            },
        )

    def window(self, event: FairnessWindow, now_us: int) -> list[Alert]:
        """The alerts of a fairness window: one for each group that has just fallen below."""
        alerts = []
        for group in event.groups:
            details = _group(event, group)
            key = _cell(event.model, details)
            if group["verdict"] == "ok":
                self._raised.discard(key)
            if group["verdict"] != "below_four_fifths" or key in self._raised:
                continue
            self._raised.add(key)
            alerts.append(
                Alert(
                    id=new_id(),
                    time_us=now_us,
                    name=FAIRNESS,
                    severity="warn",
                    message=f"'{group['group']}' is selected at less than four fifths of the rate "
                    f"of '{event.reference_group}'",
                    model=event.model,
                    details=details
                    | {
                        "impact_ratio": group["impact_ratio"],
                        "reference_group": event.reference_group,
                        "n": group["n"],
                        "window": event.id,
                        "from_leaf": event.from_leaf,
                        "to_leaf": event.to_leaf,
                    },
                )
            )
        return alerts


def _cell(model: str, details: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("arm", "version", "attribute", "group")
    return (FAIRNESS, model, *(str(details.get(name)) for name in names))


def _group(event: FairnessWindow, group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "arm": event.arm,
        "version": event.version,
        "attribute": event.attribute,
        "group": group["group"],
    }


def _list(value: object) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else []
