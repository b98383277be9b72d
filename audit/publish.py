"""From the write-ahead log to what the world can check: tiles, and a signed checkpoint.

Rules:
1. It takes what is durable and committed, never what is about to be: a checkpoint cannot cover a
   record that a crash could take away. What the writer still has at hand (fresh.py) is not read
   back.
2. It never signs a tree that does not extend the last tree it signed: it continues from tiles
   whose root equals the signed one, or rebuilds them from the log and compares.
3. The order is tiles, then checkpoint. If we crash between, the tiles are a little ahead, which
   harms nobody; tiles lost in a power cut are missed on the next open, and rebuilt.
Used by one thread, which need not be the writer's.
Read next: log.py.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .boundary import CHECKPOINTS_NAME, first_leaf, read_boundary
from .bundle import Bundle
from .cosignature import with_signatures
from .cursor import WalCursor
from .errors import LogDamaged, LogUnavailable, NoteError
from .files import make_directory, replace_file
from .fresh import Fresh
from .marker import Position
from .note import Checkpoint, Signer, VerifierKey, parse_checkpoint, split_note
from .rotation import KeyChain, rotation_path, rotation_text
from .tiles import HASH_BYTES, TileBuilder, tiles_of, write_tile

CHECKPOINT_NAME = "checkpoint"


def read_checkpoint(directory: Path) -> str | None:
    """The signed note in the log's `checkpoint` file, unverified; None if there is none.

    Raises:
        LogDamaged: it is not even text.
    """
    path = directory / CHECKPOINT_NAME
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        raise LogDamaged(
            path, offset=exc.start, expected="text in UTF-8", found="other bytes"
        ) from exc


def load_checkpoint(directory: Path, chain: KeyChain) -> Checkpoint | None:
    """The log's last checkpoint, verified with the log's keys; None if it never had one.

    Where its file is lost, or an older one was put back, it is the last one that a pruning or a key
    rotation kept.

    Raises:
        LogDamaged: it is damaged, or another key or log made it; or the log was pruned, and none
            that covers what went is left.
    """
    note = read_checkpoint(directory)
    if note is None:
        return _last_kept(directory, chain)
    try:
        return max((chain.open(note), *_kept(directory, chain)), key=lambda tree: tree.size)
    except NoteError as exc:
        raise LogDamaged(
            directory / CHECKPOINT_NAME,
            offset=None,
            expected=f"a checkpoint signed by {chain.newest.name}+{chain.newest.key_id.hex()}",
            found=str(exc),
        ) from exc


def _kept(directory: Path, chain: KeyChain) -> list[Checkpoint]:
    kept = list(chain.trees)
    for path in (directory / CHECKPOINTS_NAME).glob("*"):
        with suppress(NoteError, OSError, ValueError):
            if path.is_file():  # a pipe would be waited for
                kept.append(chain.open(path.read_text(encoding="utf-8")))
    return kept


def _last_kept(directory: Path, chain: KeyChain) -> Checkpoint | None:
    last = max(_kept(directory, chain), key=lambda tree: tree.size, default=None)
    if (0 if last is None else last.size) < first_leaf(directory):
        raise LogDamaged(
            directory / CHECKPOINT_NAME,
            offset=None,
            expected="a signed checkpoint, as the log was pruned",
            found="no such file, and none that covers what went in `checkpoints`",
        )
    return last


class Publisher:
    """Keeps the tiles and the checkpoint of one log up to date.

    Attributes:
        signed: the last signed checkpoint, None before the first.
        rebuilt: whether tiles had to be made anew from the log.
        fresh: what the writer has just made durable.
        pause: called between pieces of work of some tens of microseconds; where an event loop wants
            the interpreter too, it should sleep.
    """

    def __init__(self, directory: Path, signer: Signer, signed: Checkpoint | None) -> None:
        self._directory = directory
        self._signer = signer
        self._cursor = WalCursor(directory)
        self._tiles: TileBuilder | None = None
        self._in_place = False
        self.signed = signed
        self.rebuilt = False
        self.fresh = Fresh()
        self.pause: Callable[[], None] = lambda: None

    def prepare(self, upto: Position) -> None:
        """Take in the first `upto.leaves` leaves without signing them.

        So that a checkpoint has little left to do: read all at once, a second's records would keep
        the interpreter from everybody else for as long as several requests take.

        Raises:
            LogUnavailable, LogDamaged: as `publish`.
        """
        try:
            tiles = self._tiles or self._resume(upto)
            self._tiles = None  # a fault from here on spoils it
            self._feed(tiles, upto)
        except OSError as exc:
            raise LogUnavailable(f"could not write tiles: {exc}") from exc
        self._tiles = tiles

    def publish(self, upto: Position) -> Checkpoint:
        """Sign the tree of the first `upto.leaves` leaves, unless that is the last one signed.

        The first time, it is signed again where its file is lost or another one is there.

        Raises:
            LogUnavailable: the disk refused; the last checkpoint stands.
            LogDamaged: the log does not hold what was signed or committed; nothing was signed.
        """
        try:
            tiles = self._tiles or self._resume(upto)
            self._tiles = None  # a fault from here on spoils it
            if self.signed is None or upto.leaves > self.signed.size or not self._is_in_place():
                self._feed(tiles, upto)
                self._write_edge(tiles)
                self.signed = self._sign(tiles)
            self._in_place = True
        except OSError as exc:
            raise LogUnavailable(f"could not write a checkpoint: {exc}") from exc
        self._tiles = tiles
        return self.signed

    @property
    def key(self) -> VerifierKey:
        """The key that signs."""
        return self._signer.verifier_key

    def rotate(self, upto: Position, signer: Signer, leaf: int) -> Checkpoint:
        """Let `signer` sign from now on: the tree that holds `leaf` is signed by both keys.

        Raises:
            LogUnavailable: the disk refused; the old key goes on.
            LogDamaged: as `publish`.
        """
        tree = self.publish(upto)
        text = rotation_text(tree, leaf, self.key, signer.verifier_key)
        path = rotation_path(self._directory, tree.size)
        try:
            make_directory(path.parent)
            # If we crash before this, the old key goes on; after it, only the new one may.
            replace_file(path, _both(self._signer.sign(text), signer.sign(text)).encode())
            self._signer, old = signer, self._signer
            both = _both(old.sign(tree.text()), signer.sign(tree.text()))
            replace_file(self._directory / CHECKPOINT_NAME, both.encode())
        except OSError as exc:
            raise LogUnavailable(f"could not write a key rotation: {exc}") from exc
        return tree

    def _sign(self, tiles: TileBuilder) -> Checkpoint:
        checkpoint = Checkpoint(self._signer.verifier_key.name, tiles.size, tiles.frontier.root())
        note = self._signer.sign(checkpoint.text())
        replace_file(self._directory / CHECKPOINT_NAME, note.encode())
        return checkpoint

    def _is_in_place(self) -> bool:
        """Whether the file of the last checkpoint holds it; read once."""
        if self._in_place:
            return True
        note = read_checkpoint(self._directory)
        return note is not None and parse_checkpoint(split_note(note)[0]) == self.signed

    def _feed(self, tiles: TileBuilder, upto: Position, stop: int | None = None) -> None:
        stop = upto.leaves if stop is None else stop
        while (group := self.fresh.take(tiles.size, stop)) is not None:
            tiles.extend(Bundle.of(group.entries, group.bundle), group.leaves)
        if tiles.size == stop:
            return
        self._cursor.seek(tiles.size)
        for frame in self._cursor.frames(upto):
            tiles.extend(frame.bundle()[tiles.size - frame.first : stop - frame.first])
            if tiles.size == stop:
                return

    def _resume(self, upto: Position) -> TileBuilder:
        if self.signed is None or self.signed.size == 0:
            return self._builder()
        if self._all_there(self.signed.size):
            try:
                tiles = self._builder()
                tiles.resume(self._directory, self.signed.size)
                if tiles.frontier.root() == self.signed.root:
                    return tiles
            except LogDamaged:
                pass  # tiles are derived: what is wrong with them is mended below
        return self._rebuild(upto, self.signed)

    def _rebuild(self, upto: Position, signed: Checkpoint) -> TileBuilder:
        tiles = self._builder()
        boundary = read_boundary(self._directory)
        if boundary is not None:
            tiles.begin(boundary.first_leaf, boundary.whole_rows())
        self._feed(tiles, upto, signed.size)
        if tiles.frontier.root() != signed.root:
            raise LogDamaged(
                self._directory / "wal",
                offset=None,
                expected=f"the {signed.size} leaves of the signed root {signed.root.hex()}",
                found=f"leaves whose root is {tiles.frontier.root().hex()}",
            )
        self._write_edge(tiles)
        self.rebuilt = True
        return tiles

    def _builder(self) -> TileBuilder:
        return TileBuilder(
            lambda tile, data: write_tile(self._directory, tile, data), pause=self._pause
        )

    def _pause(self) -> None:
        self.pause()

    def _write_edge(self, tiles: TileBuilder) -> None:
        for tile, data in tiles.edge():
            write_tile(self._directory, tile, data)

    def _all_there(self, size: int) -> bool:
        for tile in tiles_of(size, first_leaf(self._directory)):
            try:
                length = os.stat(f"{self._directory}/{tile.path()}").st_size  # noqa: PTH116  quick
            except FileNotFoundError:
                return False
            if length < 2 or (tile.level >= 0 and length != tile.width * HASH_BYTES):
                return False
        return True


def _both(note: str, other: str) -> str:
    """A note with the signatures of two notes of the same text."""
    return with_signatures(note, split_note(other)[1])
