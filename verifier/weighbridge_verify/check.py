"""The steps of a verification, and what is said about each.

Rule: what is wrong is said, and what was not checked, too; control characters are not printed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from . import Broken, Unreadable
from .archive import MANIFEST, Pack
from .notes import LOG, WITNESS, Key, Signed
from .records import Records
from .tree import WIDTH, Tree

_SMALL = {"README.txt", "checkpoint", "keys/log", "keys/witnesses", MANIFEST, "report.json"}


class Check:
    """What was said (`lines`), and how many `problems` there are, after a verification.

    The reviewer trusts `keys` (of the log; if empty, the pack's word is taken) and `mine` (of
    witnesses, of whom `quorum` must have cosigned), and `kept` checkpoints, by name, from before.
    """

    def __init__(
        self, pack: Pack, keys: list[Key], mine: list[Key], kept: Mapping[str, bytes], quorum: int
    ) -> None:
        self.lines, self.problems, self._pack, self._keys = list[str](), 0, pack, keys
        with suppress(Unreadable):
            with self._step("1 the archive is whole, each file is what the manifest names"):
                pack.check()
            with self._step("2 the log's key signed the checkpoint", ground=True):
                self._signature()
            with self._step("3 cosignatures under known keys are right"):
                self._witnesses(mine, quorum)
            with self._step("4 every record and hash leads to the signed root", ground=True):
                self._tree()
            with self._step("5 earlier checkpoints are the beginning of the same log"):
                self._earlier(kept)
            with self._step("6 records are canonical, there once, the next ones of another time"):
                self._records()
            with self._step("7 the numbers of every instance are complete, or a gap explains them"):
                for word, text in self._counted.numbers():
                    self._say(word, text)
            with self._step("8 the report says what the records say"):
                self._counted.agree()
        self._say("NOT CHECKED", "whether records are true, clocks right, and all answers recorded")
        self._say("NOT CHECKED", "numbers before an instance's first or after its last; README.txt")

    def _say(self, word: str, text: str) -> None:
        self.lines.append(f"{word:<12}" + "".join(c if " " <= c <= "~" else "?" for c in text))
        self.problems += word == "PROBLEM"

    @contextmanager
    def _step(self, title: str, *, ground: bool = False) -> Iterator[None]:
        before = self.problems
        try:
            yield
        except Broken as exc:
            self._say("PROBLEM", str(exc))
        self._say("FAILED" if self.problems > before else "checked", title)
        if self.problems > before and ground:
            self._say("NOT CHECKED", "the steps after this one, which build on it")
            raise Unreadable(title)

    def _signature(self) -> None:
        named = self._named("keys/log", LOG)
        if not self._keys:
            self._say("WARNING", "the log's key came from the pack itself: this shows little")
        self._spans = self._followed(self._keys or named)
        if not named or not set(named) <= {key for key, _, _ in self._spans}:
            self._say("PROBLEM", "the pack names another log key than you gave")
        self._signed = self._opened("checkpoint", self._pack["checkpoint"])
        self._say("found", f"log {self._signed.origin}: {self._signed.size} records signed")

    def _followed(self, trusted: list[Key]) -> list[tuple[Key, int, int]]:
        """Who signs trees from which size to which: as trusted, or along rotations from there."""
        spans: list[tuple[Key, int, int]] = []
        names = [name for name in self._pack.names if name.startswith("rotations/")]
        for note in sorted((Signed.parse(self._pack[name]) for name in names), key=lambda n: n[1]):
            mark, _, *said = *note.text.split("\n")[3].split(" "), "", ""
            old, new = (Key.parse(text, LOG) for text in said[:2])
            last, at, _ = spans.pop() if spans else (old, 0, 0)
            good = mark == "weighbridge-key-rotation/1" and None not in (note.by(old), note.by(new))
            if not good or at > note.size or last != old or {old.name, new.name} != {note.origin}:
                raise Broken("a key was swapped: a rotation lacks a signature, or the one before")
            spans += [(old, at, note.size), (new, note.size, 1 << 63)]
        if spans and not set(trusted) & {key for key, _, _ in spans}:
            raise Broken("the log's key was rotated, and the key that you gave is none of its keys")
        return spans or [(key, 0, 1 << 63) for key in trusted]

    def _witnesses(self, mine: list[Key], quorum: int) -> None:
        known, seen = dict.fromkeys([*mine, *self._named("keys/witnesses", WITNESS)]), 0
        for key in known:
            time_s, whose = self._signed.by(key), "yours" if key in mine else "from the pack"
            moment = f"{datetime.fromtimestamp(min(time_s or 0, 1 << 36), UTC):%Y-%m-%d %H:%M:%S}"
            done = "did not sign this checkpoint" if time_s is None else f"cosigned at {moment} UTC"
            self._say("found", f"witness {key.name} (its key is {whose}) {done}")
            seen += time_s is not None and key in mine
        ids = {(key.name, key.key_id) for key in [*(span[0] for span in self._spans), *known]}
        for name, key_id, _ in self._signed.lines:
            if (name, key_id) not in ids:
                self._say("NOT CHECKED", f"the signature of {name}+{key_id.hex()}: unknown key")
        if seen < quorum:
            raise Broken(f"{seen} of your witnesses cosigned, you ask for {quorum}")
        if not seen:
            self._say("NOT CHECKED", "whether others see the same log: no witness of yours")

    def _tree(self) -> None:
        signed, pack = self._signed, self._pack
        self._counted = Records(pack["report.json"], signed.origin, signed.size, len(pack.names))
        first, end = self._counted.leaves
        self._bundles = range(max(first - 1, 0) // WIDTH, min(end, signed.size - 1) // WIDTH + 1)
        names = sorted(n for n in pack.names if n.startswith(("checkpoints/", "rotations/")))
        self._older = {name: self._opened(name, pack[name]) for name in names}
        sizes = {n: o.size for n, o in self._older.items() if o.size < signed.size or n[0] == "r"}
        belong = {f"{name.partition('/')[0]}/{size}" for name, size in sizes.items()}
        self._hashes = Tree(pack, signed.size, self._bundles, sizes.values())
        wanted = _SMALL | belong | set(self._hashes.names.values())
        if odd := sorted(pack.names ^ wanted)[:20]:
            raise Broken(f"what does not belong into the pack, or is missing: {', '.join(odd)}")
        self._hashes.check(signed.root)
        times = (max(min(self._counted.given[n], 1 << 56), 0) for n in ("from_us", "to_us"))
        since, until = (datetime.fromtimestamp(0, UTC) + timedelta(0, 0, time) for time in times)
        self._say("found", f"records {first} to {end - 1}, of {since} to {until}")
        if end == signed.size:
            self._say("NOT CHECKED", "whether records of that time came after the checkpoint")

    def _earlier(self, kept: Mapping[str, bytes]) -> None:
        mine = {f"your {name}": self._opened(name, data) for name, data in kept.items()}
        for name, older in (self._older | mine).items():
            if older.size > self._signed.size:
                raise Broken(f"{name}: {older.size} records, the pack fewer: older, or rolled back")
            if (root := self._hashes.root(older.size)) is None:
                raise Broken(f"{name} cannot be compared: ask for a pack with --since-checkpoint")
            if root != older.root:
                raise Broken(f"{name}: its {older.size} records are not this log's first: forked")
            self._say("found", f"{name} ({older.size} records) is the beginning of this log")
        if not mine:
            self._say("NOT CHECKED", "whether it was rewritten since you saw it: no --earlier")

    def _records(self) -> None:
        for index in self._bundles:
            for place, entry in enumerate(self._hashes.entries(index)):
                self._counted.add(index * WIDTH + place, entry)
        for problem in self._counted.problems[:100]:
            self._say("PROBLEM", problem)

    def _opened(self, name: str, data: bytes) -> Signed:
        signed = Signed.parse(data)
        keys = [key for key, first, last in self._spans if first <= signed.size <= last]
        if all(signed.by(key) is None for key in keys if key.name == signed.origin):
            raise Broken(f"{name}: the checkpoint of {signed.origin} lacks the log's signature")
        return signed

    def _named(self, name: str, kind: int) -> list[Key]:
        text = self._pack[name][: 1 << 16].decode(errors="replace")
        return [Key.parse(line, kind) for line in text.splitlines()]
