"""Damage of SQLite files, said in one way.

Rule: SQLite quotes the damaged schema of a file in its message, and Python fails to read bytes that
are no text there. That, too, is an error of the database: SQLITE_CORRUPT.
Used by: indexfile.py, fsck_derived.py, and whoever else derives such a file.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["schema_read"]


@contextmanager
def schema_read() -> Iterator[None]:
    """Around the first statement on a file, which reads its schema.

    Raises:
        sqlite3.DatabaseError: the file cannot be used, or its schema is damaged.
    """
    try:
        yield
    except UnicodeDecodeError as exc:
        error = sqlite3.DatabaseError("malformed database schema")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        error.sqlite_errorname = "SQLITE_CORRUPT"
        raise error from exc
