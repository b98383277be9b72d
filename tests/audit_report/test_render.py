import base64
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.events import KeyRotation, LegalHold, Override, Pruned
from audit.report import render_html, render_json
from audit.report.highlight import pieces, tint
from audit.report.png import png
from tests.audit_explain.builders import text_model, text_row
from tests.audit_report.builder import SELECTED, TEXTS, make_log, make_report

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"


@pytest.fixture(scope="module")
def log():
    return make_log(scale=0.5)


@pytest.fixture(scope="module")
def html(log):
    return render_html(make_report(log))


class Page(HTMLParser):
    """Collects tags and what they refer to; fails on tags that do not nest."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.refs, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.refs += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(html):
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


def test_the_page_is_well_formed_and_stands_alone(html):
    page = parse(html)
    assert all(ref.startswith(("data:image/", "#")) for ref in page.refs)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import|http-equiv=\"refresh", html)
    assert len(page.ids) == len(set(page.ids))
    assert {ref[1:] for ref in page.refs if ref.startswith("#")} <= set(page.ids)


def test_the_page_can_be_read_aloud(html):
    page = parse(html)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert sum(tag == "table" for tag, _ in page.tags) == sum(
        tag == "caption" for tag, _ in page.tags
    )
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")


def test_all_parts_that_a_reviewer_looks_for_are_there(html):
    text = " ".join(parse(html).text)
    for wanted in (
        "weighbridge audit verify", "weighbridge.example/log-1", "insufficient evidence",
        "anytime-valid", "not for stopping", "Sticky assignment", "p99", "flat prediction",
        "documents corrected", "below four fifths",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert html.count("data:image/png") >= 4
    assert "data:image/svg+xml" in html
    assert '<mark class="p' in html


def test_made_twice_it_is_the_same_to_the_byte(log, html):
    assert render_html(make_report(log)) == html
    assert render_json(make_report(log)) == render_json(make_report(log))
    program = (
        "from tests.audit_report.builder import *; from audit.report import *; import sys;"
        "sys.stdout.write(render_html(make_report(make_log(scale=0.5))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ".", "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"},
    )
    assert other.stdout.decode("utf-8") == html


def test_names_and_texts_from_records_never_become_markup():
    log = make_log(scale=0.1)
    group = {"sex": EVIL, "race": EVIL}
    for _ in range(40):
        log.decide("income", "u", EVIL, group, model=EVIL, route=EVIL, version=EVIL)
        log.decide("income", "u", ">50K", {"sex": EVIL, "race": "$x^2$ & <u>"})
        log.decide("income", "u", "<=50K", {"sex": "Female", "race": EVIL})
    decision = log.decide("sentiment", "u", "positive", **SELECTED)
    text = f"good {EVIL} bad"
    log.explained(decision, "text", text_row(text), text_model, ["negative", "neutral", "positive"])
    data = make_report(log, title=EVIL, checkpoint=EVIL, verify_command=EVIL, worked_per_model=9)
    html = render_html(data)
    page = parse(html)
    assert not {"script", "u"} & {tag for tag, _ in page.tags}
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert "alert(1)" in " ".join(page.text)
    assert "{{7*7}}" in " ".join(page.text)
    for tag, attrs in page.tags:
        if tag == "img" and attrs["src"].startswith("data:image/svg"):
            svg = base64.b64decode(attrs["src"].partition(",")[2]).decode()
            assert "<script" not in svg
            assert "onerror=" not in re.sub(r">[^<]*<", "><", svg)


def test_what_people_did_to_data_and_keys_is_among_the_other_events():
    log = make_log(scale=0.1)
    who = {"actor": "the officer", "reason": "case 12"}
    log.add(LegalHold, unit_ref="ab" * 16, action="hold", **who)
    log.add(KeyRotation, purpose="signing", old_key="old+key", new_key="new+key", **who)
    log.add(
        Pruned,
        from_leaf=0, first_leaf=256, kept_from=300, tree_size=400, root="the root",
        frontier=["the frontier"], segments=1, first_payloads=0, until_us=0, numbers=[], **who,
    )  # fmt: skip
    data = make_report(log)
    assert [event["type"] for event in data.notices[-3:]] == [
        "legal_hold", "key_rotation", "pruned"
    ]  # fmt: skip
    text = " ".join(parse(render_html(data)).text)
    text = text.partition("Other events")[2].partition("Other events")[2]
    for wanted in ("legal hold", "the officer", "case 12", "new+key", "first leaf: 256"):
        assert wanted in text, wanted
    assert "the frontier" not in text


def test_control_characters_of_records_are_not_in_the_page():
    log = make_log(scale=0.1)
    decision = log.decide("income", "u", "<=50K", {"sex": "a\x9bb"}, model="in\x1b[31mcome")
    words = {"label_before": "<=50K", "label_after": "a\tb\nc\x00\x07d", "reason": "é中😀"}
    log.add(Override, decision=decision.id, actor="eve", **words)
    page = render_html(make_report(log))
    assert "in\ufffd[31mcome" in page
    assert "a\tb\nc\ufffd\ufffdd" in page
    assert "é中😀" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)


def test_without_worked_examples_no_personal_text_is_shown(log):
    data = make_report(log, worked_per_model=0)
    html, text = render_html(data), render_json(data).decode()
    for personal in (*TEXTS, "PhD"):
        assert personal not in html
        assert personal not in text
    assert "data:image/png" not in html


def test_the_json_holds_the_same_figures(log, html):
    data = make_report(log)
    found = json.loads(render_json(data))
    assert found["summary"] == list(data.summary)
    assert [row["decisions"] for row in found["traffic"]] == [r.decisions for r in data.traffic]
    assert found["log"]["verify_command"] in html
    assert found["fairness"][0]["groups"][0]["n"] == data.fairness[0].groups[0].n
    assert found["trials"][0]["comparisons"][0]["verdict"] in {
        "difference_found", "no_difference_shown", "insufficient_evidence", "void_sample_ratio"
    }  # fmt: skip


def test_an_empty_report_is_a_page_too():
    log = make_log(scale=0.1)
    log.events = []
    html = render_html(make_report(log))
    parse(html)
    assert "no decisions were recorded" in html


@given(
    st.text(max_size=30),
    st.lists(st.tuples(st.integers(-3, 35), st.integers(-3, 35), st.floats(-1, 1)), max_size=8),
)
def test_pieces_joined_are_the_text(text, marks):
    features = [{"weight": w, "spans": [[a, b]]} for a, b, w in marks]
    assert "".join(piece.text for piece in pieces(text, features)) == text


def test_tints_have_the_sign_and_strength_of_the_weight():
    assert [tint(w, 1.0) for w in (1.0, 0.6, 0.35, 0.15, 0.05, -0.05, -1.0)] == [
        4, 3, 2, 1, 0, 0, -4
    ]  # fmt: skip
    assert tint(0.0, 0.0) == 0


def test_a_png_holds_its_pixels():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = png(pixels)
    start = data.index(b"IDAT") + 4
    rows = zlib.decompress(data[start : data.index(b"IEND") - 8])
    assert rows == b"".join(b"\x00" + pixels[i].tobytes() for i in range(2))
