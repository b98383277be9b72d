"""Decisions of a real model made again: what share of them comes out bit by bit the same.

A gateway serves the income model under load from many callers at once, so that requests share
batches, and keeps every payload. Then each decision in its log is replayed alone, with the artefact
that its record names.
Rule: what could not be replayed counts as not equal.
Read next: services/replaying.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision
from services.models import open_fleet
from services.replaying import Replayer
from services.settings import Settings

from .figures import Figures
from .servers import ROOT, Started, gateway, home_of

__all__ = ["measure"]

_CALLERS = 32


def measure(found: Figures, models: Path, *, decisions: int) -> None:
    """`replay_equal`."""
    with home_of(models) as home:
        settings = {"WEIGHBRIDGE_PAYLOADS": "all", "WEIGHBRIDGE_EXPLAINER": "false"}
        with gateway(home, **settings) as server:
            asyncio.run(_decide(server, decisions))
        counts = _replay(home)
    total = counts.total()
    said = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
    found.note("replay_equal", round(counts["equal"] / total, 5), f"of {total:,}: {said}")


async def _decide(server: Started, decisions: int) -> None:
    """Ask for so many decisions, each about somebody else."""
    example = json.loads((ROOT / "services" / "example.json").read_text())
    url = f"http://127.0.0.1:{server.port}/v2/models/income/infer"
    numbers = iter(range(decisions))

    async def caller(client: httpx.AsyncClient) -> None:
        for number in numbers:
            body = {"inputs": [_varied(tensor, number) for tensor in example["inputs"]]}
            reply = await client.post(url, json=body, headers={"x-weighbridge-unit": f"u{number}"})
            if reply.status_code != 200:
                raise SystemExit(f"a request failed: {reply.text}")

    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*[caller(client) for _ in range(_CALLERS)])


def _varied(tensor: dict[str, Any], number: int) -> dict[str, Any]:
    """The example's tensor with another age, and other hours a week."""
    if tensor["name"] == "age":
        return tensor | {"data": [17 + number % 70]}
    if tensor["name"] == "hours_per_week":
        return tensor | {"data": [1 + number // 70 % 90]}
    return tensor


def _replay(home: Path) -> Counter[str]:
    changed = {"WEIGHBRIDGE_HOME": str(home), "BENTOML_HOME": str(home / "bentoml")}
    with mock.patch.dict(os.environ, changed):
        chosen = Settings()
        keyring = Keyring.load(chosen.keys_dir, signing=False)
        reader = LogReader(chosen.log_dir)
        replayer = Replayer(reader, keyring, open_fleet(chosen))
    events = [entry.event for entry in reader.entries()]
    made = [replayer.replay(event) for event in events if isinstance(event, Decision)]
    return Counter(one.outcome for one in made)
