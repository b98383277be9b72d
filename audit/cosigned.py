"""The checkpoints that witnesses cosigned, kept beside the log.

    <log>/cosigned/<first 16 hex digits of SHA-256 of the witness's vkey>

Each file is one signed note: the last checkpoint that this witness cosigned, with the log's
signature and the witness's. Derived, in the sense that serving does not need it; but only the
witness could make it again.
Rule: a file is replaced whole; each has one writer. Nothing here is trusted before it is verified.
Read next: cosigning.py (who writes them).
"""

import hashlib
from pathlib import Path

from .cosignature import CosignerKey, with_signatures
from .errors import LogDamaged, NoteError
from .files import make_directory, replace_file
from .note import split_note

COSIGNED_NAME = "cosigned"


def cosigned_path(directory: Path, key: CosignerKey) -> Path:
    """Where the last checkpoint that `key` cosigned lies."""
    return directory / COSIGNED_NAME / hashlib.sha256(str(key).encode()).hexdigest()[:16]


def write_cosigned(directory: Path, key: CosignerKey, note: str) -> None:
    """Keep a checkpoint that `key` cosigned, in the place of the one before.

    Raises:
        OSError: it is not kept; the one before is.
    """
    path = cosigned_path(directory, key)
    make_directory(path.parent)
    # If we crash here, the one before stands; the witness is asked again and cosigns again.
    replace_file(path, note.encode())


def read_cosigned(directory: Path) -> list[str]:
    """Every kept note, unverified; those of the same checkpoint as one, with all signatures.

    Raises:
        LogDamaged: a file is not a signed note.
    """
    merged: dict[str, str] = {}
    folder = directory / COSIGNED_NAME
    if not folder.is_dir():
        return []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".tmp":
            continue  # left over from a crash; the writer replaces it
        try:
            note = path.read_bytes().decode()
            text, lines = split_note(note)
            merged[text] = with_signatures(merged.get(text, note), lines)
        except (NoteError, UnicodeDecodeError) as exc:
            raise LogDamaged(
                path, offset=None, expected="a cosigned checkpoint", found=str(exc)
            ) from exc
    return list(merged.values())
