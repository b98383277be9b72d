"""The explainer service: the only process that imports lime and scikit-learn.

Rule: it follows the log, explains what was selected, counts every decision for fairness, and writes
both through the notary's socket; it runs at low priority and is never on a caller's path, except
for `explain`, which answers one instance at once.
BentoML takes the project off `sys.path` after loading a service, so the heavy half (follower.py) is
imported when this service starts, with the path put back.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from .orphans import end_with_parent
from .placement import hide_cards
from .preflight import settings_at_start

__all__ = ["Explainer"]

_SETTINGS = settings_at_start()
_ROOT = str(Path(__file__).resolve().parents[1])
_NICE = 10


@bentoml.service(
    name="Explainer",
    workers=1,
    traffic={"timeout": 60},
    runner_connection={"max_requests": 10**9, "max_age": 1e9},
)
class Explainer:
    """Explains selected decisions and counts all of them."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Import the heavy half and begin to follow the log."""
        end_with_parent()
        os.nice(_NICE)
        hide_cards()
        if _ROOT not in sys.path:
            sys.path.insert(0, _ROOT)
        heavy = await asyncio.to_thread(importlib.import_module, "services.follower")
        self.follower = await heavy.open_follower(_SETTINGS)

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Finish the explanation at hand, then stop."""
        await self.follower.close()

    @bentoml.api
    async def explain(
        self, decision: str, model: str, version: str, unit_ref: str, packed: str
    ) -> dict[str, Any]:
        """Explain one decision now; `packed` is base64 of `runners.tensor.pack`."""
        found: dict[str, Any] = await self.follower.explain_now(
            decision, model, version, unit_ref, packed
        )
        return found
