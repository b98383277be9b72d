"""What the link refuses, so that no client can put into the log what would break it for others."""

import asyncio
import json
from dataclasses import replace

import pytest

from audit import link_stream
from audit.canonical import dumps
from audit.errors import EntryTooLarge, EventConflict, EventInvalid
from audit.nodeids import NodeIds
from audit.notary import Notary
from audit.record import encode
from audit.socket_link import NotaryClient, serve
from audit.testing import check_log
from audit.verify import verify_log
from audit.wire import APPEND, HEAD, STORED, AppendRequest, format_append
from tests.audit.worlds import ORIGIN, START_US, decision, make_keyring, uuid


class Link:
    """A notary behind its socket, and a client that sends any bytes as an event."""

    async def open(self, folder, **options):
        self.ring = make_keyring(folder / "keys")
        self.log = folder / "log"
        self.notary = await Notary.open(self.log, self.ring, origin=ORIGIN)
        self.server = await serve(self.notary, folder / "n.sock", **options)
        self.client = NotaryClient(folder / "n.sock", timeout_s=20)
        return self

    async def append(self, data, payloads=None, subject=""):
        """The refusal, or None where it was stored."""
        answered = asyncio.get_running_loop().create_future()
        body = format_append(AppendRequest(None, data, subject, payloads or {}))
        told = lambda *answer: answered.set_result(answer)  # noqa: E731
        self.client._send(APPEND, body, told, 20.0)
        answer, error = await answered
        assert answer is None or answer.kind == STORED
        return error

    async def close(self):
        await self.client.close()
        await self.server.close()
        await self.notary.close()


@pytest.fixture
async def link(tmp_path):
    found = await Link().open(tmp_path)
    yield found
    await found.close()


def event(kind, **values):
    return dumps({"id": uuid(77), "time_us": START_US, "schema": 1, "type": kind} | values)


def changed(**values):
    return dumps(json.loads(encode(decision(1))) | values)


REGISTERED = {"version": "1", "digest": "d", "device": None, "runtime": None}
PROMOTED = {"version": "1", "digest": "d", "previous_version": None, "actor": "a", "reason": "r"}
OUTCOME = {"decision": None, "unit_ref": None, "metric": "m", "value": "1", "observed_us": 1}
COUNTERS = dict.fromkeys(("seq", "recorded", "refused", "answered", "traced"), 1) | {"final": True}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (event("model_registered", model=[], manifest_evaluation={}, **REGISTERED), "model"),
        (event("outcome", event_id=[], **OUTCOME), "event_id"),
        (event("model_promoted", model=5, **PROMOTED), "model"),
        (event("counters", instance={}, **COUNTERS), "instance"),
        (event("counters", instance="a", **COUNTERS | {"final": 1}), "final"),
        (changed(seq="one"), "seq"),
        (changed(seq=-5), "seq"),
        (changed(seq=True), "seq"),
        (changed(instance=["x"]), "instance"),
        (changed(unit_ref=7), "unit_ref"),
        (changed(label_counts=[]), "label_counts"),
        (changed(schema=True), "not the canonical bytes"),
        (changed(time_us="1"), "time_us"),
        (changed(time_us=-START_US), "time_us is below 0"),
        (event("gap", instance="a", reason="r", first_seq=1, last_seq=1 << 52), "last_seq"),
        (event("gap", instance="a", reason="r", first_seq=2, last_seq=1), "last_seq"),
    ],
)
async def test_values_of_a_wrong_type_are_refused_by_name(link, data, said):
    refused = await link.append(data)
    assert isinstance(refused, EventInvalid)
    assert said in str(refused)
    assert (await link.client.append(decision(2))).index == 0


async def test_a_record_without_one_of_its_fields_is_refused(link):
    body = json.loads(encode(decision(1)))
    del body["slot"]  # has a default
    assert isinstance(await link.append(dumps(body)), EventInvalid)
    assert link.notary.size == 0


async def test_records_of_tomorrow_are_stored_as_they_are(link):
    tomorrow = changed(type="of tomorrow", schema=99, seq="one", id=uuid(2))
    assert await link.append(tomorrow) is None
    assert await link.append(event("of tomorrow", model=[])) is None
    assert await link.append(changed(label="ä")) is None  # a decision that is not told by its form
    await link.notary.checkpoint()
    assert check_log(link.log, link.ring.verifier_key(ORIGIN)).leaves == 3
    assert verify_log(link.log, link.ring.verifier_key(ORIGIN)).problems == ()


async def test_nobody_stores_a_second_record_under_the_id_of_an_own_decision(link):
    ids = NodeIds()
    link.notary.own(ids.made)
    own = replace(decision(1), id=ids.new())
    stored = asyncio.get_running_loop().create_future()
    link.notary.submit(own.id, encode(own), lambda *told: stored.set_result(told), once=True)
    assert (await stored)[1] is None
    for data in (encode(own), changed(id=own.id, seq=9), event("of tomorrow", id=own.id)):
        refused = await link.append(data)
        assert isinstance(refused, EventConflict), data
        assert "the notary's process gave this id" in str(refused)
    assert await link.append(changed(id=NodeIds().new(), seq=2)) is None
    await link.notary.checkpoint()
    assert link.notary.size == 2
    assert verify_log(link.log, link.ring.verifier_key(ORIGIN)).problems == ()


@pytest.mark.parametrize(
    "data",
    [
        changed(schema=99),
        changed(schema=3, model=[]),
        event("decision", schema=99),
        event("erasure", schema=2),
        event("gap", schema=0, instance="0000000a"),
    ],
)
async def test_an_unknown_schema_of_a_known_type_is_refused(link, data):
    refused = await link.append(data)
    assert isinstance(refused, EventInvalid)
    assert "unknown here; update the notary first" in str(refused)
    assert link.notary.size == 0


async def test_whoever_takes_note_of_records_may_fail_and_costs_nobody_an_answer(link, caplog):
    def fails(event):
        raise TypeError(event.label)

    link.server.on_stored = fails
    asked = [link.append(encode(decision(n, label="sëcret"))) for n in range(1, 4)]
    assert await asyncio.gather(*asked) == [None] * 3
    assert (await link.client.append(decision(4))).index == 3
    assert "could not take note of leaf 0, a decision: TypeError" in caplog.text
    assert "sëcret" not in caplog.text


@pytest.mark.parametrize("label", [">50K", "ä"])
async def test_an_empty_id_is_refused(link, label):
    for _ in range(2):
        refused = await link.append(changed(id="", label=label))
        assert isinstance(refused, EventInvalid)
        assert "id is empty" in str(refused)
    assert link.notary.size == 0


@pytest.mark.parametrize("depth", [300, 970, 980, 1000, 1020, 20_000])
async def test_what_is_nested_too_deeply_is_refused_and_nobody_hung_up_on(link, depth, caplog):
    nested = b"[" * depth + b"]" * depth
    flat = event(
        "assignment_config", definition={"a": 0}, epoch=1, experiment="e", experiment_version="v",
        model="m", reason="r",
    )  # fmt: skip
    await link.client.append(decision(1))
    stream = link.client._stream
    assert isinstance(
        await link.append(flat.replace(b'{"a":0}', b'{"a":%s}' % nested)), EventInvalid
    )
    assert await link.append(flat) is None
    assert link.client._stream is stream
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("do", ["hold", "release", "erase"])
@pytest.mark.parametrize("unit_ref", ["", "short", "AB" * 16, "é" * 16, "ab" * 17, 7, None])
async def test_a_deed_needs_a_reference_as_records_have_them(tmp_path, do, unit_ref):
    link, asked = Link(), []

    async def handler(given):
        asked.append(given)
        return {}

    await link.open(tmp_path, handlers={do: handler})
    with pytest.raises(EventInvalid, match="32 hex digits"):
        await link.client.ask(do, unit_ref=unit_ref, actor="a", reason="r")
    assert asked == []
    await link.client.ask(do, unit_ref="ab" * 16, actor="a", reason="r")
    assert len(asked) == 1
    await link.close()


async def test_a_payload_beyond_the_limit_is_refused(link, monkeypatch):
    monkeypatch.setattr("audit.blobfile.MAX_PAYLOAD_BYTES", 1000)
    refused = await link.append(encode(decision(1)), {"input": bytes(1001)})
    assert isinstance(refused, EntryTooLarge)
    assert await link.append(encode(decision(1)), {"input": bytes(1000)}) is None
    assert link.notary.size == 1


@pytest.mark.parametrize(
    ("payloads", "subject", "said"),
    [
        ({f"p{n}": b"" for n in range(17)}, "", "with 17 payloads: at most 16"),
        ({"": b""}, "", "its name must be"),
        ({"n" * 65: b""}, "", "its name must be"),
        ({"../secret": b""}, "", "its name must be"),
        ({"sëcret": b""}, "", "its name must be"),
        ({"input": b""}, "secret" * 43, "at most 256 characters"),
    ],
)
async def test_payloads_are_few_and_their_names_are_words(link, payloads, subject, said):
    refused = await link.append(encode(decision(1)), payloads, subject)
    assert isinstance(refused, EventInvalid)
    assert said in str(refused)
    assert "cret" not in str(refused)
    assert link.notary.size == 0
    most = {f"{'n' * 62}{n:02}": b"body" for n in range(16)}
    assert await link.append(encode(decision(1)), most, "s" * 256) is None


async def test_frames_that_are_only_begun_cost_a_bounded_memory(link, tmp_path, monkeypatch):
    monkeypatch.setattr(link_stream, "ALL_BYTES", 4 << 20)
    begun = HEAD.pack(90 << 20, 1, APPEND) + bytes(2 << 20)
    ends = [await asyncio.open_unix_connection(tmp_path / "n.sock") for _ in range(8)]
    for _, writer in ends:
        writer.write(begun)
    async with asyncio.timeout(60):
        while link.server._begun.total < 1 << 20:  # noqa: ASYNC110  they are on their way
            await asyncio.sleep(0.01)
        while len(link.server.connections) > 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert link.server._begun.total <= 4 << 20
    assert await link.append(encode(decision(1))) is None  # others are served all the while
    for _, writer in ends:
        writer.close()
    while link.server._begun.total:  # noqa: ASYNC110  who hangs up gives back what he held
        await asyncio.sleep(0.01)
