"""What the audit log costs and keeps: appends, kills, receipts, verification, erasure, replay.

Run `python -m bench.audit [--only CASE,…] [--seconds S] [--kills N] [--records N] [--directory D]`:
it prints a table and, as its last line, `BENCH` and a JSON object. Nothing is asserted. The
directory should be on the disk that the log will live on, with 40 GB to spare for the full run.
Rule: each case makes its own logs with the program's own code and removes them; replays need the
trained models of `make train`.
Read next: appends.py, kills.py, receipts.py, biglog.py, replays.py (one case each).
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from . import appends, biglog, kills, receipts, replays
from .figures import Figures

_REACH = {
    "strict_per_s": ">= 20,000",
    "strict_of_bare": ">= 0.08",
    "p99_added_ms": "<= 3 (strict), <= 0.3 (bounded)",
    "lost": "0",
    "receipt_bytes": "<= 2,048",
    "receipt_verify_ms": "<= 1",
    "verify_leaves_per_s": ">= 200,000",
    "erase_s": "<= 1",
    "replay_equal": ">= 0.9999",
}


def _cases(options: argparse.Namespace) -> dict[str, Callable[[Figures, Path], None]]:
    return {
        "appends": lambda found, to: appends.measure(found, to, seconds=options.seconds),
        "kills": lambda found, to: kills.measure(found, to, kills=options.kills),
        "receipt": lambda found, to: receipts.measure(found, to, leaves=options.leaves),
        "verify": lambda found, to: biglog.measure_verifying(found, to, records=options.verified),
        "erase": lambda found, to: biglog.measure_erasing(found, to, records=options.records),
        "replay": lambda found, _: replays.measure(
            found, options.models, decisions=options.decisions
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="appends, kills, receipt, verify, erase, replay")
    parser.add_argument("--seconds", type=float, default=60.0, help="of strict appends")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--leaves", type=int, default=10**8, help="of the receipt's tree")
    parser.add_argument("--verified", type=int, default=500_000, help="records that are verified")
    parser.add_argument("--records", type=int, default=10**7, help="of the log erased from")
    parser.add_argument("--decisions", type=int, default=10_000, help="made and replayed")
    parser.add_argument("--directory", type=Path, default=Path("bench-audit.tmp"))
    home = Path(os.environ.get("WEIGHBRIDGE_HOME", ".weighbridge")).absolute()
    parser.set_defaults(models=home)
    options = parser.parse_args()
    cases, found = _cases(options), Figures(_REACH)
    chosen = options.only.split(",") if options.only else list(cases)
    if unknown := set(chosen) - set(cases):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    shutil.rmtree(options.directory, ignore_errors=True)
    try:
        for name in chosen:
            began = time.perf_counter()
            folder = options.directory / name
            folder.mkdir(parents=True)
            cases[name](found, folder)
            if name != "kills":  # it keeps what somebody should look at
                shutil.rmtree(folder)
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    finally:
        if not any(options.directory.glob("kills/*")):
            shutil.rmtree(options.directory, ignore_errors=True)
    found.show()


if __name__ == "__main__":
    main()
