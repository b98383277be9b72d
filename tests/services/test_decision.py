"""What is said of a decision in the log: nothing personal, nothing missing, gaps explained."""

import asyncio
import hmac
import tempfile
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from audit.appending import EventAppender
from audit.completeness import Completeness
from audit.errors import EntryTooLarge, LogUnavailable
from audit.frames import scan
from audit.keys import Keyring
from audit.notary import Notary
from audit.record import Decision, Event, Gap, decode, encode
from audit.sample import Rules, Sampler
from audit.seals import Seals
from audit.testing import MemoryNotary
from runners.batch import Answer
from runners.tensor import Signature, Tensor, TensorSpec, pack
from services.dataplane import Request
from services.decision import Taken, prepare
from services.durability import parse_durability
from services.large import aside
from services.patience import Patience
from services.recorder import Recorder
from services.router import Choice
from services.telemetry import TraceIds

MANIFEST = SimpleNamespace(
    name="income",
    version="1",
    digest="sha256:00",
    labels=("<=50K", ">50K"),
    positive_label=">50K",
    threshold="0.5",
    protected={"sex": {"input": "sex", "bands": None}},
    signature=Signature((TensorSpec("sex", "BYTES", (-1, 1)),), ()),
    options={},
    label_output="label",
    score_output="probabilities",
)
SLOT = SimpleNamespace(manifest=MANIFEST, runtime="test", device="cpu")


def taken(rows: int = 1, *, unit: str = "alice", on_demand: bool = False) -> Taken:
    sexes = np.array([[b"Female"], [b"Male"]] * rows, dtype=object)[:rows]
    request = Request(
        model="income",
        version=None,
        inputs={"sex": Tensor("sex", "BYTES", sexes)},
        origin="http",
        trace=TraceIds(1, 2, 0, sampled=False, state=""),
        request_id="r",
        unit=unit,
        unit_source="header",
        on_demand=on_demand,
    )
    high = np.arange(rows) % 2 == 0
    outputs = {
        "probabilities": np.stack([np.where(high, 0.2, 0.9), np.where(high, 0.8, 0.1)], axis=1),
        "label": high.astype(np.int64).reshape(-1, 1),
    }
    choice = Choice("1", "no_experiment", None, None)
    answer = Answer(outputs, 0.001, 0.002)
    return Taken(request, choice, SLOT, {"sex": sexes}, answer, rows, request.started_ns)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.load_or_create(tmp_path / "keys")


@lru_cache
def folder_of(_: bytes) -> Path:
    return Path(tempfile.mkdtemp())


def seals_of(keyring: Keyring) -> Seals:
    """The seals beside a keyring, made at the first call."""
    return Seals(folder_of(keyring.master), keyring, create=True)


def secret_of(keyring: Keyring, event: Decision) -> dict[str, Any]:
    secret = seals_of(keyring).secret(event)
    assert secret is not None
    return secret


def recorder(appender: object, keyring: Keyring, base: float = 0.0) -> Recorder:
    sampler = Sampler(b"k" * 32, Rules(base=base, near_threshold=0, low_confidence=0))
    return Recorder(appender, keyring, seals_of(keyring), sampler)


async def one(writer: Recorder, given: Taken) -> Decision:
    """Record one decision, and read it back from its bytes."""
    written, _ = await writer.record(given)
    event = decode(written.data)
    assert isinstance(event, Decision)
    assert encode(event) == written.data
    assert (event.id, event.unit_ref) == (written.id, written.unit_ref)
    return event


async def test_a_record_commits_to_input_and_output_and_hides_both(keyring) -> None:
    notary = MemoryNotary()
    given = taken()
    event = await one(recorder(notary, keyring), given)
    assert notary.entries[0].event == event
    assert (event.label, event.label_counts, event.rows) == (">50K", {">50K": 1}, 1)
    assert event.score == "0.8"
    secret = secret_of(keyring, event)
    assert secret["groups"] == [[{"sex": "Female"}, ">50K", 1]]
    nonce = bytes.fromhex(secret["nonce"])
    assert event.input_commitment == hmac.digest(nonce, pack(given.batch), "sha256").hex()
    text = repr(event)
    assert "alice" not in text
    assert "Female" not in text


async def test_many_rows_are_counted_by_group_and_label(keyring) -> None:
    event = await one(recorder(MemoryNotary(), keyring), taken(101))
    assert event.label_counts == {">50K": 51, "<=50K": 50}
    assert (event.label, event.score) == (None, None)
    groups = secret_of(keyring, event)["groups"]
    assert sorted((g["sex"], label, n) for g, label, n in groups) == [
        ("Female", ">50K", 51),
        ("Male", "<=50K", 50),
    ]


async def test_each_record_says_what_its_model_was_promised_and_the_log_is_asked_for_it(keyring):
    asked = []

    class Watching(MemoryNotary):
        def submit(self, event_id, data, told, *, durability=None, **rest):
            asked.append(durability)
            super().submit(event_id, data, told, durability=durability, **rest)

    sampler = Sampler(b"k" * 32, Rules(base=0, near_threshold=0, low_confidence=0))
    policy = parse_durability("bounded,digits=strict")
    writer = Recorder(Watching(), keyring, seals_of(keyring), sampler, durability=policy)
    given = taken()
    others = replace(given, request=replace(given.request, model="digits"))
    events = [await one(writer, given), await one(writer, others)]
    assert [event.durability for event in events] == asked == ["bounded", "strict"]


async def test_what_was_prepared_in_a_thread_makes_the_same_record(keyring) -> None:
    given = taken(600)
    plain = await one(recorder(MemoryNotary(), keyring), given)
    prepared = replace(given, prepared=await aside(prepare, given))
    ahead = await one(recorder(MemoryNotary(), keyring), prepared)
    for event in (plain, ahead):
        assert (event.label_counts, event.rows) == ({">50K": 300, "<=50K": 300}, 600)
        nonce = bytes.fromhex(secret_of(keyring, event)["nonce"])
        for found, arrays in (
            (event.input_commitment, given.batch),
            (event.output_commitment, given.answer.outputs),
        ):
            assert found == hmac.digest(nonce, pack(arrays), "sha256").hex()
    assert secret_of(keyring, plain)["groups"] == secret_of(keyring, ahead)["groups"]


@pytest.mark.parametrize(
    ("base", "on_demand", "kept"), [(0, False, 0), (1, False, 2), (0, True, 2)]
)
async def test_payloads_are_kept_for_selected_decisions_only(
    keyring, base, on_demand, kept
) -> None:
    seen: list[int] = []

    class Watching(MemoryNotary):
        def submit(self, event_id, data, told, *, payloads=(), **rest):
            seen.append(len(payloads))
            super().submit(event_id, data, told, payloads=payloads, **rest)

    event = await one(recorder(Watching(), keyring, base), taken(on_demand=on_demand))
    assert event.sampling["selected"] == bool(kept)
    assert seen == [kept]


class Failing(EventAppender):
    """Fails the appends whose turn is in `bad`; keeps the rest. Tells either in a later turn."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.turn = 0
        self.kept: list[Event] = []
        self.inner = MemoryNotary()

    def submit(self, event_id, data, told, *, payloads=(), durability=None, once=False):
        later = partial(asyncio.get_running_loop().call_soon, told)
        self.turn += 1
        if self.turn in self.bad:
            later(None, LogUnavailable("full"))
            return
        self.kept.append(decode(data))
        self.inner.submit(event_id, data, later)


async def test_numbers_of_refused_answers_are_explained_before_the_next_answer(keyring) -> None:
    log = Failing({2, 3, 5})
    writer = recorder(log, keyring)
    results = []
    for _ in range(6):
        try:
            results.append((await one(writer, taken())).seq)
        except LogUnavailable:
            results.append(None)
    assert results[0] == 1
    whole = Completeness()
    for event in log.kept:
        if isinstance(event, Decision):
            whole.decision(event.instance, event.seq, event.time_us)
        elif isinstance(event, Gap):
            whole.gap(event.instance, event.first_seq, event.last_seq)
    assert list(whole.missing()) == []
    numbers = [event.seq for event in log.kept if isinstance(event, Decision)]
    assert numbers == sorted(set(numbers))


async def test_a_hundred_concurrent_records_with_faults_leave_no_hole(keyring) -> None:
    rng = np.random.default_rng(3)
    log = Failing(set(rng.integers(1, 150, 40).tolist()))
    writer = recorder(log, keyring)
    await asyncio.gather(*(writer.record(taken()) for _ in range(100)), return_exceptions=True)
    log.bad = set()
    await writer.close()
    whole = Completeness()
    for event in log.kept:
        if isinstance(event, Decision):
            whole.decision(event.instance, event.seq, event.time_us)
        elif isinstance(event, Gap):
            whole.gap(event.instance, event.first_seq, event.last_seq)
    assert list(whole.missing()) == []


class Waiting(MemoryNotary):
    """Stores, or refuses what is in `bad`, when `gate` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.bad: set[int] = set()
        self.came = asyncio.Semaphore(0)
        self.waiting: set[asyncio.Task[None]] = set()

    def submit(self, event_id, data, told, **rest):
        self.came.release()
        task = asyncio.create_task(self._enter(event_id, data, told, rest))
        self.waiting.add(task)
        task.add_done_callback(self.waiting.discard)

    async def _enter(self, event_id, data, told, rest):
        await self.gate.wait()
        event = decode(data)
        if isinstance(event, Decision) and event.seq in self.bad:
            told(None, LogUnavailable("full"))
        else:
            super().submit(event_id, data, told, **rest)


@pytest.mark.parametrize("refused", [set(), {2}, {2, 3}])
async def test_a_caller_who_leaves_while_the_record_is_written_leaves_no_hole(
    keyring, refused
) -> None:
    log = Waiting()
    log.bad = refused
    writer = recorder(log, keyring)
    calls = [asyncio.create_task(writer.record(taken())) for _ in range(4)]
    for _ in calls:
        await log.came.acquire()
    for gone in calls[1:3]:
        gone.cancel()
    await asyncio.sleep(0)
    log.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    await writer.close()
    whole = Completeness()
    for entry in log.entries:
        event = entry.event
        if isinstance(event, Decision):
            whole.decision(event.instance, event.seq, event.time_us)
        elif isinstance(event, Gap):
            whole.gap(event.instance, event.first_seq, event.last_seq)
    assert list(whole.missing()) == []
    assert writer.recorded == 4 - len(refused)


async def test_a_disk_that_hangs_costs_the_answers_and_what_it_stores_later_counts(keyring) -> None:
    log = Waiting()
    sampler = Sampler(b"k" * 32, Rules(base=0, near_threshold=0, low_confidence=0))
    patience = Patience(0.05)
    writer = Recorder(log, keyring, seals_of(keyring), sampler, patience=patience)
    refused = await asyncio.gather(
        *(writer.record(taken()) for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in refused] == [LogUnavailable] * 3
    assert "within 0.05 s" in str(refused[0])
    assert (writer.under_way, writer.recorded) == (3, 0)
    log.gate.set()
    assert (await one(writer, taken())).seq == 4
    await writer.close()
    assert (writer.under_way, writer.recorded) == (0, 4)
    assert [entry.event.seq for entry in log.entries] == [1, 2, 3, 4]


async def test_a_caller_who_leaves_before_the_record_is_written_takes_no_number(keyring) -> None:
    log = MemoryNotary()
    writer = recorder(log, keyring)
    calls = [asyncio.create_task(writer.record(taken())) for _ in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await writer.close()
    assert [entry.event.seq for entry in log.entries] == [1, 2]
    assert writer.recorded == 2


async def test_an_answer_that_cannot_be_recorded_fails_without_its_peers(keyring) -> None:
    log = MemoryNotary()
    writer = recorder(log, keyring)
    good, bad = taken(), taken()
    huge = replace(bad, slot=SimpleNamespace(manifest=MANIFEST, runtime="x" * 70_000, device="cpu"))
    given = [good, huge, good, huge]
    found = await asyncio.gather(*(writer.record(t) for t in given), return_exceptions=True)
    assert [isinstance(f, EntryTooLarge) for f in found] == [False, True, False, True]
    await one(writer, good)
    whole = Completeness()
    for entry in log.entries:
        event = entry.event
        if isinstance(event, Decision):
            whole.decision(event.instance, event.seq, event.time_us)
        else:
            whole.gap(event.instance, event.first_seq, event.last_seq)
    assert list(whole.missing()) == []
    assert writer.recorded == 3


async def test_answers_of_one_turn_reach_the_log_together(tmp_path, keyring) -> None:
    notary = await Notary.open(tmp_path / "log", keyring, origin="example.com/together")
    writer = recorder(notary, keyring)
    await one(writer, taken())
    found = await asyncio.gather(*(writer.record(taken(unit=f"u{n}")) for n in range(20)))
    assert [receipt.index for _, receipt in found] == list(range(1, 21))
    assert len({record.unit_ref for record, _ in found}) == 20
    await notary.close()
    with (tmp_path / "log/wal/00000000000000000000.wal").open("rb") as file:
        assert [frame.leaf_count for frame in scan(file, first=0)] == [1, 20]


async def test_a_caller_who_leaves_while_gaps_are_explained_loses_none(keyring) -> None:
    log = Waiting()
    log.gate.set()
    log.bad = {1}
    writer = recorder(log, keyring)
    with pytest.raises(LogUnavailable):
        await writer.record(taken())
    log.gate.clear()
    call = asyncio.create_task(writer.record(taken()))
    for _ in range(2):  # the refused record, and its gap
        await log.came.acquire()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    log.gate.set()
    await writer.close()
    gaps = [e.event for e in log.entries if isinstance(e.event, Gap)]
    assert {(gap.first_seq, gap.last_seq) for gap in gaps} == {(1, 1)}


REGISTERED = SimpleNamespace(
    **vars(MANIFEST)
    | {"options": {"label_output": "class", "score_output": "p"}}
    | {"label_output": "class", "score_output": "p", "protected": {}}
)


@pytest.mark.parametrize(
    ("answered", "label"),
    [
        (np.array([1]), ">50K"),
        (np.array([[0]]), "<=50K"),
        (np.array([b">50K"], dtype=object), ">50K"),
        (np.array([2]), None),
        (np.array([-1]), None),
        (np.array([0.5]), None),
        (np.array([b"other"], dtype=object), None),
        (np.zeros((0,)), None),
        (np.array(1), ">50K"),
    ],
)
async def test_a_registered_model_may_answer_any_label(keyring, answered, label) -> None:
    base = taken()
    outputs = {"class": answered, "p": np.array([0.5, 0.5])}
    slot = SimpleNamespace(manifest=REGISTERED, runtime="test", device="cpu")
    answer = Answer(outputs, 0.0, 0.0)
    event = await one(recorder(MemoryNotary(), keyring), replace(base, slot=slot, answer=answer))
    assert event.label == label
    assert event.label_counts == ({} if label is None else {label: 1})
    assert event.score is None, "its scores are no table of rows and labels"
