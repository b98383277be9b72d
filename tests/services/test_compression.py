"""Content codings: what was compressed comes back, bounded; what is asked for is obeyed."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.compression import deflate, inflate
from services.faults import BadRequest, TooLarge

LIMIT = 1000


@given(st.binary(max_size=LIMIT), st.integers(1, 4))
def test_gzip_of_any_number_of_members_is_undone(data: bytes, members: int) -> None:
    step = len(data) // members + 1
    parts = [data[at : at + step] for at in range(0, len(data) or 1, step)]
    assert inflate(b"".join(map(gzip.compress, parts)), "gzip", LIMIT) == data
    assert inflate(zlib.compress(data), "deflate", LIMIT) == data


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "", "identity", "x"]))
def test_no_bytes_whatever_raise_anything_but_a_refusal(data: bytes, coding: str) -> None:
    try:
        inflate(data, coding, LIMIT)
    except BadRequest:
        return


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_limit_is_exact(coding: str) -> None:
    squeeze = {"gzip": gzip.compress, "deflate": zlib.compress}[coding]
    assert len(inflate(squeeze(b"a" * LIMIT), coding, LIMIT)) == LIMIT
    with pytest.raises(TooLarge):
        inflate(squeeze(b"a" * (LIMIT + 1)), coding, LIMIT)


def test_members_together_stay_within_the_limit_and_their_number_is_bounded() -> None:
    with pytest.raises(TooLarge, match="larger than 1000 bytes"):
        inflate(gzip.compress(b"a" * 600) * 2, "gzip", LIMIT)
    with pytest.raises(BadRequest, match="members"):
        inflate(gzip.compress(b"") * 1000, "gzip", LIMIT)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("gzip", b"gzip"),
        ("GZip , deflate", b"gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.2, deflate; q=0.3", b"deflate"),
        ("gzip;q=nan", None),
        ("gzip;q=x, deflate", b"deflate"),
        ("br, *", None),
    ],
)
def test_a_reply_gets_the_coding_that_was_asked_for(accepted: str, coding: bytes | None) -> None:
    body = b"ab" * 4000
    found, chosen = deflate(body, accepted)
    assert chosen == coding
    assert inflate(found, (chosen or b"").decode(), 1 << 20) == body
    assert deflate(b"short", accepted) == (b"short", None)
