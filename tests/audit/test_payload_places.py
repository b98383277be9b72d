"""A payload is found where the log says that it must lie, whatever the groups were."""

import random

import pytest

from audit.blobfile import Payload, blob_segments
from audit.blobs import Blobs
from audit.cursor import WalCursor
from audit.errors import LogDamaged, NotFound
from audit.frames import segments
from audit.log import Record
from audit.reader import LogReader
from audit.record import encode
from tests.audit.worlds import decision, make_keyring, open_log

LEAVES = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Decisions with no payload, one or two, in groups of one to nine and many small files."""
    folder, chance = tmp_path_factory.mktemp("places"), random.Random(7)
    keyring, wanted = make_keyring(folder / "keys"), {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(Blobs.__init__.__kwdefaults__, "segment_bytes", 3000)
        log, leaf = open_log(folder, keyring, segment_bytes=9000), 0
        while leaf < LEAVES:
            group = []
            for _ in range(min(chance.randint(1, 9), LEAVES - leaf)):
                event = decision(leaf + 1)
                names = chance.choice([(), ("input",), ("input", "output")])
                bodies = {name: chance.randbytes(chance.randint(0, 900)) for name in names}
                wanted[leaf] = (event.id, bodies)
                kept = [Payload(event.id, n, f"user {leaf % 5}", b) for n, b in bodies.items()]
                group.append(Record(encode(event), tuple(kept)))
                leaf += 1
            log.append(group)
            if chance.random() < 0.1:  # a restart
                log.close()
                log = open_log(folder, keyring, segment_bytes=9000)
        log.close()
    return folder / "log", keyring, wanted


def test_it_is_what_searching_all_finds(made) -> None:
    directory, keyring, wanted = made
    assert len(segments(directory)) > 5
    assert len(blob_segments(directory)) > 5
    order = list(wanted)
    for seed in range(3):
        random.Random(seed).shuffle(order)
        by_leaf, searching = LogReader(directory), LogReader(directory)
        for leaf in order if seed else sorted(order):
            event_id, bodies = wanted[leaf]
            for name in ("input", "output"):
                found = by_leaf.payload(keyring, event_id, name, leaf=leaf)
                assert found == bodies.get(name)
                assert found == searching.payload(keyring, event_id, name)
    assert not by_leaf._payloads._places  # nothing is kept in memory


def test_only_the_payloads_of_its_group_are_looked_at(made) -> None:
    directory, keyring, wanted = made
    reader = LogReader(directory)
    for leaf, (event_id, bodies) in wanted.items():
        for other in (leaf - 20, leaf + 20):
            if bodies and 0 <= other < LEAVES:
                assert reader.payload(keyring, event_id, "input", leaf=other) is None


def test_reading_on_and_looking_back_do_not_disturb_one_another(made) -> None:
    directory, keyring, wanted = made
    reader = LogReader(directory)
    for first, bundle in reader.bundles():
        leaf = (first * 7) % LEAVES
        event_id, bodies = wanted[leaf]
        assert reader.payload(keyring, event_id, "input", leaf=leaf) == bodies.get("input")
        assert len(bundle)


def test_a_leaf_that_is_not_there_is_named(made) -> None:
    with pytest.raises((LogDamaged, NotFound)):
        WalCursor(made[0]).growth(LEAVES)
