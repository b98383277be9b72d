"""The master key from elsewhere: the right one opens everything, it is never shown."""

import base64
import os
import sys
from pathlib import Path

import pytest

from audit.errors import KeyFileError
from services.masterkey import load_keyring, load_or_create_keyring
from services.settings import Settings

KEY = bytes(range(32))


def settings(home: Path, **given: str) -> Settings:
    return Settings(home=home, **given)


def command(tmp_path: Path, code: str) -> str:
    script = tmp_path / f"kms{len(list(tmp_path.iterdir()))}.py"
    script.write_text(code, encoding="utf-8")
    return f"'{sys.executable}' {script}"


def test_the_same_key_from_file_environment_and_command_opens_the_same(tmp_path) -> None:
    ring = load_or_create_keyring(settings(tmp_path, master_key=KEY.hex()))
    sealed = ring.seal(b"private", "a")
    assert not (tmp_path / "keys" / "master.key").exists()
    printed = base64.b64encode(KEY).decode()
    unwrap = command(tmp_path, f"print({printed!r})")
    for given in ({"master_key": printed}, {"master_key_command": unwrap}):
        assert load_keyring(settings(tmp_path, **given)).open(sealed, "a") == b"private"
    with pytest.raises(KeyFileError, match=r"master\.key: it is missing"):
        load_keyring(settings(tmp_path))


def test_a_key_that_was_in_a_file_can_move_out_of_it(tmp_path) -> None:
    ring = load_or_create_keyring(settings(tmp_path))
    sealed = ring.seal(b"private", "a")
    (tmp_path / "keys" / "master.key").unlink()
    moved = load_or_create_keyring(settings(tmp_path, master_key=ring.master.hex()))
    assert moved.open(sealed, "a") == b"private"


@pytest.mark.parametrize(
    "text", ["secret-that-is-no-key", "ab" * 31, base64.b64encode(b"x").decode()]
)
def test_what_is_no_key_is_refused_and_never_repeated(tmp_path, text) -> None:
    for given in (
        {"master_key": text},
        {"master_key_command": command(tmp_path, f"print({text!r})")},
    ):
        with pytest.raises(KeyFileError, match="64 hex digits") as told:
            load_or_create_keyring(settings(tmp_path / "home", **given))
        assert text not in str(told.value)


def test_another_key_is_refused_by_its_fingerprint(tmp_path) -> None:
    load_or_create_keyring(settings(tmp_path, master_key=KEY.hex()))
    with pytest.raises(KeyFileError, match="not the key this keyring was made with") as told:
        load_keyring(settings(tmp_path, master_key=KEY[::-1].hex()))
    assert KEY[::-1].hex() not in str(told.value)


def test_a_command_that_fails_says_so_without_its_words(tmp_path) -> None:
    code = "import sys; print('leaked'); sys.stderr.write('leaked'); sys.exit(3)"
    with pytest.raises(KeyFileError, match="ended with 3") as told:
        load_keyring(settings(tmp_path, master_key_command=command(tmp_path, code)))
    assert "leaked" not in str(told.value)
    with pytest.raises(KeyFileError, match="could not run"):
        load_keyring(settings(tmp_path, master_key_command=os.fspath(tmp_path / "nothing here")))
    with pytest.raises(KeyFileError, match="not both"):
        load_keyring(settings(tmp_path, master_key="x", master_key_command="y"))


def test_the_settings_never_show_the_key(tmp_path) -> None:
    assert KEY.hex() not in repr(settings(tmp_path, master_key=KEY.hex()))
