"""A folder of Parquet files: what the manifest says is there, and how files get there.

Rule: a file is put atomically: renamed on a file system, one put on an object store. The manifest
names every step (a range of leaves), its parts and their digests; a step whose parts may be there
in part is announced in it.
Boundary: knows paths and bytes, no log and no rows.
Read next: parquet.py.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

import fsspec
import msgspec
import orjson

from .errors import RequestError
from .files import make_directory, replace_file

MANIFEST = "_manifest.json"
_VERSION = 1
_Leaf: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Span: TypeAlias = Annotated[list[_Leaf], msgspec.Meta(min_length=2, max_length=2)]
_Path: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^(?:[^/.][^/]*/)*[^/.][^/]*$")]


class ParquetMismatch(RequestError):
    """The destination holds leaves of another log, or is in the hands of another exporter."""

    status_hint = 409


@dataclass(frozen=True, slots=True)
class Part:
    """One file: rows of one type and day."""

    path: _Path
    type: str
    first: _Leaf
    last: _Leaf
    rows: _Leaf
    sha256: str


@dataclass(frozen=True, slots=True)
class Step:
    """The leaves [first, end), in their parts."""

    first: _Leaf
    end: _Leaf
    last_leaf_hash: str
    parts: list[Part]


@dataclass(slots=True)
class Manifest:
    """What a destination holds, from leaf `first` on.

    `announced` is a step whose parts may be there in part.
    """

    origin: str
    steps: list[Step] = field(default_factory=list)
    announced: _Span | None = None
    first: _Leaf = 0
    version: int = _VERSION

    @property
    def end(self) -> int:
        """Where they end: all of [first, end) are there."""
        return self.steps[-1].end if self.steps else self.first

    @property
    def leaves(self) -> range:
        """Which they are."""
        return range(self.first, self.end)

    def parts(self, type_: str) -> list[str]:
        """The paths of a type's parts, in log order."""
        return [part.path for step in self.steps for part in step.parts if part.type == type_]


class Destination:
    """A folder to hold the Parquet files: a path, or any URL that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Nothing is made or asked yet.

        Raises:
            ValueError: a URL of a kind that fsspec does not know, or whose package is missing.
        """
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as exc:
            raise ValueError(f"could not use {self.name_of(url)}: {exc}") from exc
        self.local = Path(self.root) if isinstance(self.fs, _LOCAL) else None
        self.name = self.name_of(url)

    @staticmethod
    def name_of(url: str) -> str:
        """The URL without what may be secret in it, or in a link of its chain (`a::b://c`)."""
        return "::".join(map(_without_secrets, url.split("::")))

    def get(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none (a pipe would be waited for)."""
        if self.local is not None and not (self.local / path).is_file():
            return None
        try:
            found: bytes = self.fs.cat_file(f"{self.root}/{path}")
        except FileNotFoundError:
            return None
        return found

    def altered(self, manifest: Manifest) -> str | None:
        """The first part that is not there as it was written; None if all are, or lie elsewhere.

        Files behind a URL are not read for this: who asks for a column should not load them all.
        """
        for part in (part for step in manifest.steps for part in step.parts):
            if self.local is None:
                break
            path = self.local / part.path
            if not path.is_file():  # a pipe would be waited for
                return part.path
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                    return part.path
        return None

    def put(self, path: str, data: bytes) -> None:
        """Put a whole file, atomically."""
        if self.local is not None:
            make_directory((self.local / path).parent)
            replace_file(self.local / path, data)
        else:
            self.fs.pipe_file(f"{self.root}/{path}", data)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{path}")

    def names(self) -> list[str]:
        """The paths of all Parquet files that are there."""
        found = self.fs.find(self.root) if self.fs.exists(self.root) else []
        root = self.root.rstrip("/") + "/"
        return sorted(str(path).removeprefix(root) for path in found if path.endswith(".parquet"))

    def manifest(self) -> Manifest | None:
        """The manifest, or None if nothing was exported yet.

        Raises:
            ParquetMismatch: it is not one that this version reads.
        """
        raw = self.get(MANIFEST)
        if raw is None:
            return None
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
            if manifest.version != _VERSION:
                raise ValueError(f"version {manifest.version}")
        except ValueError as exc:
            raise ParquetMismatch(
                f"could not read {self.name}/{MANIFEST}: {exc}; export to an empty folder"
            ) from exc
        return manifest

    def enter(self, manifest: Manifest) -> None:
        """Put a manifest; the inverse of `manifest`."""
        said: dict[str, Any] = asdict(manifest)
        self.put(MANIFEST, orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold off other exporters on the same file system."""
        if self.local is None:
            yield
            return
        make_directory(self.local)
        fd = os.open(self.local / "_lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as exc:
            raise ParquetMismatch(f"could not export to {self.name}: another export runs") from exc
        finally:
            os.close(fd)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


_LOCAL = fsspec.get_filesystem_class("file")

__all__ = ["MANIFEST", "Destination", "Manifest", "ParquetMismatch", "Part", "Step"]
