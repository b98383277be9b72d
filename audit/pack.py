"""Evidence packs: what a reviewer needs to check the decisions of a time, in one archive.

    README.txt              for the reviewer, in plain words
    checkpoint              the signed tree head that covers everything here, with all signatures
    checkpoints/<size>      earlier ones: the one given, those that witnesses cosigned
    keys/log, keys/witnesses   public keys, one vkey a line; of the log, the newest
    rotations/<size>        where the log's key was rotated: how the keys before it lead to it
    manifest.json           {"files": {name: SHA-256}, "format": "weighbridge-evidence-pack/1"}
    report.json             counts, numbers, gaps, erasures (pack_report.py)
    tile/entries/<N>        entry bundles that hold the range (C2SP tlog-tiles)
    tile/<L>/<N>            the hashes that lead from them to the signed root, and to earlier roots

The bundles hold the leaves of the range and one more on each side, which is of another time: so the
range cannot be said to be longer than it is. The tiles are the right edge of the signed tree and of
each earlier one; above each full tile here its parent; level 0 of what the bundles hold is left
out, since it follows. So each hash of each tile is needed, and checked, on the way to the root.
Rule: the same checkpoint and the same range give the same bytes. Only entries go in, which hold
commitments and sealed parts, never payloads; no private key is read. What does not verify here is
not exported.
Read next: pack_range.py (which leaves), pack_report.py (what is counted), pack_zip.py (the bytes),
pack_readme.py (the words).
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import BinaryIO

from .bundle import format_bundle, parse_bundle
from .canonical import dumps
from .cosignature import with_signatures
from .cosigned import read_cosigned
from .errors import LeafPruned, LogDamaged, ProofError
from .merkle import LeafHashes, leaf_hash, range_root
from .note import Checkpoint, signature_names, split_note
from .pack_range import Chosen, Wanted
from .pack_readme import readme
from .pack_zip import write_archive
from .reader import LogReader
from .rotation import KeyChain, chain_of
from .tiles import HASH_BYTES, WIDTH, Tile, TileReader

PACK_FORMAT = "weighbridge-evidence-pack/1"


def write_pack(reader: LogReader, wanted: Wanted, chosen: Chosen, file: BinaryIO) -> Checkpoint:
    """Write the archive; returns the checkpoint that it is proved against.

    Raises:
        PackTooLarge: choose a shorter range.
        NoteError, ProofError, LogDamaged: the log does not verify; what was written is worthless.
        OSError: the file cannot be written.
    """
    pack = _Pack(reader, wanted, chosen)
    digests = {name: hashlib.sha256(pack.member(name)).hexdigest() for name in pack.names}
    manifest = dumps({"files": dict(digests), "format": PACK_FORMAT})
    names = sorted([*pack.names, "manifest.json"])
    write_archive(
        file, ((name, manifest if name == "manifest.json" else pack.member(name)) for name in names)
    )
    return pack.tree


def tiles_needed(size: int, first: int, end: int, earlier: Sequence[int]) -> set[Tile]:
    """The bundles and tiles of a pack; see the module's first lines."""
    bundles = range(max(first - 1, 0) // WIDTH, min(end, size - 1) // WIDTH + 1)
    places = [(0, index) for index in bundles]
    for tree in (size, *earlier):
        levels = range((tree.bit_length() + 7) // 8)
        places += [(n, (tree >> 8 * n) // WIDTH) for n in levels if (tree >> 8 * n) % WIDTH]
    tiles: set[Tile] = set()
    for level, index in places:  # grows while it is walked: a full tile asks for its parent
        tile = Tile(level, index, min(WIDTH, (size >> 8 * level) - index * WIDTH))
        if tile not in tiles:
            tiles.add(tile)
            if tile.width == WIDTH:
                places.append((level + 1, index // WIDTH))
    return {
        Tile(-1, tile.index, tile.width) if tile.level == 0 and tile.index in bundles else tile
        for tile in tiles
    }


class _Pack:
    def __init__(self, reader: LogReader, wanted: Wanted, chosen: Chosen) -> None:
        self._reader, self._wanted, self._chosen = reader, wanted, chosen
        cosigned = read_cosigned(reader.directory)  # before the checkpoint, which is never older
        latest = reader.checkpoint()
        notes = [latest, *cosigned] + ([] if wanted.since is None else [wanted.since])
        self._chain = chain = chain_of(reader.directory, wanted.log_key)
        self._notes = _by_tree(notes, chain)
        since = 0 if wanted.since is None else chain.open(wanted.since).size
        newest = chain.open(latest)
        begin = reader.first()
        if wanted.since is not None and since < begin:
            raise LeafPruned(
                f"could not export: the earlier checkpoint signs {since} leaves, and those before "
                f"{begin} were pruned; keep one of {begin} or more"
            )
        # One record more than the range, if there is one: it shows where the time ends.
        rotated = [tree.size for tree in chain.trees]
        least = max(min(chosen.end + 1, newest.size), since, *rotated)
        self.tree = self._main(newest, least)
        self._earlier = {
            tree.size: tree for tree in self._notes if begin <= tree.size < self.tree.size
        }
        for tree in (*self._earlier.values(), *chain.trees):
            _check_root(self._hashes, tree)
        earlier = {*self._earlier, *(size for size in rotated if size < self.tree.size)}
        self._tiles = {
            tile.path(): tile
            for tile in tiles_needed(self.tree.size, chosen.first, chosen.end, sorted(earlier))
        }
        self._texts = self._small_members()
        self.names = sorted([*self._texts, *self._tiles])

    def member(self, name: str) -> bytes:
        """The bytes of one member; the same at every call."""
        return self._texts[name] if name in self._texts else self._tile(self._tiles[name])

    @cached_property
    def _hashes(self) -> TileReader:
        return TileReader(self._reader.directory, self.tree.size)

    def _main(self, latest: Checkpoint, least: int) -> Checkpoint:
        """The newest cosigned tree that covers everything, else the newest tree."""
        for tree in sorted(self._notes, key=lambda tree: tree.size, reverse=True):
            if tree.size > latest.size:
                raise ProofError(
                    f"could not export: a checkpoint of {tree.size} leaves was signed, but the log "
                    f"signs {latest.size} now: it was rolled back"
                )
            names = set(signature_names(self._notes[tree]))
            cosigned = names != {tree.origin}
            if least <= tree.size < latest.size and cosigned:
                try:
                    _check_root(TileReader(self._reader.directory, tree.size), tree)
                except LogDamaged:
                    continue  # its edge was not kept when the tiles were made anew
                return tree
        _check_root(TileReader(self._reader.directory, latest.size), latest)
        return latest

    def _small_members(self) -> dict[str, bytes]:
        chosen, tree, wanted = self._chosen, self.tree, self._wanted
        witnesses = sorted(set(map(str, wanted.witness_keys)))
        report = chosen.report.body(
            origin=tree.origin, tree_size=tree.size, first=chosen.first, end=chosen.end
        )
        members = {
            "README.txt": readme(report, str(self._chain.newest), witnesses),
            "checkpoint": self._notes[tree],
            "keys/log": f"{self._chain.newest}\n",
            "keys/witnesses": "".join(f"{key}\n" for key in witnesses),
        }
        for size, earlier in self._earlier.items():
            members[f"checkpoints/{size}"] = self._notes[earlier]
        for rotation in self._chain.rotations:
            members[f"rotations/{rotation.tree.size}"] = rotation.note
        return {name: text.encode() for name, text in members.items()} | {
            "report.json": dumps(report)
        }

    def _tile(self, tile: Tile) -> bytes:
        """The bytes of a tile, after comparing them with the tile above."""
        level = max(tile.level, 0)
        data = row = held = self._hashes.hashes(level, tile.index)
        if tile.level < 0:
            entries = self._entries(tile)
            data, row = format_bundle(entries), b"".join(map(leaf_hash, entries))
        whole = tile.width == WIDTH
        if row != held or (whole and not self._fits_parent(level, tile.index)):
            raise LogDamaged(
                self._reader.directory / tile.path(),
                offset=None,
                expected="the hashes of the signed tree",
                found="others",
            )
        return data

    def _entries(self, tile: Tile) -> list[bytes]:
        """The entries of a bundle: from its file if it is full, else from the log."""
        if tile.width == WIDTH:
            with suppress(OSError, ValueError):
                data = (self._reader.directory / tile.path()).read_bytes()
                return parse_bundle(data, WIDTH)
        start = tile.index * WIDTH
        return [entry for _, entry in self._reader.raw(start, start + tile.width)]

    def _fits_parent(self, level: int, index: int) -> bool:
        row = self._hashes.hashes(level, index)
        leaves = [row[i : i + HASH_BYTES] for i in range(0, len(row), HASH_BYTES)]
        return LeafHashes(leaves).node(8, 0) == self._hashes.node(8 * (level + 1), index)


def _by_tree(notes: Sequence[str], chain: KeyChain) -> dict[Checkpoint, str]:
    """The notes by what they sign, each with the signatures of all of them."""
    found: dict[Checkpoint, str] = {}
    for note in notes:
        tree = chain.open(note)
        found[tree] = with_signatures(found.get(tree, note), split_note(note)[1])
    sizes = [tree.size for tree in found]
    if len(set(sizes)) < len(sizes):
        raise ProofError("could not export: two trees of the same size were signed: a fork")
    return found


def _check_root(hashes: TileReader, tree: Checkpoint) -> None:
    root = range_root(hashes, 0, tree.size)
    if root != tree.root:
        raise ProofError(
            f"could not export: the log's first {tree.size} leaves have root {root.hex()}, and "
            f"{tree.root.hex()} was signed"
        )
