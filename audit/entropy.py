"""Random bytes from the system, fetched in advance.

Rule: the bytes are the system's own (`os.urandom`), each handed out once. Only the call is saved:
it gives up the interpreter lock, and beside a busy thread a few of them cost more than the record
they are for. Each thread has a store of its own, and a forked child begins with an empty one.
"""

import os
import threading

_FETCHED = 4096


class _Store(threading.local):
    """One thread's bytes."""

    def __init__(self) -> None:
        self.data, self.place = b"", 0


_store = _Store()


def random_bytes(size: int) -> bytes:
    """`size` random bytes, as `os.urandom` gives."""
    store = _store
    start = store.place
    end = start + size
    if end > len(store.data):
        store.data, start, end = os.urandom(max(_FETCHED, size)), 0, size
    store.place = end
    return store.data[start:end]


def _forget() -> None:
    _store.data, _store.place = b"", 0


os.register_at_fork(after_in_child=_forget)

__all__ = ["random_bytes"]
