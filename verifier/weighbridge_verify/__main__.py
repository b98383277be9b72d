"""`weighbridge-verify PACK`: says in plain words what was checked; status 0, 1 or 2."""

import argparse
import sys
from pathlib import Path

from . import Broken, Unreadable
from .archive import Pack
from .check import Check
from .notes import LOG, WITNESS, Key


def main(words: list[str] | None = None) -> int:
    """Run the command; 0 everything holds, 1 something does not, 2 it cannot be checked."""
    parser = argparse.ArgumentParser("weighbridge-verify", description=__doc__)
    add = parser.add_argument
    add("pack", type=Path, help="the archive that `weighbridge audit export` wrote")
    add("--key", action="append", default=[], help="the log's public key, from whom you trust")
    add("--witness", action="append", default=[], help="the key of a witness that you trust")
    add("--quorum", type=int, help="how many --witness must have cosigned")
    add("--earlier", action="append", default=[], type=Path, help="a checkpoint that you kept")
    given = parser.parse_args(words)
    if given.quorum is not None and given.quorum < 1:
        parser.error("--quorum must be 1 or more: so many of the --witness must have cosigned")
    try:
        keys = [Key.parse(text, LOG) for text in given.key]
        witnesses = [Key.parse(text, WITNESS) for text in given.witness]
        kept = {str(path): path.read_bytes() for path in given.earlier}
        found = Check(Pack(given.pack), keys, witnesses, kept, given.quorum or 0)
        many = f"{found.problems} problem{'s' * (found.problems > 1)}"
        verdict = many if found.problems else "all that was checked holds"
        status, lines = int(found.problems > 0), [*found.lines, f"{'result':<12}{verdict}"]
    except (Broken, Unreadable, OSError) as exc:
        status, lines = 2, [f"could not check {given.pack}: {exc}"]
    except Exception as exc:  # noqa: BLE001 - the edge: whatever a pack provokes is a sentence
        status, lines = 2, [f"could not check {given.pack}: it provoked a {type(exc).__name__}"]
    try:
        print("\n".join(lines).encode("ascii", "backslashreplace").decode(), flush=True)  # noqa: T201
    except OSError as exc:
        sys.stdout = sys.stderr  # or the interpreter would try again at its end
        if not isinstance(exc, BrokenPipeError):  # whoever closed the pipe has seen enough
            parser.exit(2, f"could not write what was found: {exc.strerror}; write it elsewhere\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
