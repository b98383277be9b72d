"""One decision made again: the kept input, the exact artefact, and what came out.

Rule 1: the artefact is found by the digest in the record, under whatever version it is held; one
that is not there is a refusal, never a replacement.
Rule 2: the kept input and output are first checked against the record's commitments: a payload that
was changed cannot pass for a model that did.
Rule 3: the request is inferred alone, as it came, all its rows together. It may have shared a batch
with others when it was answered; where that changes bits, the manifest's tolerance is the measure.
Rule 4: files that are damaged or missing are the fate of the decisions that need them, not of the
others: each is told with its reason.
Boundary: opens files and models; no command line. The registry and the log are only read.
"""

from __future__ import annotations

import hmac
from functools import cached_property
from typing import Literal, NamedTuple

from audit.errors import LogDamaged, PayloadDamaged
from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision
from audit.replay import Verdict, compare
from audit.sealfiles import roots_path
from audit.seals import Seals
from runners.errors import RunnerError
from runners.fleet import Fleet
from runners.manifest import Manifest
from runners.model import Model
from runners.tensor import unpack

__all__ = ["Replayed", "Replayer"]

Outcome = (
    Verdict
    | Literal["payload changed", "nothing kept", "artefact missing", "not reproducible", "failed"]
    | Literal["not replayable"]
)
_REPLAYED = ("equal", "within tolerance", "differs")
_AS_IT_SHOULD = ("equal", "within tolerance", "nothing kept", "not reproducible")


class Replayed(NamedTuple):
    """What became of one decision.

    Attributes:
        decision, model, version, digest: which.
        outcome: a verdict, or why there is none.
        detail: in words.
        largest: the largest absolute difference, where there is one.
        recorded_on, replayed_on: device and runtime, then and now.
    """

    decision: str
    model: str
    version: str
    digest: str
    outcome: Outcome
    detail: str
    largest: float | None
    recorded_on: str
    replayed_on: str

    @property
    def replayed(self) -> bool:
        """Whether the model ran."""
        return self.outcome in _REPLAYED

    @property
    def wrong(self) -> bool:
        """Whether evidence and model disagree, or something of them is damaged or missing.

        What was erased is gone rightly, and a remote model was never here.
        """
        return self.outcome not in _AS_IT_SHOULD


class Replayer:
    """Makes decisions of one log again."""

    def __init__(self, reader: LogReader, keyring: Keyring, fleet: Fleet) -> None:
        """`fleet` is empty; it brings the registry and knows how to open a model."""
        self._reader = reader
        self._keyring = keyring
        self._fleet = fleet
        self._models: dict[str, tuple[Manifest, Model] | None] = {}

    def replay(self, event: Decision) -> Replayed:
        """Make one decision again, or say why that cannot be done."""
        try:
            return self._replay(event)
        except PayloadDamaged:
            return _told(event, "payload changed", "what was kept does not decrypt")
        except LogDamaged as exc:
            roots = roots_path(self._reader.directory)
            why = str(exc)
            if not roots.exists():
                why = f"{roots}, the keys of the sealed parts, is missing: restore the backup"
            return _told(event, "not replayable", why)

    @cached_property
    def _seals(self) -> Seals:
        return Seals(self._reader.directory, self._keyring)

    def _replay(self, event: Decision) -> Replayed:
        kept_in = self._reader.payload(self._keyring, event.id, "input")
        kept_out = self._reader.payload(self._keyring, event.id, "output")
        if kept_in is None or kept_out is None:
            return _told(event, "nothing kept", "not kept, or the subject was erased")
        if not self._committed(event, kept_in, kept_out):
            return _told(event, "payload changed", "they are not what the record commits to")
        try:
            held = self._held(event)
        except RunnerError as exc:
            return _told(event, "failed", f"the artefact does not open: {type(exc).__name__}")
        if held is None:
            return _told(event, "artefact missing", f"the registry has no artefact {event.digest}")
        manifest, model = held
        if manifest.backend == "remote":
            return _told(event, "not reproducible", "a remote model: its artefact is elsewhere")
        try:
            again = model.infer(unpack(kept_in))
        except RunnerError as exc:
            return _told(event, "failed", f"the model refused: {type(exc).__name__}")
        found = compare(unpack(kept_out), again, tolerance=_tolerance(manifest, model.device))
        detail = f"{found.where}: {found.why}" if found.where else found.why
        return _told(event, found.verdict, detail, found.largest, f"{model.device} {model.runtime}")

    def _committed(self, event: Decision, kept_in: bytes, kept_out: bytes) -> bool:
        try:
            secret = self._seals.secret(event)
            nonce = bytes.fromhex(str((secret or {})["nonce"]))
        except (PayloadDamaged, KeyError, ValueError):
            return False
        pairs = ((kept_in, event.input_commitment), (kept_out, event.output_commitment))
        return all(hmac.new(nonce, data, "sha256").hexdigest() == said for data, said in pairs)

    def _held(self, event: Decision) -> tuple[Manifest, Model] | None:
        if event.digest not in self._models:
            self._models[event.digest] = self._open(event)
        return self._models[event.digest]

    def _open(self, event: Decision) -> tuple[Manifest, Model] | None:
        registry, damaged = self._fleet.registry, None
        for version in registry.versions(event.model):
            try:
                if registry.manifest(event.model, version).digest == event.digest:
                    artefact = registry.open(event.model, version)
                    model = self._fleet.open_model(artefact)
                    model.warm_up()
                    return artefact.manifest, model
            except RunnerError as exc:  # perhaps not this one, or another holds the same
                damaged = damaged or exc
        if damaged is not None:
            raise damaged
        return None


def _tolerance(manifest: Manifest, device: str) -> float | None:
    """The manifest's tolerance for a device, such as the option `tolerance_cuda`: "0.00001"."""
    said = manifest.options.get(f"tolerance_{device.partition(':')[0]}")
    return float(said) if said else None


def _told(
    event: Decision,
    outcome: Outcome,
    detail: str,
    largest: float | None = None,
    replayed_on: str = "",
) -> Replayed:
    return Replayed(
        decision=event.id,
        model=event.model,
        version=event.version,
        digest=event.digest,
        outcome=outcome,
        detail=detail,
        largest=largest,
        recorded_on=f"{event.device} {event.runtime}",
        replayed_on=replayed_on,
    )
