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
Read next: manifest.py, sql.py.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.parquet as pq

from .columns import Gathering, row_of
from .errors import LogDamaged, NotFound
from .frames import segments
from .manifest import MANIFEST, Destination, Manifest, ParquetMismatch, Part, Step
from .merkle import leaf_hash
from .note import parse_checkpoint
from .reader import LogReader

STEP_LEAVES = 65_536
_ROW_GROUP = 16_384
_RUNS = 20  # of wrong leaves that are named, a line each


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
        manifest = destination.manifest() or Manifest(origin, first=reader.first())
        check_same_log(manifest, origin, reader, destination)
        if manifest.end < reader.first():
            raise ParquetMismatch(
                f"could not export to {destination.name}: it ends at leaf {manifest.end}, and the "
                f"log begins at {reader.first()}, because it was pruned; export to an empty folder"
            )
        while manifest.announced or manifest.end < end:
            first = manifest.end
            stop = _end_of_step(first, end, starts)
            if manifest.announced:
                stop = manifest.announced[1]
            else:
                manifest.announced = [first, stop]
                destination.enter(manifest)
            step = _write_step(reader, destination, first, stop)
            manifest.steps.append(step)
            manifest.announced = None
            destination.enter(manifest)
            told(manifest.end)
    return manifest


def check(reader: LogReader, destination: Destination) -> list[str]:
    """What does not agree between the Parquet files and the log, in words; empty if all does.

    Every leaf below the manifest's end must be there once, with the hash that the log has, as far
    as it was not pruned; every part must have the digest that it was written with.
    """
    manifest = destination.manifest()
    if manifest is None:
        raise NotFound(f"could not find {MANIFEST} in {destination.name}; export to it first")
    problems, known, at = [], set(), manifest.first
    begin = reader.first()
    for step in manifest.steps:
        if step.first != at:
            problems.append(f"the leaves from {at} to {step.first} are in no step")
        at = step.end
        found: dict[int, str] = {}
        for part in step.parts:
            known.add(part.path)
            problems += _check_part(destination, part, found)
        found = {leaf: digest for leaf, digest in found.items() if leaf >= begin}
        wrong = [
            leaf
            for leaf, entry in reader.raw(max(step.first, begin), step.end)
            if found.pop(leaf, None) != leaf_hash(entry).hex()
        ]
        problems += _runs(wrong, "missing, or not the log's")
        problems += _runs(sorted(found), "not in the log")
    pending = manifest.announced is not None
    problems += [
        f"{path} is in no step of the manifest"
        for path in destination.names()
        if path not in known and not pending
    ]
    return problems


def _runs(leaves: list[int], what: str) -> Iterator[str]:
    """What is wrong with leaves, in order: a run of neighbours a line, the last line all others."""
    runs = groupby(enumerate(leaves), lambda pair: pair[1] - pair[0])
    said = 0
    for numbers in islice(([leaf for _, leaf in run] for _, run in runs), _RUNS):
        more = f" to {numbers[-1]}" if len(numbers) > 1 else ""
        yield f"lea{'ves' if more else 'f'} {numbers[0]}{more}: {what}"
        said += len(numbers)
    if said < len(leaves):
        yield f"{len(leaves) - said} more, up to leaf {leaves[-1]}: {what}"


def drop_pruned(reader: LogReader, destination: Destination) -> int:
    """Remove the steps whose leaves the log does not hold any more; how many leaves that were.

    If we crash in between, parts are left that no step names; running it again removes them.

    Raises:
        NotFound: nothing was exported there.
        ParquetMismatch: another export runs.
        OSError: the destination refused.
    """
    begin, dropped = reader.first(), 0
    with destination.locked():
        manifest = destination.manifest()
        if manifest is None:
            raise NotFound(f"could not find {MANIFEST} in {destination.name}; export to it first")
        while manifest.steps and manifest.steps[0].end <= begin:
            step = manifest.steps.pop(0)
            manifest.first = step.end
            dropped += step.end - step.first
        destination.enter(manifest)
        known = {part.path for step in manifest.steps for part in step.parts}
        for path in destination.names():
            last = path.rpartition("-")[2].partition(".")[0]
            if path not in known and last.isdecimal() and int(last) < manifest.first:
                destination.remove(path)
    return dropped


def _check_part(destination: Destination, part: Part, found: dict[int, str]) -> list[str]:
    data = destination.get(part.path)
    if data is None:
        return [f"{part.path} is missing"]
    if hashlib.sha256(data).hexdigest() != part.sha256:
        return [f"{part.path} was changed"]
    # From Arrow's own buffer and on this thread: a pool that reads from a Python file may still be
    # at work when the interpreter ends, and then the process aborts (apache/arrow#34314, #50482).
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        rows = file.read(columns=["leaf", "leaf_hash"], use_threads=False)
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
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    return bytes(buffer.getvalue())


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
        or manifest.end <= reader.first()  # pruned since: nothing is left to compare
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
    "drop_pruned",
    "export",
    "signed_size",
]
