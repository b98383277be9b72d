"""The signed log as Parquet files, partitioned by type and day, for other people's engines.

    type=<type>/day=<YYYY-MM-DD>/part-<first leaf>-<last leaf>.parquet
    _manifest.json     which leaves are there, in which parts, and their digests

Rules:
1. A step is at most 65,536 leaves of one segment of the write-ahead log; each leaf of a step is in
   exactly one part. Steps follow one another without a gap, so the manifest shows a missing leaf.
2. A step is announced in the manifest, then its parts are put, then it is entered as done. If we
   crash in between, the next run makes that same step again, with the same bytes, under the same
   names: nothing is there twice, and nothing is there in half.
3. A part is put atomically: renamed on a file system, one put on an object store.
4. Only what a checkpoint covers is written. The manifest keeps the hash of each step's last leaf: a
   log that has another one there is refused.
One exporter per destination: a lock holds off a second one on the same file system; on an object
store the operator does.
Source: Hive partitioning, as DuckDB, pyarrow, Spark and Ray read it.
Read next: sql.py.
"""

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from .columns import Gathering, row_of
from .errors import LogDamaged, NotFound, RequestError
from .files import make_directory, replace_file
from .frames import segments
from .merkle import leaf_hash
from .note import parse_checkpoint
from .reader import LogReader

MANIFEST = "_manifest.json"
STEP_LEAVES = 65_536
_VERSION = 1
_ROW_GROUP = 16_384


class ParquetMismatch(RequestError):
    """The destination holds leaves of another log, or is in the hands of another exporter."""

    status_hint = 409


@dataclass(frozen=True, slots=True)
class Part:
    """One file: rows of one type and day."""

    path: str
    type: str
    first: int
    last: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Step:
    """The leaves [first, end), in their parts."""

    first: int
    end: int
    last_leaf_hash: str
    parts: list[Part]


@dataclass(slots=True)
class Manifest:
    """What a destination holds; `announced` is a step whose parts may be there in part."""

    origin: str
    steps: list[Step] = field(default_factory=list)
    announced: list[int] | None = None
    version: int = _VERSION

    @property
    def end(self) -> int:
        """How many leaves are there: all of [0, end)."""
        return self.steps[-1].end if self.steps else 0

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
        """The URL without what may be secret in it."""
        parts = urlsplit(url)
        if not parts.scheme:
            return url
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def get(self, path: str) -> bytes | None:
        """The bytes of a file, or None."""
        try:
            found: bytes = self.fs.cat_file(f"{self.root}/{path}")
        except FileNotFoundError:
            return None
        return found

    def put(self, path: str, data: bytes) -> None:
        """Put a whole file, atomically."""
        if self.local is not None:
            make_directory((self.local / path).parent)
            replace_file(self.local / path, data)
        else:
            self.fs.pipe_file(f"{self.root}/{path}", data)

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
            said = orjson.loads(raw)
            if said["version"] != _VERSION:
                raise ValueError(f"version {said['version']}")
            steps = [
                Step(**{**step, "parts": [Part(**part) for part in step["parts"]]})
                for step in said["steps"]
            ]
            return Manifest(said["origin"], steps, said["announced"], said["version"])
        except (ValueError, KeyError, TypeError) as exc:
            raise ParquetMismatch(
                f"could not read {self.name}/{MANIFEST}: {exc}; export to an empty folder"
            ) from exc

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


_LOCAL = fsspec.get_filesystem_class("file")


def signed_size(reader: LogReader) -> tuple[str, int]:
    """The log's name and how many leaves its checkpoint covers; its signature is not checked.

    Raises:
        NotFound: the log was never signed.
    """
    note = reader.checkpoint()
    checkpoint = parse_checkpoint(note.partition("\n\n")[0] + "\n")
    return checkpoint.origin, min(checkpoint.size, reader.size())


def export(
    reader: LogReader,
    destination: Destination,
    *,
    all_signed: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write what is new as Parquet; returns what is there now.

    Args:
        reader: of the log.
        destination: where to.
        all_signed: also of the segment that is being written, as far as it is signed.
        told: learns after each step how many leaves are there.

    Raises:
        ParquetMismatch: the destination is of another log, or another export runs.
        LogDamaged, DecodeError: the log cannot be read.
        OSError: the destination refused; what is entered in the manifest stands.
    """
    origin, signed = signed_size(reader)
    starts = [first for first, _ in segments(reader.directory)]
    end = signed if all_signed else min(signed, starts[-1] if starts else 0)
    with destination.locked():
        manifest = destination.manifest() or Manifest(origin)
        check_same_log(manifest, origin, reader, destination)
        while manifest.announced or manifest.end < end:
            first = manifest.end
            stop = _end_of_step(first, end, starts)
            if manifest.announced:
                stop = manifest.announced[1]
            else:
                manifest.announced = [first, stop]
                _enter(destination, manifest)
            step = _write_step(reader, destination, first, stop)
            manifest.steps.append(step)
            manifest.announced = None
            _enter(destination, manifest)
            told(manifest.end)
    return manifest


def check(reader: LogReader, destination: Destination) -> list[str]:
    """What does not agree between the Parquet files and the log, in words; empty if all does.

    Every leaf below the manifest's end must be there once, with the hash that the log has; every
    part must have the digest that it was written with.
    """
    manifest = destination.manifest()
    if manifest is None:
        raise NotFound(f"could not find {MANIFEST} in {destination.name}; export to it first")
    problems, known, at = [], set(), 0
    for step in manifest.steps:
        if step.first != at:
            problems.append(f"the leaves from {at} to {step.first} are in no step")
        at = step.end
        found: dict[int, str] = {}
        for part in step.parts:
            known.add(part.path)
            problems += _check_part(destination, part, found)
        for leaf, entry in reader.raw(step.first, step.end):
            if found.pop(leaf, None) != leaf_hash(entry).hex():
                problems.append(f"leaf {leaf} is missing, or is not the log's")
        problems += [f"leaf {leaf} is not in the log" for leaf in found]
    pending = manifest.announced is not None
    problems += [
        f"{path} is in no step of the manifest"
        for path in destination.names()
        if path not in known and not pending
    ]
    return problems


def _check_part(destination: Destination, part: Part, found: dict[int, str]) -> list[str]:
    data = destination.get(part.path)
    if data is None:
        return [f"{part.path} is missing"]
    if hashlib.sha256(data).hexdigest() != part.sha256:
        return [f"{part.path} was changed"]
    rows = pq.read_table(io.BytesIO(data), columns=["leaf", "leaf_hash"], partitioning=None)
    leaves = dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    twice = [f"leaf {leaf} is there twice" for leaf in leaves.keys() & found.keys()]
    found |= leaves
    return twice


def _end_of_step(first: int, end: int, starts: list[int]) -> int:
    """Where a step that begins at `first` ends: its segment's end, a multiple, or `end`."""
    after = min((start for start in starts if start > first), default=end)
    segment = max((start for start in starts if start <= first), default=0)
    full = segment + ((first - segment) // STEP_LEAVES + 1) * STEP_LEAVES
    return min(after, full, end)


def _write_step(reader: LogReader, destination: Destination, first: int, end: int) -> Step:
    gathered, last, count = Gathering(), b"", 0
    for leaf, entry in reader.raw(first, end):
        gathered.add(row_of(leaf, entry))
        last, count = entry, count + 1
    if count != end - first:
        raise LogDamaged(
            reader.directory, offset=None, expected=f"{end} leaves", found=f"{first + count}"
        )
    parts = []
    for (type_, day), rows in gathered.finish().items():
        low, high = (rows["leaf"][place].as_py() for place in (0, -1))
        path = f"type={type_}/day={day}/part-{low:020d}-{high:020d}.parquet"
        data = _parquet(rows)
        destination.put(path, data)
        parts.append(Part(path, type_, low, high, len(rows), hashlib.sha256(data).hexdigest()))
    return Step(first, end, leaf_hash(last).hex(), parts)


def _parquet(rows: pa.Table) -> bytes:
    """The same rows give the same bytes, with the same version of pyarrow."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    return buffer.getvalue()


def _enter(destination: Destination, manifest: Manifest) -> None:
    said: dict[str, Any] = asdict(manifest)
    data = orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    destination.put(MANIFEST, data)


def check_same_log(
    manifest: Manifest, origin: str, reader: LogReader, destination: Destination
) -> None:
    """Refuse, by raising ParquetMismatch, files whose leaves this log does not have."""
    if manifest.origin != origin:
        raise ParquetMismatch(
            f"could not use {destination.name}: it holds the log {manifest.origin}, "
            f"not {origin}; export to an empty folder"
        )
    announced = manifest.announced[1] if manifest.announced else 0
    size = reader.size()
    holds = max(manifest.end, announced) <= size and (
        not manifest.steps
        or any(
            leaf_hash(entry).hex() == manifest.steps[-1].last_leaf_hash
            for _, entry in reader.raw(manifest.end - 1, manifest.end)
        )
    )
    if not holds:
        raise ParquetMismatch(
            f"could not use {destination.name}: it holds leaves that this log of {size} does "
            "not have, so the log was rolled back or is another one; export to an empty folder"
        )


__all__ = [
    "MANIFEST",
    "Destination",
    "Manifest",
    "ParquetMismatch",
    "Part",
    "Step",
    "check",
    "check_same_log",
    "export",
    "signed_size",
]
