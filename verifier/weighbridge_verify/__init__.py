"""Checks an evidence pack, from the pack and a public key alone.

Rule: the pack is hostile until it is verified. Nothing is unpacked to disk, every count in it is
compared with the bytes that are there; only the standard library and `cryptography` are imported.
"""


class Broken(Exception):
    """Evidence that does not hold: says which, in a sentence."""


class Unreadable(Exception):
    """A file that is not what it must be to be checked at all."""
