"""The keys of sealed parts in a process without log and master key: lent by the notary, in memory.

The notary lends the roots (keytree.py) of everybody who was never erased. The key of a subject
whose root was punctured is asked for when it is first needed (`KeyAway`), and kept.
Rule 1: nothing of it is written to disk, and nothing can be opened with it that was erased.
Rule 2: the notary tells of each erasure; until that arrives, a record that is just being written
may be sealed under the old key, and then nobody can open it.
Rule 3: where the notary is away for long, everything is forgotten, because no erasure could be
heard of; it is lent again when the notary is back.
Boundary: no network here; who asks the notary hands in how.
Read next: keytree.py (the keys), services/remote_ledger.py (who asks).
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from .errors import LogUnavailable
from .keys import Keyring
from .keytree import KEY_BYTES, NO_KEY, ROOTS, Place, Sealer, View, place_of

__all__ = ["KeyAway", "LentSeals"]

_KEPT_KEYS = 65_536


class KeyAway(LogUnavailable):
    """The key of a subject has to be asked for first; then the same call succeeds.

    Args:
        arrive: asks for it.
    """

    def __init__(self, arrive: Callable[[], Awaitable[None]]) -> None:
        super().__init__("could not seal a record: its subject's key is on its way")
        self.arrive = arrive


class LentSeals(Sealer):
    """Seals with lent keys. Nothing can be sealed before `take`.

    Args:
        keyring: source of nonces; needs no master key.
        ask: the key of the subjects whose reference begins with these 5 bytes.
    """

    def __init__(self, keyring: Keyring, ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        super().__init__(keyring)
        self._ask = ask
        self._keys: OrderedDict[bytes, bytes] = OrderedDict()
        self.forget()

    def take(self, roots: bytes, gone: Sequence[int]) -> None:
        """Seal with these from now on: all roots, and which of them are none."""
        self._keys.clear()
        self._view = View.of(roots, frozenset(gone))
        self._lent = True

    def forget(self) -> None:
        """Seal nothing until the next `take`."""
        self._lent = False
        self._keys.clear()
        self._view = View.of(b"", frozenset(range(ROOTS)))

    def erased_elsewhere(self, unit_ref: str) -> None:
        """A subject was erased: the keys that stand for its root are no longer used."""
        root = place_of(unit_ref).root
        for known in [key for key in self._keys if key[:2] == root.to_bytes(2, "big")]:
            del self._keys[known]
        if self._lent and root not in self._view.gone:
            roots = bytearray(self._view.roots)
            roots[root * KEY_BYTES : (root + 1) * KEY_BYTES] = NO_KEY
            self._view = View.of(bytes(roots), self._view.gone | {root})

    def refresh(self) -> None:
        """Nothing to read: the notary tells what changed."""

    def _punctured_key(self, view: View, place: Place) -> bytes:  # noqa: ARG002
        if not self._lent:
            raise LogUnavailable("could not seal a record: the notary has not lent its keys yet")
        whole = place.root.to_bytes(2, "big") + place.path
        key = self._keys.get(whole)
        if key is None:

            async def arrive() -> None:
                found = await self._ask(whole)
                if len(self._keys) >= _KEPT_KEYS:
                    self._keys.popitem(last=False)
                self._keys[whole] = found

            raise KeyAway(arrive)
        return key
