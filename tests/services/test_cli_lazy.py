"""Commands are imported when they are called, and all of them can be."""

import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from services.cli import app

HEAVY = {"bentoml", "numpy", "duckdb", "pyarrow", "matplotlib", "onnxruntime", "torch", "jwt"}
LOADED = """
import sys
from contextlib import suppress
from services.cli import main
with suppress(SystemExit):
    main(sys.argv[1:])
print("LOADED", *{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("words", [["audit", "key"], ["audit", "verify"], ["audit", "export"]])
def test_a_command_of_the_log_loads_no_engine_and_no_server(words) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words, "--help"], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.rpartition("LOADED")[2].split())
    assert "Usage" in done.stdout


def test_every_command_can_be_imported_under_its_name() -> None:
    def names(command, context):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found.name == name
            assert found.help
            yield name
            if isinstance(found, typer.core.TyperGroup):
                yield from names(found, typer.Context(found))

    command = get_command(app)
    assert {"verify", "rotate-key", "audit", "revoke"} <= set(
        names(command, typer.Context(command))
    )
    assert command.get_command(typer.Context(command), "nonsense") is None
