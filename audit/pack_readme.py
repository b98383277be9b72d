"""The README.txt of an evidence pack: what a reviewer without this repository needs to know.

Rule: plain words, one screenful of what to do, then what it proves and what it does not; generated
from the report alone, so the same pack has the same text.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from .canonical import JSON

_TEXT = """\
EVIDENCE PACK of the decision log {origin}

Time        {from_time} to {to_time} (UTC, the end excluded)
Records     {first} to {last} of the {tree_size} that the log had when it was signed
Decisions   {decisions}
{witness_line}

This archive holds the records of a model-serving gateway, as they were written when it answered,
and what is needed to check, without a network and without trusting whoever sent it, that they are
the log's records: none changed, none taken out, none put in.


HOW TO CHECK IT

1. Get the log's public key from somebody you trust, not from this archive. It is one line. The
   archive says that it is
   {log_key}
2. Install the verifier, a small program of its own (Python 3.11 or later and the package
   "cryptography"; nothing else):
   pip install weighbridge_verify-*.whl
3. Run
   weighbridge-verify PACK.zip --key 'THE KEY'
   and, if you hold them, add --witness 'KEY OF A WITNESS' for each witness that you trust, and
   --earlier FILE with a checkpoint of this log that you kept from before.
   It says line by line what it checked and ends with status 0 (everything holds), 1 (something
   does not) or 2 (it is not a pack).
4. Keep the file "checkpoint" from this archive. With it, whoever checks the next pack sees whether
   the log was rewritten in between: weighbridge audit export --since-checkpoint FILE.

Any program that knows the formats can check it, too: RFC 6962 (the tree), C2SP signed-note,
tlog-checkpoint, tlog-cosignature and tlog-tiles (c2sp.org). The file tile/entries/000 holds records
0 to 255, each behind its length in two bytes; a record is JSON.


WHAT IT PROVES

- The holder of the log's key signed a tree of {tree_size} records, and each record here is in that
  tree, at its place, byte for byte.
- The record before and the record after those here are of another time. Nobody looks further away:
  times are what gateways said, and need not be in order. Compare the time that the verifier names
  with the one that you asked for.
- Each gateway process numbers its answers 1, 2, 3, ... Between the lowest and the highest number
  of a process here, no number is missing, or the verifier names it.
- An earlier checkpoint in this archive, or one that you kept, is the beginning of the same log.
- A witness whose cosignature verifies saw the same tree at the time it names, and has never
  cosigned another one that contradicts it.


WHAT IT DOES NOT PROVE

- That a record is true, that a clock was right, or that no answer was given by a program that
  records nothing.
- That nothing happened before the first number or after the last number of a process in this pack.
- Without a witness or an earlier checkpoint: that the signer shows everybody the same log.
- What the inputs and outputs were. Records hold commitments (keyed hashes) and sealed parts, which
  whoever has the master key can open. This archive holds no key that is secret and no payload.
- This text: it is not signed. The report is checked, since the verifier counts it again.

Of the records {first} to {last}, {outside} are of another time: a number that belongs to the time
may have been written a little earlier or later. The archive holds records before and after those,
too, because they come in bundles of 256; they are checked, and the report does not count them.
"""


def readme(report: Mapping[str, JSON], log_key: str, witnesses: Sequence[str]) -> str:
    """The text for a pack with this report and these keys."""
    records, decisions = report["records"], 0
    if isinstance(records, dict):
        decisions = int(str(records.get("decision", 0)))
    names = ", ".join(key.partition("+")[0] for key in witnesses)
    return _TEXT.format(
        origin=report["origin"],
        from_time=_time(report["from_us"]),
        to_time=_time(report["to_us"]),
        first=report["first_leaf"],
        last=int(str(report["end_leaf"])) - 1,
        tree_size=report["tree_size"],
        decisions=decisions,
        outside=report["records_outside_the_time"],
        log_key=log_key,
        witness_line=f"Witnesses   {names or 'none named'}",
    )


def _time(moment_us: JSON) -> str:
    return datetime.fromtimestamp(int(str(moment_us)) / 1_000_000, UTC).isoformat(" ")
