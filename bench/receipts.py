"""A receipt from a log of 10^8 leaves: how large its proof is, and how long a check takes.

Rule: the tree is synthetic, the proof is not. The leaves repeat with a period of 256 real records,
so every complete subtree of a height is the same and need not be stored; the root, the path and
the signed checkpoint are those of a log whose 10^8 records really are these. Two witnesses have
cosigned. Each proof is read and checked from its text alone.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from audit.cosignature import Cosigner, with_signatures
from audit.keys import Keyring
from audit.merkle import inclusion_proof, leaf_hash, node_hash, range_root
from audit.note import Checkpoint
from audit.prove import format_proof, verify_proof
from audit.record import now_us
from audit.seals import Seals

from .figures import Figures
from .records import Maker

__all__ = ["RepeatedLeaves", "measure"]

ORIGIN = "weighbridge.local/decisions"
_PERIOD = 256
_PROOFS = 500


class RepeatedLeaves:
    """A HashReader over leaves that repeat after 256: see audit.merkle.HashReader."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """`leaves` are 256 hashes."""
        self._rows = [list(leaves)]
        while len(row := self._rows[-1]) > 1:
            self._rows.append([node_hash(*row[i : i + 2]) for i in range(0, len(row), 2)])
        self._whole = self._rows.pop()
        while len(self._whole) < 64:
            self._whole.append(node_hash(self._whole[-1], self._whole[-1]))

    def node(self, level: int, index: int) -> bytes:
        """The root of the index-th complete subtree of 2**level leaves."""
        whole = level - len(self._rows)
        return self._whole[whole] if whole >= 0 else self._rows[level][index % (_PERIOD >> level)]


def measure(found: Figures, directory: Path, *, leaves: int) -> None:
    """`receipt_bytes` and `receipt_verify_ms`."""
    keyring = Keyring.load_or_create(directory / "keys")
    maker = Maker(keyring, Seals(directory / "log", keyring, create=True), kept=0)
    entries = [maker.make().data for _ in range(_PERIOD)]
    tree = RepeatedLeaves([leaf_hash(entry) for entry in entries])
    checkpoint = Checkpoint(ORIGIN, leaves, range_root(tree, 0, leaves))
    note = keyring.signer(ORIGIN).sign(checkpoint.text())
    for name in ("witness.example.org/a", "witness.example.org/b"):
        cosigner = Cosigner(name, keyring.random(32))
        line = cosigner.cosign(checkpoint.text(), now_us() // 1_000_000)
        note = with_signatures(note, [line.rstrip("\n")])
    key, draw = str(keyring.verifier_key(ORIGIN)), random.Random(1)
    sizes, times = [], []
    for index in [0, leaves - 1, *(draw.randrange(leaves) for _ in range(_PROOFS))]:
        text = format_proof(index, inclusion_proof(tree, index, leaves), note)
        sizes.append(len(text.encode()))
        began = time.perf_counter()
        proven = verify_proof(text, entries[index % _PERIOD], key)
        times.append((time.perf_counter() - began) * 1e3)
        if (proven.index, proven.checkpoint) != (index, checkpoint):
            raise SystemExit(f"the proof of leaf {index} proves something else")
    found.note("receipt_bytes", max(sizes), f"the largest of {len(sizes)}, two cosignatures in it")
    slowest = sorted(times)[int(len(times) * 0.99)]
    text = f"median; p99 {slowest:.3f}; {leaves:,} leaves"
    found.note("receipt_verify_ms", round(statistics.median(times), 3), text)
