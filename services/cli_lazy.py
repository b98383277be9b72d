"""Groups of commands that are imported when they are called: nobody should wait for the others.

Rule: a group is a table of names, in the order of its help, and of where each command is; the help
of a group imports all of them, a command only itself.
Source: Click's documentation, "Lazily Loading Subcommands".
Used by: cli.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

__all__ = ["lazy_group"]


def lazy_group(places: Mapping[str, str | typer.Typer], **options: Any) -> typer.Typer:
    """A group of these commands.

    Args:
        places: the name of each and its place, "module:attribute": a function, or a Typer, which
            becomes a group within, as one that is given itself does.
        options: Typer's.
    """

    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  click's signature
            return list(places)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
            return _load(cmd_name, places[cmd_name]) if cmd_name in places else None

    return typer.Typer(cls=Lazy, no_args_is_help=True, **options)


def _load(name: str, place: str | typer.Typer) -> Any:
    """A command or a group of Click's."""
    found: Any = place
    if isinstance(place, str):
        module, _, attribute = place.partition(":")
        found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return get_command(alone)
