"""The steps of a verification, and what is said about each.

Rule: a step that finds something wrong says so; what was not checked, for that or another reason,
is said, too. What comes from the pack is printed without control characters.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from . import Broken, Unreadable
from .archive import MANIFEST, Pack
from .notes import LOG, WITNESS, Key, Signed
from .records import Records
from .tree import WIDTH, Tree

_SMALL = {"README.txt", "checkpoint", "keys/log", "keys/witnesses", MANIFEST, "report.json"}


class Check:
    """One verification. Attributes: `lines`, to be read; `problems`, how many things do not hold.

    The reviewer trusts `keys` (of the log; if empty, the pack's word is taken) and `mine` (of
    witnesses, of whom `quorum` must have cosigned), and `kept` checkpoints, by name, from before.
    """

    def __init__(
        self, pack: Pack, keys: list[Key], mine: list[Key], kept: Mapping[str, bytes], quorum: int
    ) -> None:
        self.lines: list[str] = []
        self.problems = 0
        self._pack, self._keys = pack, keys
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
            with self._step("6 records are canonical, there once, none of the time left out"):
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
            self._say(
                "WARNING",
                "the log's key came from the pack itself: without --key this shows little",
            )
        elif not named or not set(named) <= set(self._keys):
            self._say("PROBLEM", "the pack names another log key than you gave")
        self._keys = self._keys or named
        self._signed = self._opened("checkpoint", self._pack["checkpoint"])
        self._say("found", f"log {self._signed.origin}: {self._signed.size} records signed")

    def _witnesses(self, mine: list[Key], quorum: int) -> None:
        known, seen = dict.fromkeys([*mine, *self._named("keys/witnesses", WITNESS)]), 0
        for key in known:
            time_s, whose = self._signed.by(key), "yours" if key in mine else "from the pack"
            moment = f"{datetime.fromtimestamp(min(time_s or 0, 1 << 36), UTC):%Y-%m-%d %H:%M:%S}"
            done = "did not cosign" if time_s is None else f"cosigned at {moment} UTC"
            self._say("found", f"witness {key.name} (its key is {whose}) {done}")
            seen += time_s is not None and key in mine
        ids = {(key.name, key.key_id) for key in [*self._keys, *known]}
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
        names = sorted(name for name in pack.names if name.startswith("checkpoints/"))
        self._older = {name: self._opened(name, pack[name]) for name in names}
        sizes = [older.size for older in self._older.values() if older.size < signed.size]
        self._hashes = Tree(pack, signed.size, self._bundles, sizes)
        wanted = _SMALL | {f"checkpoints/{n}" for n in sizes} | set(self._hashes.names.values())
        if odd := sorted(pack.names ^ wanted)[:20]:
            raise Broken(f"what does not belong into the pack, or is missing: {', '.join(odd)}")
        self._hashes.check(signed.root)
        self._say("found", f"records {first} to {end - 1}, in {len(self._bundles)} bundles")
        if end == signed.size:
            self._say("NOT CHECKED", "whether records of that time came after the checkpoint")

    def _earlier(self, kept: Mapping[str, bytes]) -> None:
        mine = {f"your {name}": self._opened(name, data) for name, data in kept.items()}
        for name, older in (self._older | mine).items():
            if older.size > self._signed.size:
                raise Broken(f"{name} has {older.size} records, the pack's fewer: rolled back")
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
        if all(signed.by(key) is None for key in self._keys if key.name == signed.origin):
            raise Broken(f"{name}: the checkpoint of {signed.origin} lacks the log's signature")
        return signed

    def _named(self, name: str, kind: int) -> list[Key]:
        text = self._pack[name][: 1 << 16].decode(errors="replace")
        return [Key.parse(line, kind) for line in text.splitlines()]
