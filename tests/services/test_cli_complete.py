"""What `audit verify --complete --metrics` takes from a saved page of /metrics."""

import pytest

from services.cli_complete import read_metrics

HEAD = "# HELP weighbridge_records_total Answers.\n# TYPE weighbridge_records_total counter\n"
LINE = 'weighbridge_records_total{instance="0000000a"} '


def page(tmp_path, *lines):
    path = tmp_path / "page"
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "count"),
    [("0.0", 0), ("400.0", 400), ("7", 7), ("1.234567e+06", 1_234_567), ("4.0 1795420979000", 4)],
)
def test_a_count_is_read_in_each_form_that_prometheus_has(tmp_path, value, count):
    other = 'weighbridge_records_total{pod="x",instance="0000000b",zone="y"} 2.0'
    assert read_metrics(page(tmp_path, LINE + value, other)) == {"0000000a": count, "0000000b": 2}


@pytest.mark.parametrize(
    "line",
    [LINE + "NaN", LINE + "-1.0", LINE + "1.2.3", LINE, LINE + "1.0 2 3",
     "weighbridge_records_total 3.0", 'weighbridge_records_total{instance="A"} 3.0'],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_refused_and_not_left_out(tmp_path, line):
    with pytest.raises(ValueError, match="names no count"):
        read_metrics(page(tmp_path, LINE + "1.0", line))


def test_a_page_without_counts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="it has no weighbridge_records_total"):
        read_metrics(page(tmp_path, 'weighbridge_records_totals{instance="0000000a"} 1.0'))
    assert read_metrics(None) == {}
