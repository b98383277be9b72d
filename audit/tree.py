"""The tree as a verifier rebuilds it: the root, every tile, every bundle, an earlier checkpoint.

Rule: everything is recomputed from the leaves. A tree that was signed or cosigned once must be the
beginning of this one; of leaves that were pruned since, as far as what is left of them shows it.
Read next: tilecheck.py (the files), verify.py.
"""

from collections.abc import Sequence
from pathlib import Path

from .boundary import PRUNED_NAME, Boundary
from .bundle import Bundle
from .errors import LogDamaged, ProofError
from .findings import Collector
from .merkle import EMPTY_ROOT, consistency_proof, verify_consistency
from .note import Checkpoint
from .rotation import rotation_sizes
from .tilecheck import TileChecker
from .tiles import TileBuilder, TileReader, edge_places

_ROOT_STEP, _TILE_STEP, _EARLIER_STEP, _COSIGNED_STEP = 3, 4, 5, 10


class TreeChecker:
    """Takes the leaves in order, then `finish`."""

    def __init__(
        self,
        directory: Path,
        found: Collector,
        signed: Checkpoint | None,
        earlier: Checkpoint | None,
        cosigned: Sequence[Checkpoint] = (),
        *,
        boundary: Boundary | None = None,
        kept: Sequence[Checkpoint] = (),
    ) -> None:
        self._directory = directory
        self._found = found
        self._signed = signed
        self._earlier = [(_EARLIER_STEP, "given", tree) for tree in (earlier,) if tree]
        self._earlier += [(_COSIGNED_STEP, "that a witness cosigned", tree) for tree in cosigned]
        self._earlier += [(_EARLIER_STEP, "kept when the log was pruned", tree) for tree in kept]
        self._first = 0 if boundary is None else boundary.first_leaf
        self._tiles = tiles = TileChecker(directory, found, first=self._first)
        self._builder = TileBuilder(lambda tile, row: tiles.full(tile, [row]), tiles.full)
        self._lost: int | None = None
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._wanted = {c.size for c in (signed, earlier, *cosigned, *kept) if c is not None}
        self._turns = rotation_sizes(directory)
        # Of pruned leaves `_check_turn` reads these.
        self._kept_places = set().union(*map(edge_places, self._turns))
        if boundary is not None:
            try:
                self._builder.begin(boundary.first_leaf, boundary.whole_rows())
            except LogDamaged as exc:
                found.problem(_TILE_STEP, str(exc), file=PRUNED_NAME)
                self._lost = boundary.first_leaf
            if boundary.first_leaf in self._wanted:
                self._roots[boundary.first_leaf] = self._builder.frontier.root()

    def leaves(self, entries: Bundle) -> None:
        """Take the next leaves."""
        if self._lost is not None:
            return
        builder, start = self._builder, 0
        end = builder.size + len(entries)
        wanted = sorted(size for size in self._wanted if builder.size < size <= end)
        if not wanted:
            builder.extend(entries)
            return
        for size in [*wanted, end]:
            stop = start + size - builder.size
            builder.extend(entries[start:stop])
            if size in self._wanted:
                self._roots[size] = builder.frontier.root()
            start = stop

    def lost(self, index: int) -> None:
        """Take note that a leaf is lost, after which the tree cannot be rebuilt."""
        if self._lost is None:
            self._lost = index

    def finish(self) -> None:
        """Check the roots, the right edge, and that no tile is missing or left over."""
        if self._lost is not None:
            self._found.problem(
                _ROOT_STEP,
                f"leaf {self._lost} is lost, so the tree from there on cannot be checked",
                leaf=self._lost,
            )
        self._check_root()
        for step, which, earlier in self._earlier:
            self._check_earlier(step, which, earlier)
        for tile, data in self._builder.edge():
            self._tiles.partials(tile.level, tile.index, data)
        if self._signed is not None:
            self._tiles.missing(self._signed.size)
        self._tiles.leftovers(self._kept_places, whole=self._lost is None)

    def _check_root(self) -> None:
        signed = self._signed
        root = None if signed is None else self._roots.get(signed.size)
        if signed is not None and root is not None and root != signed.root:
            self._found.problem(
                _ROOT_STEP,
                f"the first {signed.size} leaves have root {root.hex()}, but the checkpoint "
                f"signed {signed.root.hex()}: a leaf was changed, added, taken out or moved",
                file="wal",
            )

    def _check_earlier(self, step: int, which: str, earlier: Checkpoint) -> None:
        if self._signed is None:
            self._check_length(step, which, earlier)
        elif earlier.size > self._signed.size:
            self._found.problem(
                step,
                f"the checkpoint signs {self._signed.size} leaves, fewer than the {earlier.size} "
                f"of the one {which}: the log was rolled back, or an old checkpoint replayed",
                file="checkpoint",
            )
        if 0 < earlier.size < self._first:
            text = f"the checkpoint {which} signs {earlier.size} leaves, which were pruned since"
            if earlier.size in self._turns:
                self._check_turn(step, earlier)
            elif which == "given":
                self._found.problem(step, f"{text}: keep one of {self._first} or more", file="wal")
            else:
                self._found.note(f"{text}: it cannot be compared any more")
        root = self._roots.get(earlier.size)
        if root is not None and root != earlier.root:
            self._found.problem(
                step,
                f"the first {earlier.size} leaves are not those of the checkpoint {which}: "
                "the log was forked",
                file="wal",
            )

    def _check_length(self, step: int, which: str, earlier: Checkpoint) -> None:
        """Compare sizes where nothing is signed; where leaves are lost, that was said."""
        if self._lost is None and earlier.size > self._builder.size:
            self._found.problem(
                step,
                f"the log holds {self._builder.size} leaves, fewer than the {earlier.size} of the "
                f"checkpoint {which}: it was rolled back",
                file="wal",
            )

    def _check_turn(self, step: int, tree: Checkpoint) -> None:
        """Compare the tree of a key's rotation, whose leaves were pruned, by what is left of it."""
        if self._signed is None:
            return
        size, root = self._signed.size, self._signed.root
        try:
            proof = consistency_proof(TileReader(self._directory, size), tree.size, size)
            verify_consistency(tree.size, size, tree.root, root, proof)
        except (LogDamaged, ProofError) as exc:
            self._found.problem(
                step,
                f"the {tree.size} leaves at which the log's key was rotated cannot be shown to be "
                f"its first: {exc}",
                file="tile",
            )
