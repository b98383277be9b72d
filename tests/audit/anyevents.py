"""Events of every kind with any content that has canonical bytes, and logs made of them."""

import sys
import typing
from dataclasses import fields

from hypothesis import strategies as st

from audit.events import ALL, UnknownEvent
from audit.log import Log, Record
from audit.record import encode
from tests.audit.worlds import ORIGIN, START_US, make_keyring, uuid

_DAY_US = 86_400_000_000
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
# Few values, so that lookups find several leaves; and any text, so that nothing is taken on trust.
TEXTS = st.one_of(
    st.sampled_from(["a", "b", "", "0.5", "0.50", "1e-3", "nan", "strict", "ü", "'; --"]),
    st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=12),
)
DECIMALS = st.one_of(TEXTS, st.floats(-1e9, 1e9).map(repr))
JSONS = st.recursive(
    st.none() | st.booleans() | INTEGERS | TEXTS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3),
    max_leaves=5,
)
TIMES = st.one_of(st.integers(START_US, START_US + 3 * _DAY_US), INTEGERS)
_KEYED = st.dictionaries(
    st.sampled_from(["queue", "infer", "total", "rule", "probability", "selected", "x"]),
    st.booleans() | INTEGERS | DECIMALS | JSONS,
    max_size=4,
)


def _values(name, hint):
    if name.endswith("_us") and hint is int:
        return TIMES
    if hint is int:
        return INTEGERS
    if hint is bool:
        return st.booleans()
    if hint is str:
        return DECIMALS
    text = str(hint)
    if "dict" in text and "list" not in text:
        return st.one_of(_KEYED, st.dictionaries(TEXTS, JSONS, max_size=3))
    if "list" in text:
        return st.lists(st.dictionaries(TEXTS, JSONS, max_size=3), max_size=2)
    return st.none() | (INTEGERS if "int" in text else DECIMALS)


def _events_of(kind):
    scope = vars(sys.modules["audit.canonical"]) | vars(sys.modules["audit.events"])
    hints = typing.get_type_hints(kind, scope)
    wanted = {f.name: _values(f.name, hints[f.name]) for f in fields(kind) if f.name != "id"}
    return st.fixed_dictionaries(wanted).map(lambda given: (kind, given))


_UNKNOWN = st.fixed_dictionaries(
    {"time_us": TIMES, "body": st.dictionaries(TEXTS, JSONS, max_size=4), "schema": INTEGERS}
).map(lambda given: (UnknownEvent, given))


def _made(number, kind, given):
    if kind is not UnknownEvent:
        return encode(kind(id=uuid(number), **given))
    from audit.canonical import dumps  # noqa: PLC0415

    body = given["body"] | {
        "id": uuid(number), "time_us": given["time_us"], "type": "of tomorrow",
        "schema": given["schema"],
    }  # fmt: skip
    return dumps(body)


def entries(*, min_size=0, max_size=12):
    """Lists of entries' bytes: any kind, ids that count."""
    one = st.one_of(_UNKNOWN, *(_events_of(kind) for kind in ALL))
    several = st.lists(one, min_size=min_size, max_size=max_size)
    return several.map(
        lambda parts: [_made(number, *part) for number, part in enumerate(parts, start=1)]
    )


def write_log(folder, data, *, group=5, segment_bytes=2_000, keyring=None, publish=True):
    """Append entries to the log in `folder`, several to a group, in small segments."""
    keyring = keyring or make_keyring(folder / "keys")
    log = Log.open(folder / "log", keyring, origin=ORIGIN, segment_bytes=segment_bytes)
    for first in range(0, len(data), group):
        log.append([Record(entry) for entry in data[first : first + group]])
    if publish:
        log.publish()
    log.close()
    return folder / "log"
