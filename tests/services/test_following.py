"""How far the log was followed: over restarts nothing is lost, nothing is done twice."""

import random
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from audit.canonical import dumps
from audit.errors import LogDamaged
from audit.keys import Keyring
from audit.log import Log, Record
from audit.reader import LogReader
from audit.record import (
    Alert,
    Carried,
    Decision,
    ExplanationSkipped,
    FairnessWindow,
    as_mapping,
    encode,
    now_us,
)
from audit.seals import Seals
from audit.snapshot import FOLLOWED
from services.alarms import MISMATCH, Alarms
from services.counting import Counting
from services.following import Following
from tests.audit.worlds import ORIGIN, START_US, decision, uuid
from tests.services.test_alarms import VERSION, config

UNIT = "ab" * 16


class Place:
    """A log, and a follower of it that may be started again."""

    def __init__(self, folder, window_s=0.0) -> None:
        self.folder, self.window_s = folder, window_s
        keyring = Keyring.load_or_create(folder / "keys")
        self.log = Log.open(folder / "log", keyring, origin=ORIGIN)
        self.seals = Seals(folder / "log", keyring, create=True)
        self.number = 0
        self.read = 0
        self.restart()

    def restart(self) -> None:
        reader, bundles = LogReader(self.folder / "log"), LogReader.bundles

        def counted(start=None, end=None):
            for first, bundle in bundles(reader, start, end):
                self.read += len(bundle)
                yield first, bundle

        reader.bundles = counted
        counting = Counting(
            self.seals, minimum=2, window_s=self.window_s, positive=lambda *_: ">50K"
        )
        self.following = Following(reader, counting, Alarms())
        self.following.open()

    def write(self, *events) -> None:
        self.log.append([Record(encode(event)) for event in events])

    def decide(self, *, selected=False, arm="control") -> Decision:
        self.number += 1
        event = decision(
            self.number,
            unit_ref=UNIT,
            arm_assigned=arm,
            sampling={"rule": "base", "probability": "0.5", "selected": selected},
        )
        sealed = dumps({"nonce": "00", "groups": [[{"sex": "Female"}, ">50K", 1]]})
        event = decision(
            self.number,
            unit_ref=f"{self.number:032x}"[::-1],
            arm_assigned=arm,
            sampling=event.sampling,
            sealed=self.seals.seal(sealed, f"{self.number:032x}"[::-1], event.id),
        )
        self.write(event)
        return event

    def skip(self, decision_id) -> None:
        self.number += 1
        self.write(
            ExplanationSkipped(
                id=uuid(1 << 40 | self.number),
                time_us=now_us(),
                decision=decision_id,
                reason="payload_missing",
                detail_code="",
            )
        )

    def turn(self, *, final=False) -> None:
        """What the follower does between two explanations."""
        while self.following.read():
            pass
        self.following.close_windows(final=final)
        if self.following.unsent:
            self.write(*self.following.unsent)
        self.following.unsent.clear()
        self.following.keep()

    def events(self):
        return [entry.event for entry in LogReader(self.folder / "log").entries()]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("services.following._KEEP_AFTER", 1)
    return Place(tmp_path)


def test_a_window_is_written_in_its_time_also_where_the_clock_was_set_back(
    place, monkeypatch
) -> None:
    place.window_s = 0.0
    place.restart()
    place.decide()
    place.following.read()
    monkeypatch.setattr("services.following.now_us", lambda: 0)
    place.turn()
    assert [event.time_us for event in place.events() if isinstance(event, FairnessWindow)] == [0]


def test_what_fails_further_on_is_not_counted_again(place, monkeypatch) -> None:
    place.window_s = 3600.0
    place.restart()
    for _ in range(40):
        place.decide()
    raw, broken = place.following._reader.raw, [True]

    def fails_behind(start=None, end=None):
        for leaf, data in raw(start, end):
            if broken and leaf == 30:
                raise LogDamaged(place.folder, offset=None, expected="a bit", found="another")
            yield leaf, data

    monkeypatch.setattr(place.following._reader, "raw", fails_behind)
    for _ in range(5):
        with pytest.raises(LogDamaged):
            place.following.read()
    broken.clear()
    place.turn(final=True)
    windows = [event for event in place.events() if isinstance(event, FairnessWindow)]
    assert sum(group["n"] for window in windows for group in window.groups) == 40


def test_what_was_made_of_leaves_that_the_log_lacks_is_not_taken_up(place) -> None:
    place.decide()
    first = place.decide(selected=True)  # pending, so a start goes on here
    for _ in range(20):
        place.decide()
    kept = place.folder / "kept"
    shutil.copytree(place.folder / "log", kept)
    for _ in range(20):
        place.decide()
    place.turn()
    assert (place.folder / "log" / FOLLOWED).exists()
    shutil.copy(place.folder / "log" / FOLLOWED, kept / FOLLOWED)
    place.log.close()
    shutil.rmtree(place.folder / "log")
    kept.rename(place.folder / "log")  # a backup, and a newer `followed`
    place.log = Log.open(
        place.folder / "log", Keyring.load_or_create(place.folder / "keys"), origin=ORIGIN
    )
    place.number = 100
    place.restart()
    for _ in range(20):
        place.decide()
    place.skip(first.id)
    place.turn(final=True)
    windows = [event for event in place.events() if isinstance(event, FairnessWindow)]
    assert sum(group["n"] for window in windows for group in window.groups) == 42


def test_a_definition_that_was_carried_over_is_watched(place) -> None:
    body = as_mapping(config())
    place.write(
        Carried(id=uuid(9 << 40), time_us=1, was_leaf=0, first_leaf=0, record=dict(body), path=[])
    )
    for number in range(250):
        unit = f"{number:032x}"
        place.write(
            decision(number + 1, unit_ref=unit, experiment_version=VERSION, arm_assigned="control")
        )
    place.turn(final=True)
    assert MISMATCH in [event.name for event in place.events() if isinstance(event, Alert)]


@pytest.mark.parametrize("seed", range(12))
def test_over_restarts_all_is_explained_once_counted_once_and_alarmed_once(place, seed) -> None:
    chance = random.Random(seed)
    place.window_s = chance.choice([0.0, 3600.0])
    place.restart()
    place.write(config())
    selected = set()
    for _ in range(300):
        match chance.randrange(12):
            case 0:
                place.restart()
            case 1:
                place.turn(final=chance.random() < 0.2)
            case 2 if place.following.pending:
                found, leaf = next(iter(place.following.pending.items()))
                assert place.following.decision(found, leaf).id == found
                place.skip(found)
                place.following.settle(found)
            case 3:  # one that is asked for: perhaps explained before it is read
                found = place.decide(selected=True).id
                selected.add(found)
                if chance.random() < 0.3:
                    place.turn()
                place.skip(found)
                place.following.settle(found)
            case _:
                event = place.decide(selected=chance.random() < 0.3, arm="control")
                if event.sampling["selected"]:
                    selected.add(event.id)
    place.restart()
    place.turn(final=True)
    events = place.events()
    said = Counter(e.decision for e in events if isinstance(e, ExplanationSkipped))
    assert set(said.values()) <= {1}
    assert not set(said) & set(place.following.pending)
    assert set(said) | set(place.following.pending) == selected
    windows = [event for event in events if isinstance(event, FairnessWindow)]
    counted = sum(group["n"] for window in windows for group in window.groups)
    assert counted == sum(isinstance(event, Decision) for event in events)
    alerts = [event.name for event in events if isinstance(event, Alert)]
    assert alerts == [MISMATCH]


def test_a_restart_reads_what_came_since_and_what_was_not_done(place) -> None:
    place.write(config())
    for _ in range(100):
        place.decide()
    place.turn(final=True)
    place.turn()
    place.read = 0
    place.restart()
    assert place.read <= 2  # the last leaf, to see that it is this log
    place.turn()
    assert place.read <= 4
    pending = place.decide(selected=True).id
    for _ in range(50):
        place.decide()
    place.turn(final=True)
    place.read = 0
    place.restart()
    place.turn()
    assert list(place.following.pending) == [pending]
    assert 50 <= place.read <= 110  # twice: what is done, and then all


def test_where_the_file_is_lost_everything_is_read_and_comes_out_the_same(place) -> None:
    place.write(config())
    waiting = [place.decide(selected=True).id for _ in range(5)]
    for _ in range(40):
        place.decide()
    place.skip(waiting[0])
    place.turn(final=True)
    windows = sum(isinstance(event, FairnessWindow) for event in place.events())
    (place.folder / "log" / FOLLOWED).unlink()
    place.restart()
    place.turn(final=True)
    assert list(place.following.pending) == waiting[1:]
    assert sum(isinstance(event, FairnessWindow) for event in place.events()) == windows


def test_an_alarm_that_could_not_be_written_is_raised_again_after_a_restart(place) -> None:
    place.write(config())
    place.turn()
    for _ in range(200):
        place.decide()
    while place.following.read():
        pass
    assert [event.name for event in place.following.unsent] == [MISMATCH]
    place.following.keep(closing=True)  # the notary was away; this process ends
    place.restart()
    place.turn()
    assert [e.name for e in place.events() if isinstance(e, Alert)] == [MISMATCH]


def test_what_was_explained_is_forgotten_once_it_was_read(place) -> None:
    for _ in range(300):
        place.skip(place.decide(selected=True).id)
    place.restart()
    assert len(place.following._explained) == 300
    place.turn()
    assert not place.following._explained
    assert not place.following.pending


def test_a_unit_is_any_text_and_counts_once_over_a_restart() -> None:
    alarms = Alarms()
    alarms.take(config(), START_US)
    units = ["ab", "no hex at all", "ü" * 40, UNIT]
    for unit in units:
        alarms.take(decision(1, unit_ref=unit, arm_assigned="control"), START_US)
    before = alarms.state()
    again = Alarms()
    again.restore(before)
    for unit in units:
        again.take(decision(2, unit_ref=unit, arm_assigned="treatment"), START_US)
    after = again.state()
    assert after["splits"][VERSION]["counts"] == {"control": len(units)}
    assert after["splits"][VERSION] | {"units": ""} == before["splits"][VERSION] | {"units": ""}


ODD_PARTS = [
    b"no json",
    b"[]",
    b'{"groups":"Female"}',
    b'{"groups":["Female"]}',
    b'{"groups":[["Female",">50K",1]]}',
    b'{"groups":[[{"sex":["Female"]},">50K",1]]}',
    b'{"groups":[[{"sex":"Female"},7,1]]}',
    b'{"groups":[[{"sex":"Female"},">50K","1"]]}',
    b'{"groups":[[{"sex":"Female"},">50K",-1]]}',
    b'{"groups":[],"nonce":7}',
]


def test_what_a_stranger_wrote_keeps_nobody_from_being_explained_counted_and_watched(
    place, caplog
) -> None:
    place.write(config())
    strange = [
        decision(9000 + number, sealed=place.seals.seal(part, UNIT, decision(9000 + number).id))
        for number, part in enumerate(ODD_PARTS)
    ]
    strange += [
        decision(9100, sealed="not base64 at all!"),
        decision(9101, unit_ref="nobody"),
        decision(9102, unit_ref=""),
        decision(9103, sealed=""),
    ]
    place.write(*strange)
    place.write(
        *[
            replace(config(), id=uuid(7_000_000 + n), experiment_version=f"{n:064x}", definition=d)
            for n, d in enumerate(
                [{"ranges": [{"arm": "a"}]}, {"ranges": ["a"]}, {"ranges": [{}]}, {"ranges": 7}]
            )
        ]
    )
    place.log.append([Record(b'{"id":"x","type":"decision"}'), Record(b"nothing")])
    wanted = [place.decide(selected=True).id for _ in range(3)]
    for _ in range(200):
        place.decide()
    place.turn(final=True)
    assert list(place.following.pending) == wanted
    found = [entry.event for entry in LogReader(place.folder / "log").others()]
    windows = [event for event in found if isinstance(event, FairnessWindow)]
    assert sum(group["n"] for window in windows for group in window.groups) == 203
    assert [event.name for event in found if isinstance(event, Alert)] == [MISMATCH]
    assert "malformed records" in caplog.text
    assert "Female" not in caplog.text
