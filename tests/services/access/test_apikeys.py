"""API keys: kept hashed, found by id, followed while a server runs."""

import hashlib
import itertools
import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.access import apikeys
from services.access.apikeys import KeyFileDamaged, add, matches, new_key, read, revoke
from services.access.keybook import KeyBook
from services.access.principal import Principal, Rate

INFER = frozenset({"infer"})


def made(name: str = "alice", **options: object) -> apikeys.NewKey:
    return new_key(name, INFER, now=1000, **options)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "api_keys.json"


def test_a_key_is_256_random_bits_and_the_file_keeps_none_of_them(path: Path) -> None:
    new = made()
    add(path, new)
    assert len(new.text) == len("wb_") + 12 + 1 + 43
    written = path.read_text()
    secret = new.text.rpartition("_")[2] if new.text.count("_") == 2 else new.text[16:]
    assert secret not in written
    assert secret not in repr(new.entry)
    assert hashlib.sha256(new.text.encode()).hexdigest() not in written
    assert new.entry.digest.hex() not in repr(new.entry)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_equal_keys_are_kept_unequal() -> None:
    counter = itertools.count()

    def random(size: int) -> bytes:
        return bytes([next(counter)]) * size if size == 16 else b"k" * size

    one, two = made(random=random), made(random=random)
    assert one.text == two.text
    assert one.entry.digest != two.entry.digest


def test_what_is_written_is_read_again(path: Path) -> None:
    keys = [
        made("alice"),
        made("bob", expires=2000),
        new_key("carol", frozenset({"operate", "erase"}), now=5, rate=Rate(0.5, 3)),
    ]
    for key in keys:
        add(path, key)
    assert read(path) == {key.entry.id: key.entry for key in keys}


def test_a_key_holds_until_it_expires_or_is_revoked(path: Path) -> None:
    new = made(expires=2000)
    add(path, new)
    assert matches(new.text, read(path), 1999) == new.entry
    assert matches(new.text, read(path), 2000) is None
    assert [entry.id for entry in revoke(path, "alice", now=1500)] == [new.entry.id]
    assert matches(new.text, read(path), 1600) is None
    with pytest.raises(ValueError, match="no key has"):
        revoke(path, "alice", now=1500)


@given(st.text(max_size=80), st.integers(0, 58), st.characters(codec="ascii"))
def test_nothing_but_the_key_matches(text: str, place: int, letter: str) -> None:
    new = made()
    entries = {new.entry.id: new.entry}
    assert matches(text, entries, 1000) is None
    changed = new.text[:place] + letter + new.text[place + 1 :]
    assert (matches(changed, entries, 1000) is not None) == (changed == new.text)
    other = made("bob")
    crossed = f"wb_{new.entry.id}_{other.text[16:]}"
    assert matches(crossed, entries | {other.entry.id: other.entry}, 1000) is None


def test_every_refusal_does_the_same_work(monkeypatch) -> None:
    """An unknown id, a wrong secret and an expired key are hashed and compared like a good one."""
    done: list[str] = []
    compare, digest = apikeys.hmac.compare_digest, apikeys.hmac.digest
    monkeypatch.setattr(apikeys.hmac, "compare_digest", lambda *a: done.append("c") or compare(*a))
    monkeypatch.setattr(apikeys.hmac, "digest", lambda *a: done.append("d") or digest(*a))
    new, expired, stranger = made(), made("bob", expires=1001), made("eve")
    entries = {key.entry.id: key.entry for key in (new, expired)}
    done.clear()
    wrong = f"wb_{new.entry.id}_{stranger.text[16:]}"
    for text in (new.text, wrong, expired.text, stranger.text, "wb_x", ""):
        matches(text, entries, 5000)
    assert done == ["d", "c"] * 6


def test_two_usable_keys_have_no_common_name(path: Path) -> None:
    add(path, made())
    with pytest.raises(ValueError, match="exists"):
        add(path, made())
    revoke(path, "alice", now=1001)
    add(path, made())


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "-x", "ä", "a\n", "../x", "<b>"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValueError, match="name is 1 to 64"):
        made(name)
    with pytest.raises(ValueError, match="at least one role"):
        new_key("a", frozenset(), now=0)


def test_keys_made_at_the_same_time_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=add, args=(path, made(f"k{n}"))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.name for entry in read(path).values()} == {f"k{n}" for n in range(16)}


def damaged(path: Path) -> list[bytes]:
    good = json.loads(path.read_bytes())
    bad: list[object] = [[], {}, {"format": 2, "keys": []}, {"format": 1, "keys": [1]}]
    for field, value in [
        ("salt", "00"),
        ("salt", "x" * 32),
        ("hmac_sha256", ""),
        ("name", "a b"),
        ("roles", 3),
        ("expires", "soon"),
        ("rate", []),
        ("rate", {"per_s": 0, "burst": 1}),
        ("rate", {"per_s": 1, "burst": 0}),
        ("rate", {"per_s": "nan", "burst": 1}),
        ("id", None),
    ]:
        entry = {**good["keys"][0], field: value}
        if field == "id":
            del entry["id"]
        bad.append({"format": 1, "keys": [entry]})
    return [b"", b"{", b"\xff", *(json.dumps(item).encode() for item in bad)]


def test_a_damaged_file_is_refused_and_changes_nothing(path: Path, caplog) -> None:
    new = made()
    add(path, new)
    clock = iter(range(0, 10_000, 2))
    book = KeyBook(path, clock=lambda: next(clock), now=lambda: 1000)
    cases = damaged(path)
    for data in cases:
        path.write_bytes(data)
        with pytest.raises(KeyFileDamaged) as found:
            read(path)
        assert "weighbridge apikey add" in str(found.value)
        assert book.principal(new.text) == Principal("key:alice", INFER)
    assert new.entry.digest.hex() not in caplog.text
    path.unlink()
    assert book.principal(new.text) is None
    assert book.usable() == 0


def test_roles_are_a_list_of_whole_names(path: Path) -> None:
    """A text that holds a role's name, or an unknown name, grants nothing."""
    add(path, made())
    found = json.loads(path.read_bytes())
    for roles in ("infer", "infer,operate", ["inferx", "INFER", " infer"], {"x": 1}):
        found["keys"][0]["roles"] = roles
        path.write_text(json.dumps(found))
        assert next(iter(read(path).values())).roles == frozenset()


def test_a_file_that_others_may_write_is_refused(path: Path) -> None:
    add(path, made())
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(KeyFileDamaged, match="chmod 600"):
            read(path)
    path.chmod(0o440)  # as Kubernetes mounts a Secret
    assert read(path)


def test_a_book_follows_its_file_once_a_second(path: Path) -> None:
    clock = [0.0]
    book = KeyBook(path, clock=lambda: clock[0], now=lambda: 1000)
    new = made()
    add(path, new)
    clock[0] = 0.9
    assert book.principal(new.text) is None
    clock[0] = 1.0
    assert book.principal(new.text) == Principal("key:alice", INFER)
    revoke(path, new.entry.id, now=1000)
    clock[0] = 1.9
    assert book.principal(new.text) is not None
    clock[0] = 2.0
    assert book.principal(new.text) is None


# --- the command ----------------------------------------------------------------------------


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from services.cli import main; main()", "apikey", *words]
    environment = {**__import__("os").environ, "WEIGHBRIDGE_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_shows_a_key_once(tmp_path: Path) -> None:
    added = cli(
        tmp_path,
        "add",
        "alice",
        "--role",
        "infer",
        "--role",
        "review",
        "--expires",
        "90d",
        "--rate",
        "5",
    )
    key = added.stdout.strip()
    assert (added.returncode, key[:3], len(key)) == (0, "wb_", 59)
    entry = next(iter(read(tmp_path / "keys" / "api_keys.json").values()))
    assert entry.roles == {"infer", "review"}
    assert entry.expires == entry.created + 90 * 86400
    assert entry.rate == Rate(5.0, 5)
    listed = cli(tmp_path, "list").stdout
    assert "alice" in listed
    assert entry.id in listed
    assert key[16:] not in listed
    assert "usable" in listed
    assert cli(tmp_path, "revoke", "alice").returncode == 0
    assert "revoked" in cli(tmp_path, "list").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "a", "--role", "king"], "there is no role 'king'"),
        (["add", "a"], "Missing option"),
        (["add", "a", "--role", "infer", "--expires", "soon"], "90d"),
        (["add", "a", "--role", "infer", "--expires", "0d"], "90d"),
        (["add", "a", "--role", "infer", "--burst", "3"], "--rate"),
        (["add", "a", "--role", "infer", "--rate", "inf"], "--rate"),
        (["add", "a", "--role", "infer", "--rate", "nan"], "--rate"),
        (["add", "a", "--role", "infer", "--rate=-1"], "--rate"),
        (["revoke", "nobody"], "no key has"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(tmp_path: Path, words, said) -> None:
    done = cli(tmp_path, *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert not (tmp_path / "keys" / "api_keys.json").exists()
