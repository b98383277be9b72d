import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import NoteError
from audit.merkle import EMPTY_ROOT
from audit.note import (
    Checkpoint,
    Signer,
    VerifierKey,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    signature_names,
)

VECTOR = json.loads(Path("tests/vectors/signed_note.json").read_text(encoding="utf-8"))
PETER = VerifierKey.parse(VECTOR["vkey"])
ENOCH = VerifierKey.parse(VECTOR["other_vkey"])
NOTE = f"{VECTOR['text']}\n{VECTOR['signature']}\n"
BOTH = f"{NOTE}{VECTOR['other_signature']}\n"
SIGNER = Signer("PeterNeumann", base64.b64decode(VECTOR["skey"].split("+", 4)[4])[1:])


def test_the_published_note_verifies():
    assert open_note(NOTE, PETER) == VECTOR["text"]


def test_signing_the_published_text_gives_the_published_bytes():
    assert SIGNER.verifier_key == PETER
    assert SIGNER.sign(VECTOR["text"]) == NOTE


def test_one_trusted_signature_of_many_is_enough():
    assert open_note(BOTH, PETER) == open_note(BOTH, ENOCH) == open_note(BOTH, PETER, ENOCH)
    assert signature_names(BOTH) == ["PeterNeumann", "EnochRoot"]


def test_a_verifier_key_reads_back_as_it_was_written():
    assert str(PETER) == VECTOR["vkey"]


@pytest.mark.parametrize("vkey", VECTOR["bad_vkeys"])
def test_a_malformed_verifier_key_is_refused(vkey):
    with pytest.raises(NoteError):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("offset", range(len(NOTE.encode())))
def test_no_changed_byte_leaves_the_note_verified(offset):
    raw = bytearray(NOTE.encode())
    raw[offset] ^= 1
    with pytest.raises((NoteError, UnicodeDecodeError)):
        open_note(raw.decode(), PETER)


def test_a_note_of_somebody_else_is_refused():
    with pytest.raises(NoteError, match="no signature by EnochRoot"):
        open_note(NOTE, ENOCH)


def test_a_bad_signature_of_a_known_key_spoils_a_good_one():
    with pytest.raises(NoteError, match="EnochRoot is wrong"):
        open_note(BOTH.replace("RvMc+QQ=", "RvMc+QA="), PETER, ENOCH)


@pytest.mark.parametrize(
    "note",
    ["", "text\n", "text\n\n", "text\n\nno dash\n", "a\tb\n\n— x AAAAAAA=\n", "a\n\n— x AAA=\n"],
)
def test_a_malformed_note_is_refused(note):
    with pytest.raises(NoteError):
        open_note(note, PETER)


def test_a_note_with_more_than_a_hundred_signatures_is_refused():
    with pytest.raises(NoteError, match="more than 100"):
        open_note(NOTE + (VECTOR["other_signature"] + "\n") * 100, PETER)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b"])
def test_a_log_cannot_have_a_name_that_a_note_cannot_carry(name):
    with pytest.raises(NoteError):
        Signer(name, bytes(32))


@pytest.mark.parametrize("text", ["no newline", "tab\t\n", "\x00\n"])
def test_what_is_not_a_note_text_is_not_signed(text):
    with pytest.raises(NoteError):
        SIGNER.sign(text)


@given(st.integers(0, 2**60), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_reads_back_as_it_was_written(size, root):
    checkpoint = Checkpoint("PeterNeumann", size, root)
    assert parse_checkpoint(checkpoint.text()) == checkpoint
    assert open_checkpoint(SIGNER.sign(checkpoint.text()), PETER) == checkpoint


def test_extension_lines_are_allowed():
    text = Checkpoint("PeterNeumann", 1, EMPTY_ROOT).text() + "extension\n"
    assert parse_checkpoint(text).size == 1


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        "o\n01\n" + base64.b64encode(EMPTY_ROOT).decode() + "\n",
        "o\n-1\n" + base64.b64encode(EMPTY_ROOT).decode() + "\n",
        "o\n1\nAAAA\n",
        "o\n1\n???\n",
        "o\n1\n" + base64.b64encode(EMPTY_ROOT).decode(),
        "\n1\n" + base64.b64encode(EMPTY_ROOT).decode() + "\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text):
    with pytest.raises(NoteError):
        parse_checkpoint(text)


def test_a_checkpoint_of_another_log_under_a_trusted_key_is_refused():
    note = SIGNER.sign(Checkpoint("other.example/log", 0, EMPTY_ROOT).text())
    with pytest.raises(NoteError, match="another log"):
        open_checkpoint(note, PETER)
