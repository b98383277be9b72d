"""Completeness between checkpoints: what is missing is named, and counters that lie are found."""

import shutil

import orjson
import pytest

from audit.complete import check_complete
from audit.events import Counters, Gap
from audit.log import Record
from audit.note import Signer
from audit.reader import LogReader
from audit.record import encode
from audit.verify import verify_log
from services.cli_complete import read_metrics
from tests.audit.pruneworld import living
from tests.audit.test_pruning import old_and_new
from tests.audit.worlds import ORIGIN, START_US, decision, make_keyring, open_log, uuid

NAME = "0000000a"


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


def counters(seq, recorded, refused=0, *, answered=None, traced=0, final=False):
    return Counters(
        id=uuid((1 << 40) + seq * 2 + final),
        time_us=START_US + seq * 1000,
        instance=NAME,
        seq=seq,
        recorded=recorded,
        refused=refused,
        answered=recorded if answered is None else answered,
        traced=traced,
        final=final,
    )


def gap(first, last):
    return Gap(
        id=uuid((1 << 41) + first),
        time_us=START_US,
        instance=NAME,
        first_seq=first,
        last_seq=last,
        reason="refused",
    )


def logged(tmp_path, ring, *parts):
    """The checkpoints after each part."""
    log = open_log(tmp_path, ring)
    notes = []
    for part in parts:
        log.append([Record(encode(event)) for event in part])
        log.publish()
        notes.append(LogReader(tmp_path / "log").checkpoint())
    log.close()
    return notes


def found(tmp_path, ring, **options):
    return check_complete(tmp_path / "log", ring.verifier_key(ORIGIN), **options)


def decisions(*seqs):
    return [decision(seq) for seq in seqs]


def test_all_numbers_between_two_checkpoints_are_accounted_for(tmp_path, ring) -> None:
    first, *_ = logged(
        tmp_path,
        ring,
        [*decisions(1, 2, 3, 5)],
        [*decisions(4, 6), gap(7, 8), *decisions(9), counters(9, 7, 2, traced=7)],
        [*decisions(10), counters(10, 8, 2, answered=7, final=True)],
    )
    whole = found(tmp_path, ring)
    assert whole.ok, whole.text()
    assert whole.instances[NAME].ended
    assert (whole.first, whole.end) == (0, 11)
    assert whole.records == {"decision": 8, "gap": 1, "counters": 2}
    later = found(tmp_path, ring, since=first)
    assert later.ok, later.text()
    one = later.instances[NAME]
    assert (later.first, one.decisions, one.refused, one.first, one.last) == (4, 4, 2, 4, 10)
    assert "no answer is missing" in later.text()
    assert later.body()["instances"][NAME]["counted"]["final"] is True
    assert found(tmp_path, ring, metrics={NAME: 8}).ok
    assert not found(tmp_path, ring, metrics={NAME: 9}).ok


def test_what_no_checkpoint_covers_yet_is_not_called_missing(tmp_path, ring) -> None:
    log = open_log(tmp_path, ring)
    log.append([Record(encode(event)) for event in decisions(1, 2, 3)])
    log.publish()
    log.append([Record(encode(event)) for event in decisions(4, 5)])
    whole = found(tmp_path, ring, metrics={NAME: 5})
    assert whole.ok, whole.text()
    assert "2 of 5 recorded answers are in the log, and no checkpoint" in whole.text()
    short = found(tmp_path, ring, metrics={NAME: 6})
    assert "counts 6 recorded answers, the log has 3" in short.text()
    assert not short.ok
    log.close()


def test_a_hole_is_named_and_one_of_before_is_not_blamed_on_later(tmp_path, ring) -> None:
    _, middle, _ = logged(tmp_path, ring, decisions(1, 3), decisions(4, 5), decisions(6, 9))
    whole = found(tmp_path, ring)
    assert whole.instances[NAME].missing == [(2, 2), (7, 8)]
    later = found(tmp_path, ring, since=middle)
    assert "number 7 to 8 is missing" in later.text()
    assert not later.ok


def test_the_end_is_known_where_the_process_said_it(tmp_path, ring) -> None:
    logged(tmp_path, ring, [*decisions(1, 2), counters(4, 4, final=True)])
    whole = found(tmp_path, ring)
    assert whole.instances[NAME].missing == [(3, 4)]
    assert "4 answers recorded, 2 there" in whole.text()
    assert (
        "number 3 to 4 is missing" in verify_log(tmp_path / "log", ring.verifier_key(ORIGIN)).text()
    )


def test_a_killed_process_is_no_hole_but_is_said(tmp_path, ring) -> None:
    logged(tmp_path, ring, [*decisions(1, 2), counters(4, 2)])
    whole = found(tmp_path, ring)
    assert whole.ok, whole.text()
    assert any("did not say that it ended" in note for note in whole.notes)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (counters(3, 3), "3 answers recorded, 2 there"),
        (counters(2, 2, 1), "2 numbers, but 3 recorded or refused"),
        (counters(2, 1, final=True), "2 numbers, but 1 recorded or refused"),
        (counters(2, 2, answered=5), "3 answers given without a record"),
        (counters(2, 2, traced=3), "more traces (3) than answers"),
    ],
)
def test_counters_that_contradict_the_leaves_are_found(tmp_path, ring, event, said) -> None:
    logged(tmp_path, ring, [*decisions(1, 2), event])
    whole = found(tmp_path, ring)
    assert said in whole.text()
    assert not whole.ok


async def test_counting_goes_on_over_a_pruning(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        await log.prune()
        await log.notary.append(counters(1100, 1100, final=True))
        await log.notary.checkpoint()
    whole = found(tmp_path, ring)
    assert whole.ok, whole.text()
    assert whole.first == 512
    assert whole.instances[NAME].first == 510
    assert found(tmp_path, ring, metrics={NAME: 1100}).ok


def cut(log, wal):
    wal.write_bytes(wal.read_bytes()[:-2000])


def flip(log, wal):
    raw = bytearray(wal.read_bytes())
    raw[1000] ^= 1
    wal.write_bytes(raw)


DAMAGE = {
    "cut": (cut, 2),
    "flipped": (flip, 2),
    "no wal": (lambda log, _: shutil.rmtree(log / "wal"), 2),
    "no marker": (lambda log, _: (log / "committed").unlink(), 8),
    "no checkpoint": (lambda log, _: (log / "checkpoint").unlink(), 1),
    "no folder to read": (lambda log, _: (log / "checkpoint" / "in").mkdir(parents=True), 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_verify_finds_stands_where_nothing_can_be_counted(tmp_path, ring, damage) -> None:
    (note,) = logged(tmp_path, ring, [*decisions(*range(1, 9)), counters(8, 8, final=True)])
    deed, step = DAMAGE[damage]
    log = tmp_path / "log"
    if damage == "no folder to read":
        (log / "checkpoint").unlink()
    deed(log, log / "wal" / f"{0:020d}.wal")
    for since in (None, note):
        whole = found(tmp_path, ring, since=since)
        plain = verify_log(log, ring.verifier_key(ORIGIN), earlier_checkpoint=since)
        assert not whole.ok
        assert whole.findings == plain
        assert step in [problem.step for problem in plain.problems]
        assert "nothing was counted" in whole.problems[0]
        assert "cannot be said" in whole.text()
        said = orjson.loads(orjson.dumps(whole.body()))
        assert (said["ok"], said["counted"]) == (False, False)
        assert said["problems"] == [*map(str, plain.problems), *whole.problems]


@pytest.mark.parametrize(
    "body", [b"[]", b'{"schema":1,"time_us":"x","type":"gap"}', b'{"schema":1,"type":"gap"}', b"no"]
)
def test_a_record_that_cannot_be_counted_is_a_problem(tmp_path, ring, body) -> None:
    log = open_log(tmp_path, ring)
    log.append([Record(body)])
    log.publish()
    log.close()
    whole = found(tmp_path, ring)
    assert "nothing was counted" in whole.problems[0]
    assert [problem.step for problem in whole.findings.problems] == [6]


def test_another_key_counts_nothing(tmp_path, ring) -> None:
    (note,) = logged(tmp_path, ring, decisions(1))
    stranger = Signer(ORIGIN, bytes(32))
    whole = check_complete(tmp_path / "log", stranger.verifier_key, since=note)
    assert [problem.step for problem in whole.findings.problems] == [1, 5]
    assert not whole.counted


def test_metrics_are_read_from_a_saved_page(tmp_path) -> None:
    page = tmp_path / "metrics.txt"
    page.write_text(
        "# HELP weighbridge_records_total x\n"
        'weighbridge_records_total{instance="0000000a"} 17.0\n'
        'weighbridge_records_total{instance="0000000b",worker="1"} 2.0\n'
    )
    assert read_metrics(page) == {"0000000a": 17, "0000000b": 2}
    page.write_text("up 1\n")
    with pytest.raises(ValueError, match="weighbridge_records_total"):
        read_metrics(page)
    assert read_metrics(None) == {}
