"""From definition files to an immutable snapshot, or a list of every fault.

Rule: all or nothing. One broken file, or two definitions for one model, and `load_folder` raises
a DefinitionError that lists all faults; the caller keeps the snapshot it has. The planner writes
explicit ranges from the weights when a file gives none, so that what is hashed and recorded is
what is assigned.
Boundary: reads files; starts nothing, watches nothing, keeps nothing.
Read next: assign.py.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from . import ranges as planner
from .definition import BUCKETS, Arm, Definition, Range, format_percent
from .errors import DefinitionError, Fault, InputError
from .lines import Document, Where, format_path, parse
from .schema import DefinitionFile, nearest, read

SUFFIXES = frozenset({".yaml", ".yml"})


class Snapshot(Mapping[str, Definition]):
    """An immutable mapping from model name to its definition."""

    def __init__(self, definitions: Mapping[str, Definition] | None = None) -> None:
        self._by_model = MappingProxyType(dict(definitions or {}))

    def __getitem__(self, model: str) -> Definition:
        return self._by_model[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_model)

    def __len__(self) -> int:
        return len(self._by_model)

    def __repr__(self) -> str:
        inside = ", ".join(f"{m}={d.version[:12]}" for m, d in self._by_model.items())
        return f"Snapshot({inside})"


def load(path: Path) -> Definition:
    """Read one definition file.

    Raises:
        DefinitionError: with every fault in the file, each with its line and field.
    """
    return _load(path).definition


class _Loaded(NamedTuple):
    definition: Definition
    document: Document  # for the lines of faults that only a comparison shows


def _load(path: Path) -> _Loaded:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise DefinitionError([Fault(str(path), 0, "", "is not UTF-8 text", "")]) from exc
    except OSError as exc:
        problem = f"could not be read: {exc.strerror}"
        raise DefinitionError([Fault(str(path), 0, "", problem, "")]) from exc
    return _loads(text, str(path))


def loads(text: str, file: str = "<text>") -> Definition:
    """`load` for text already in hand; `file` is the name that faults carry."""
    return _loads(text, file).definition


def _loads(text: str, file: str) -> _Loaded:
    document = parse(text, file)
    shape = read(document)
    if isinstance(shape, list):
        raise DefinitionError(shape)
    faults = list(_arm_faults(document, shape))
    if faults:
        raise DefinitionError(faults)
    return _Loaded(_build(document, shape), document)


def load_folder(folder: Path, previous: Snapshot | None = None) -> Snapshot:
    """Read every `*.yaml` and `*.yml` of a folder (not of folders below it).

    Args:
        folder: where the definitions are; an empty folder is an empty snapshot.
        previous: the snapshot in force. When it is given, a definition that changed what is
            assigned must also carry a higher epoch, and must not move more units than needed.

    Raises:
        DefinitionError: every fault in every file; nothing was changed.
    """
    if not folder.is_dir():
        raise DefinitionError([Fault(str(folder), 0, "", "is not a folder", "")])
    found: list[_Loaded] = []
    faults: list[Fault] = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file()):
        try:
            found.append(_load(path))
        except DefinitionError as exc:
            faults.extend(exc.faults)
    faults.extend(_folder_faults(found))
    for loaded in found:
        faults.extend(_change_faults(loaded, previous or Snapshot()))
    if faults:
        raise DefinitionError(faults)
    return Snapshot({item.definition.model: item.definition for item in found})


def format_yaml(definition: Definition) -> str:
    """The definition as a file, ranges written out; `loads` gives an equal definition back."""
    arms = [
        {"name": a.name, "version": a.version, "weight": _plain(format_percent(a.weight))}
        for a in definition.arms
    ]
    scalars = ("name", "kind", "model", "unit", "layer", "salt", "epoch", "metric", "description")
    body = {name: getattr(definition, name) for name in scalars}
    body |= {"arms": arms, "ranges": _range_map(definition.ranges)}
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


def reweight(definition: Definition, percent: Mapping[str, int | float | str]) -> Definition:
    """The next epoch of `definition` with other weights, moving as few units as can be.

    Raises:
        InputError: an arm is not known, or the weights do not sum to 100.
    """
    unknown = sorted(set(percent) - {arm.name for arm in definition.arms})
    if unknown:
        raise InputError(f"could not reweight {definition.name}: no arm {unknown[0]!r}")
    widths = {a.name: round(float(percent.get(a.name, 0)) * 100) for a in definition.arms}
    return Definition(
        **{k: getattr(definition, k) for k in ("name", "kind", "model", "unit", "layer", "salt")},
        arms=tuple(a._replace(weight=widths[a.name]) for a in definition.arms),
        ranges=planner.replan(definition.ranges, widths),
        metric=definition.metric,
        epoch=definition.epoch + 1,
        description=definition.description,
        path=definition.path,
    )


def _build(document: Document, shape: DefinitionFile) -> Definition:
    layer = shape.layer or shape.model
    arms = tuple(Arm(a.name, a.version, int(a.weight * 100)) for a in shape.arms)
    return Definition(
        name=shape.name,
        kind=shape.kind,
        model=shape.model,
        unit=shape.unit,
        layer=layer,
        salt=shape.salt or layer,
        arms=arms,
        ranges=_ranges(document, shape, arms),
        metric=shape.metric,
        epoch=shape.epoch,
        description=shape.description,
        path=document.file,
    )


def _ranges(document: Document, shape: DefinitionFile, arms: tuple[Arm, ...]) -> tuple[Range, ...]:
    widths = {arm.name: arm.weight for arm in arms}
    if shape.ranges is None:
        return planner.plan(widths)
    given = sorted(Range(f, last, arm) for arm, parts in shape.ranges.items() for f, last in parts)
    try:
        table = planner.owners(given)
    except InputError as exc:
        raise DefinitionError([document.fault(("ranges",), str(exc))]) from exc
    faults = [
        document.fault(
            ("ranges", arm),
            f"{arm!r} has {table.count(arm)} buckets, its weight says {width}",
            "leave 'ranges' out to have them planned from the weights",
        )
        for arm, width in widths.items()
        if table.count(arm) != width
    ]
    if faults:
        raise DefinitionError(faults)
    return tuple(given)


def _arm_faults(document: Document, shape: DefinitionFile) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for i, arm in enumerate(shape.arms):
        path: Where = ("arms", i, "name")
        if arm.name in seen:
            first = format_path(("arms", seen[arm.name], "name"))
            yield document.fault(path, f"duplicate arm {arm.name!r}", f"the first is {first}")
        seen.setdefault(arm.name, i)
    total = sum(arm.weight for arm in shape.arms)
    if total != 100:
        yield document.fault(("arms",), f"the weights sum to {total}", "they must sum to 100")
    for name in shape.ranges or {}:
        if name not in seen:
            yield document.fault(("ranges", name), f"no arm {name!r}", nearest(name, seen))


def _folder_faults(found: list[_Loaded]) -> Iterator[Fault]:
    for label in ("model", "name"):
        first: dict[str, Definition] = {}
        for definition, document in found:
            value = getattr(definition, label)
            other = first.setdefault(value, definition)
            if other is not definition:
                problem = f"a second definition for the {label} {value!r}"
                yield document.fault((label,), problem, f"the first is {other.path}")
    salts: dict[str, Definition] = {}
    for definition, document in found:
        other = salts.setdefault(definition.layer, definition)
        if other.salt != definition.salt:
            problem = f"another salt for the layer {definition.layer!r}"
            yield document.fault(("salt",), problem, f"compare {other.path}")


def _change_faults(loaded: _Loaded, previous: Snapshot) -> Iterator[Fault]:
    new, document = loaded
    old = previous.get(new.model)
    if old is None or old.name != new.name or old.version == new.version:
        return
    assigns = ("salt", "arms", "ranges")
    if all(getattr(old, k) == getattr(new, k) for k in assigns) and new.epoch >= old.epoch:
        return
    if new.epoch <= old.epoch:
        problem = f"what is assigned has changed, but the epoch is {new.epoch}, not a later one"
        yield document.fault(("epoch",), problem, f"write epoch: {old.epoch + 1}")
    widths = {arm.name: arm.weight for arm in new.arms}
    least = planner.least_moved({arm.name: arm.weight for arm in old.arms}, widths)
    moved = planner.moved(old.ranges, new.ranges)
    if old.salt == new.salt and moved > least:
        better = _range_map(planner.replan(old.ranges, widths))
        problem = f"moves {moved} of {BUCKETS} buckets where {least} would do"
        yield document.fault(("ranges",), problem, f"write ranges: {better}")


def _range_map(ranges: tuple[Range, ...]) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = {}
    for part in ranges:
        found.setdefault(part.arm, []).append([part.first, part.last])
    return found


def _plain(percent: str) -> int | float:
    return float(percent) if "." in percent else int(percent)
