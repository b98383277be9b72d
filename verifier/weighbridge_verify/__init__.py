"""Checks an evidence pack, from the pack and a public key alone.

Rule: the pack is hostile until it is verified. Nothing is unpacked to disk, nothing in it is run,
every count in it is compared with the bytes that are there. Only the standard library and
`cryptography` (Ed25519) are imported, and no network is used.
Read next: archive.py (the file), notes.py (who signed), tree.py (what), records.py, check.py.
"""


class Broken(Exception):
    """Evidence that does not hold: says which, in a sentence."""


class Unreadable(Exception):
    """A file that is not what it must be to be checked at all."""
