"""Nothing of a table is cut off, however narrow the terminal is."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from services import cli_table

ROOT = Path(__file__).resolve().parents[2]
ID = "01994f00-0000-7000-8000-00000a000001"


@pytest.fixture
def printed(monkeypatch):
    """What is printed on a terminal of so many columns, or to a file if None."""

    def on(width, columns, rows):
        out = io.StringIO()
        out.isatty = lambda: width is not None
        monkeypatch.setattr(sys, "stdout", out)
        console = Console(file=out, width=width or 80, markup=False, highlight=False)
        monkeypatch.setattr(cli_table, "console", console)
        cli_table.print_rows(columns, rows)
        return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())  # bold heads

    return on


@pytest.mark.parametrize("width", [None, 200, 80, 20])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_every_name_and_value_can_be_read_whole(printed, width, count) -> None:
    columns = [f"column_{number}" for number in range(count)]
    rows = [[f"{ID}-{row}-{number}" for number in range(count)] for row in range(3)]
    text = printed(width, columns, rows)
    for value in (*columns, *(cell for row in rows for cell in row)):
        assert value in text
    lines = text.splitlines()
    table = width is None or count * (len(rows[0][-1]) + 2) <= width
    assert len(lines) == (4 if table else 3 * count + 2)


def test_what_is_not_there_is_empty_and_control_characters_are_not_printed(printed) -> None:
    assert printed(80, ["a", "b"], [[None, "x\x1b[2Jy"]]).split() == ["a", "b", "x\ufffd[2Jy"]
    assert printed(80, ["a"], []).split() == ["a"]
    assert [cli_table.counted(n, "record") for n in (0, 1, 2)] == [
        "0 records",
        "1 record",
        "2 records",
    ]


def test_lists_of_experiments_and_keys_are_whole_in_a_file(tmp_path) -> None:
    home = {"WEIGHBRIDGE_HOME": str(tmp_path), "COLUMNS": "40"}
    command = [sys.executable, "-c", "from services.cli import main; main()"]

    def told(*words: str) -> list[str]:
        done = subprocess.run(
            [*command, *words],
            cwd=ROOT, env=os.environ | home, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    lines = told("experiments")
    assert len(lines) == 5
    assert "control=1 (0.5), treatment=2 (0.5)" in lines[1]
    name = "checkout-of-a-service-with-a-long-name"
    told("apikey", "add", name, "--role", "infer", "--role", "operate")
    _, line = told("apikey", "list")
    assert name in line
    assert "infer, operate" in line
