"""The outcomes on record outlast the process in a file that the log can always make anew."""

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from audit.errors import LogDamaged
from audit.record import Carried, Outcome, as_mapping
from audit.testing import MemoryNotary, MemoryReader
from services import outcomefile
from services.facts import ARTEFACT, LEADING, Fact
from services.outcomebook import OutcomeBook
from tests.audit.pruneworld import living
from tests.audit.worlds import START_US, decision, make_keyring, uuid
from tests.services.outcomeworld import NAME, SECRET, outcome, promoted, registered


async def filled(numbers, notary=None):
    """A notary with decisions, and with an outcome after each third of them."""
    notary = notary or MemoryNotary()
    for number in numbers:
        made = outcome(number) if number % 3 == 2 else decision(number + 1)
        await notary.append(made)
    return notary


def leaf_of(book, number, **changes):
    key, content = book.name(outcome(number, **changes))
    found = book.find([key]).get(key)
    return None if found is None or found.content != content else found.leaf


def all_known(book, notary, first=0):
    return all(
        leaf_of(book, entry.index) == entry.index
        for entry in notary.entries
        if isinstance(entry.event, Outcome) and entry.index >= first
    )


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / NAME


@pytest.fixture
async def notary() -> MemoryNotary:
    return await filled(range(60))


@pytest.fixture
def made(path, notary):
    """The file of a closed book of 60 leaves."""
    book = OutcomeBook(path, SECRET, notary.reader())
    assert (book.covered, all_known(book, notary)) == (60, True)
    book.close()
    return path


def test_the_file_is_private_and_has_no_text_of_an_outcome(path, notary) -> None:
    book = OutcomeBook(path, SECRET, notary.reader())
    files = list(path.parent.glob(f"{NAME}*"))
    assert {file.name.removeprefix(NAME) for file in files} == {"", "-wal"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    book.close()
    raw = path.read_bytes()
    assert not any(word in raw for word in (b"event", b"clicked", b"abab"))


def test_no_memory_is_mapped_that_somebody_could_cut_off(made, notary) -> None:
    shared = made.with_name(f"{NAME}-shm")
    with sqlite3.connect(made) as db:  # as a process that was killed left it
        db.execute("SELECT * FROM meta")
        left = shared.read_bytes()
    db.close()
    shared.write_bytes(left)
    book = OutcomeBook(made, SECRET, notary.reader())
    assert not shared.exists()
    assert all_known(book, notary)
    book.close()


def test_a_file_that_somebody_has_open_stays_as_it_is(made, notary, caplog, monkeypatch) -> None:
    monkeypatch.setattr(outcomefile, "_BUSY_S", 0.0)
    other = sqlite3.connect(made)
    other.execute("SELECT * FROM meta").fetchone()
    book = OutcomeBook(made, SECRET, notary.reader())
    assert all_known(book, notary)
    book.close()
    assert "SQLITE_BUSY" in caplog.text
    other.close()
    reader = notary.reader()
    OutcomeBook(made, SECRET, reader).close()
    assert reader.given == 1


def test_a_file_that_others_may_read_is_closed_to_them(made, notary) -> None:
    made.chmod(0o644)
    OutcomeBook(made, SECRET, notary.reader()).close()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


async def test_only_new_leaves_are_read_after_a_restart(made, notary) -> None:
    await filled(range(60, 70), notary)
    reader = MemoryReader(notary.entries, group=1)
    book = OutcomeBook(made, SECRET, reader)
    assert reader.given == 1 + 10  # the one that is compared, and those that came since
    assert all_known(book, notary)
    reader.given = 0
    assert book.catch_up()
    assert reader.given == 0
    book.close()


async def test_a_process_that_is_killed_leaves_a_file_that_is_read_on(path, notary) -> None:
    book = OutcomeBook(path, SECRET, notary.reader())
    await filled(range(60, 70), notary)  # on record, and not in the book
    killed = path.parent / "killed"
    killed.mkdir()
    for file in path.parent.glob(f"{NAME}*"):  # as they lie there: the last close never was
        shutil.copy(file, killed)
    book.close()
    again = OutcomeBook(killed / NAME, SECRET, notary.reader())
    assert all_known(again, notary)
    again.close()


def garbage(path):
    path.write_bytes(b"no database at all" * 1000)


def torn(path):
    path.write_bytes(path.read_bytes()[:5000])


def holes(path):
    path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096))


def misnamed(path):
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE outcome", b"CREATE T\xffBLE outcome"))


def emptied(path):
    path.write_bytes(b"")


def statement(text):
    def run(path):
        with sqlite3.connect(path) as db:
            db.execute(text)
        db.close()

    return run


@pytest.mark.parametrize(
    "damage",
    [
        garbage,
        torn,
        holes,
        misnamed,
        emptied,
        statement("PRAGMA user_version = 9"),
        statement("DELETE FROM meta"),
        statement("DROP TABLE meta"),
        statement("DROP TABLE outcome"),
        statement("UPDATE meta SET covered = 'x'"),
        statement("UPDATE meta SET covered = -1"),
        statement("UPDATE meta SET covered = 61"),
        statement("UPDATE meta SET tip = x'00'"),
        statement("UPDATE meta SET mark = x'00'"),
        statement("DELETE FROM outcome WHERE leaf = 2"),
        statement("UPDATE outcome SET leaf = 3 WHERE leaf = 2"),
    ],
)
async def test_a_damaged_file_is_made_anew(made, notary, caplog, damage) -> None:
    damage(made)
    await filled(range(60, 70), notary)
    book = OutcomeBook(made, SECRET, notary.reader())
    assert all_known(book, notary)
    book.close()
    assert not caplog.records
    reader = notary.reader()
    OutcomeBook(made, SECRET, reader).close()
    assert reader.given == 1  # it was written


async def test_a_copy_with_pages_of_two_times_is_made_anew(tmp_path) -> None:
    notary, path = MemoryNotary(), tmp_path / NAME
    for number in range(2000):
        await notary.append(outcome(number))
    book = OutcomeBook(path, SECRET, notary.reader())
    book.close()
    book = OutcomeBook(path, SECRET, notary.reader())
    copy = tmp_path / "copy" / NAME
    copy.parent.mkdir()
    shutil.copy(path, copy)  # the copying begins
    for start in (2000, 3000):
        for number in range(start, start + 1000):
            await notary.append(outcome(number))
        book.catch_up()
        book._file._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    await notary.append(outcome(4000))
    book.catch_up()
    shutil.copy(path.with_name(f"{NAME}-wal"), copy.parent)  # and ends
    book.close()
    again = OutcomeBook(copy, SECRET, notary.reader())
    assert all_known(again, notary)
    again.close()


async def test_a_log_that_was_rolled_back_or_is_another_gets_a_new_book(made) -> None:
    for numbers in (range(30), [*range(30), *range(100, 160)], range(200, 290)):
        other = await filled(numbers)
        book = OutcomeBook(made, SECRET, other.reader())
        for number in range(300):
            expected = numbers.index(number) if number in numbers and number % 3 == 2 else None
            assert leaf_of(book, number) == expected
        book.close()


def test_another_key_gets_a_new_book(made, notary) -> None:
    reader = notary.reader()
    book = OutcomeBook(made, b"another key", reader)
    assert (reader.given, all_known(book, notary)) == (60, True)
    book.close()


async def test_what_was_pruned_stays_known_and_reading_goes_on_where_the_log_begins(
    made, notary, caplog
) -> None:
    await filled(range(60, 90), notary)
    reader = MemoryReader(notary.entries, begins=75, group=5)
    book = OutcomeBook(made, SECRET, reader)
    assert (reader.given, book.covered) == (15, 90)
    assert (leaf_of(book, 2), leaf_of(book, 59), leaf_of(book, 77)) == (2, 59, 77)
    assert leaf_of(book, 62) is None  # pruned before anybody read it
    assert book.catch_up()
    (said,) = caplog.messages
    assert "does not know what the leaves 60 to 74 said" in said
    book.close()
    made.unlink()
    anew = OutcomeBook(made, SECRET, MemoryReader(notary.entries, begins=75))
    assert leaf_of(anew, 59) is None
    assert all_known(anew, notary, 75)
    anew.close()


async def test_a_real_log_is_pruned_beyond_what_was_read(tmp_path, path) -> None:
    async with living(tmp_path, make_keyring(tmp_path / "keys")) as world:
        await world.notary.append(outcome(1))
        book = OutcomeBook(path, SECRET, world.notary.reader())
        book.close()
        await world.decide(700, at=0)
        await world.pruning.roll()
        await world.decide(400, at=10)
        await world.notary.append(outcome(2))
        await world.notary.checkpoint()
        world.hours = 10.5
        await world.prune()
        assert world.notary.reader().first() > book.covered
        book = OutcomeBook(path, SECRET, world.notary.reader())
        assert (leaf_of(book, 1), leaf_of(book, 2)) == (0, 1101)
        assert book.covered == world.notary.size
        book.close()


async def test_an_event_id_belongs_to_the_first_leaf_that_has_it(path) -> None:
    notary = MemoryNotary()
    for number, value in ((1, "1"), (2, "2"), (3, "1")):
        await notary.append(outcome(number, event_id="same", value=value))
    book = OutcomeBook(path, SECRET, notary.reader())
    assert leaf_of(book, 1, event_id="same") == 0
    assert leaf_of(book, 2, event_id="same", value="2") is None
    book.close()


# --- models -------------------------------------------------------------------------------------


def carried(number, event, was_leaf, first_leaf):
    record = dict(as_mapping(event))
    return Carried(
        id=uuid(number),
        time_us=START_US,
        was_leaf=was_leaf,
        record=record,
        first_leaf=first_leaf,
        path=[],
    )


def facts_of(book):
    return {(fact.kind, fact.model, fact.version): fact.value for fact in book.facts}


@pytest.mark.parametrize("restart", [False, True])
async def test_the_newest_record_of_a_model_counts_and_a_carried_one_is_as_old_as_it_was(
    path, restart
) -> None:
    notary = MemoryNotary()
    listed = [
        registered(0, "a"),
        promoted(1, "1"),
        registered(2, "b"),
        promoted(3, "2"),
        carried(4, registered(0, "a"), 0, 3),
        carried(5, promoted(1, "1"), 1, 3),
    ]
    for event in listed:
        await notary.append(event)
        if restart:
            OutcomeBook(path, SECRET, notary.reader()).close()
    book = OutcomeBook(path, SECRET, notary.reader())
    assert book.facts == [
        Fact(ARTEFACT, "income", "1", "b cpu"),
        Fact(LEADING, "income", "", "2"),
    ]
    book.close()


async def test_what_was_carried_over_unread_replaces_what_is_older(path) -> None:
    notary = MemoryNotary()
    await notary.append(registered(0, "a"))
    OutcomeBook(path, SECRET, notary.reader()).close()
    await notary.append(registered(1, "b"))  # pruned before it was read
    await notary.append(carried(2, registered(1, "b"), 1, 2))
    await notary.append(carried(3, outcome(7), 1, 2))
    book = OutcomeBook(path, SECRET, MemoryReader(notary.entries, begins=2))
    assert facts_of(book) == {(ARTEFACT, "income", "1"): "b cpu"}
    assert leaf_of(book, 7) == 3
    book.close()


# --- a disk that refuses ------------------------------------------------------------------------


def a_folder(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


def locked(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE theirs (one)")
    db.execute("BEGIN EXCLUSIVE")
    return db


@pytest.mark.parametrize("there", [a_folder, a_pipe, locked])
async def test_where_no_file_can_be_used_the_log_is_read_into_memory(
    path, notary, caplog, monkeypatch, there
) -> None:
    monkeypatch.setattr(outcomefile, "_BUSY_S", 0.0)
    holding = there(path)
    book = OutcomeBook(path, SECRET, notary.reader())
    await filled(range(60, 70), notary)
    assert book.catch_up()
    assert all_known(book, notary)
    book.close()
    (said,) = caplog.records
    assert "outcomes are remembered in memory" in said.getMessage()
    assert str(path.parent) not in said.getMessage()
    if holding is not None:
        holding.close()


async def test_a_file_that_fails_under_a_living_process_is_made_anew(made, notary) -> None:
    book = OutcomeBook(made, SECRET, notary.reader())
    book._file._db.execute("DROP TABLE outcome")
    assert all_known(book, notary)
    book._file._db.execute("DROP TABLE outcome")
    await filled(range(60, 70), notary)
    assert book.catch_up()
    assert all_known(book, notary)
    book.close()
    reader = notary.reader()
    OutcomeBook(made, SECRET, reader).close()
    assert reader.given == 1


class Unreadable(MemoryReader):
    """A log that cannot be read while `broken`."""

    broken = False

    def bundles(self, start=None, end=None):
        if self.broken:
            raise LogDamaged(Path("wal"), offset=0, expected="a segment", found="none")
        return super().bundles(start, end)


def failing_once(error):
    """A question that fails, as `OutcomeFile.find` would."""
    fault = sqlite3.OperationalError("injected")
    fault.sqlite_errorcode, fault.sqlite_errorname = getattr(sqlite3, error), error

    def find(file, keys):
        raise fault

    return find


@pytest.mark.parametrize("error", ["SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_INTERRUPT"])
def test_a_sound_file_that_failed_stays_in_use_while_the_log_cannot_be_read(
    made, notary, monkeypatch, error
) -> None:
    reader = Unreadable(notary.entries, begins=30)  # what was before is known to the file alone
    book = OutcomeBook(made, SECRET, reader)
    before = made.stat().st_ino
    reader.broken = True
    with monkeypatch.context() as once:
        once.setattr(outcomefile.OutcomeFile, "find", failing_once(error))
        with pytest.raises(LogDamaged):
            leaf_of(book, 2)
    for reader.broken in (True, False):
        assert (leaf_of(book, 2), book.covered) == (2, 60)
    assert made.stat().st_ino == before
    book.close()


def test_a_damaged_file_is_made_anew_once_the_log_can_be_read(made, notary, caplog) -> None:
    reader = Unreadable(notary.entries)
    book = OutcomeBook(made, SECRET, reader)
    book._file._db.execute("DROP TABLE outcome")
    reader.broken = True
    for _ in range(2):
        with pytest.raises(LogDamaged):
            leaf_of(book, 2)
    reader.broken = False
    assert all_known(book, notary)
    book.close()
    assert not caplog.records  # it was not in memory
    reader = notary.reader()
    OutcomeBook(made, SECRET, reader).close()
    assert reader.given == 1
