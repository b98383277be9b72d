"""YAML with line numbers: plain values, and where each of them stands.

Rule: only maps with text keys, lists, text, whole numbers, decimals (never floats), booleans and
null come out; a key given twice, an alias or a foreign tag is a fault with its line, not a guess.
Boundary: knows YAML, not experiments. Source of the node API: PyYAML, `yaml.compose`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import yaml

from .errors import DefinitionError, Fault

Where: TypeAlias = tuple[str | int, ...]
"""Where a value stands: `("arms", 1, "weight")`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed YAML file."""

    file: str
    value: Any  # maps, lists, str, int, Decimal, bool, None
    lines: Mapping[Where, int]

    def line(self, path: Where) -> int:
        """The line of `path`, or of its nearest ancestor that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def fault(self, path: Where, problem: str, hint: str = "") -> Fault:
        """A fault at `path`."""
        return Fault(self.file, self.line(path), format_path(path), problem, hint)


def format_path(path: Where) -> str:
    """`("arms", 1, "weight")` -> "arms[1].weight"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(text: str, file: str) -> Document:
    """Parse one YAML document.

    Raises:
        DefinitionError: not YAML, more than one document, a duplicate key, a foreign tag.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        raise DefinitionError([_syntax_fault(exc, file)]) from exc
    except yaml.YAMLError as exc:
        raise DefinitionError([Fault(file, 0, "", f"not YAML: {exc}", "")]) from exc
    except RecursionError as exc:
        raise DefinitionError([Fault(file, 0, "", "is nested too deeply", "")]) from exc
    walker = _Walker(file)
    value = None if node is None else walker.value(node, ())
    if walker.faults:
        raise DefinitionError(walker.faults)
    return Document(file, value, walker.lines)


def _syntax_fault(exc: yaml.MarkedYAMLError, file: str) -> Fault:
    mark = exc.problem_mark or exc.context_mark
    context = f"{exc.context}: " if exc.context else ""
    problem = f"not YAML: {context}{exc.problem or 'cannot be read'}"
    return Fault(file, mark.line + 1 if mark else 0, "", problem, "")


class _Walker:
    """Turns nodes into values, noting each value's line and every fault."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Where, int] = {}
        self.faults: list[Fault] = []
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, path: Where) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:  # so a small file cannot grow into a huge value
            return self._refuse(node, path, "aliases (*name) are not allowed")
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._refuse(key_node, path, "a field name must be text")
                continue
            if key in found:
                self._refuse(key_node, (*path, key), "given twice")
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.Node, path: Where) -> Any:
        kind = node.tag.rpartition(":")[2]
        raw = str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return raw.lower() in {"yes", "true", "on"}
        if kind in {"int", "float"}:
            return self._number(node, path, raw)
        if kind in {"str", "timestamp"}:
            return raw
        return self._refuse(node, path, f"the tag {node.tag!r} is not allowed")

    def _number(self, node: yaml.Node, path: Where, raw: str) -> Any:
        try:
            number = Decimal(raw)
        except InvalidOperation:
            return self._refuse(node, path, f"{raw!r} is not a plain decimal number")
        if not number.is_finite():
            return self._refuse(node, path, f"{raw!r} is not a finite number")
        return int(number) if raw.lstrip("+-").isdigit() else number

    def _refuse(self, node: yaml.Node, path: Where, problem: str) -> None:
        line = node.start_mark.line + 1
        self.faults.append(Fault(self.file, line, format_path(path), problem, ""))
