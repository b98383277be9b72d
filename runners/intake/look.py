"""Run a foreign model a few times, and see what is true of it.

Rule: what the file declares is believed as far as running the model agrees; shapes that it does not
declare, or declares wrongly, are put down as they were seen with inputs of several sizes.
Boundary: asks `infer` and nothing else; no files.
Read next: example.py (inputs to try), probe.py (do rows meet).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputInvalid, ModelFailed, RunnerError
from ..tensor import DTYPES, Array, Batch, Signature, Tensor, datatype_of
from .draft import Draft, NotRegistered, Port, Wish, named_once
from .example import Infer, draw, find_recipe
from .probe import Finding, may_batch, probe_rows

__all__ = ["Look", "look_at"]

Draw = Callable[[int, np.random.Generator], Batch]


class Look(NamedTuple):
    """What running the model showed.

    Attributes:
        outputs: as they really are.
        example: inputs that it answers, to warm up with.
        finding: whether rows may meet.
    """

    outputs: tuple[Port, ...]
    example: Batch
    finding: Finding


def look_at(draft: Draft, wish: Wish, infer: Infer) -> Look:
    """Run the model that was just loaded.

    Raises:
        NotRegistered: it answers nothing, or not as its form or the wish says.
    """
    if wish.example is None:
        recipe = find_recipe(draft.inputs, infer)
        larger = recipe._replace(size=recipe.size + 1)
        draws: list[Draw] = [
            lambda rows, rng: draw(draft.inputs, recipe, rows, rng),
            lambda rows, rng: draw(draft.inputs, larger, rows, rng),
        ]
    else:
        given = _checked(draft.inputs, wish.example)
        draws = [lambda rows, rng: _chosen(given, draft.inputs, rows, rng)]
    answers = _answers(draws, infer, wish)
    outputs = _outputs(draft.outputs, answers)
    example = wish.example or draws[0](2, np.random.default_rng(0))
    return Look(outputs, example, _finding(draft, wish, outputs, draws[0], infer))


def _checked(inputs: Sequence[Port], example: Batch) -> Batch:
    tensors = {name: Tensor(name, datatype_of(data.dtype), data) for name, data in example.items()}
    try:
        Signature(tuple(port.spec for port in inputs), (), "none").check(tensors)
    except InputInvalid as exc:
        raise NotRegistered(f"could not use the example: {exc}") from exc
    return example


def _chosen(example: Batch, ports: Sequence[Port], rows: int, rng: np.random.Generator) -> Batch:
    """`rows` of the example's rows; an input whose first dimension is fixed comes as it is."""
    free = [port.name for port in ports if port.dims and isinstance(port.dims[0], str)]
    held = {len(example[name]) for name in free}
    if len(held) != 1 or not min(held):
        return example
    picked = np.resize(rng.permutation(held.pop()), rows)
    return {name: data[picked] if name in free else data for name, data in example.items()}


def _answers(draws: Sequence[Draw], infer: Infer, wish: Wish) -> list[dict[str, Array]]:
    """What the model says to a few batches of other sizes; the first one must be answered."""
    found: list[dict[str, Array]] = []
    for make in draws:
        for rows in (2, 3):
            try:
                found.append(infer(make(rows, np.random.default_rng(1))))
            except (ModelFailed, InputInvalid) as exc:
                if not found and wish.example is not None:
                    found.append(_answer_to_example(infer, wish.example))
                elif not found:
                    raise NotRegistered(f"could not register the model: {exc}") from exc
    return found


def _answer_to_example(infer: Infer, example: Batch) -> dict[str, Array]:
    try:
        return infer(example)
    except RunnerError as exc:
        raise NotRegistered(f"could not use the example: the model says: {exc}") from exc


def _outputs(declared: Sequence[Port], answers: Sequence[Mapping[str, Array]]) -> tuple[Port, ...]:
    """Each output as declared where that is what was seen, else as it was seen."""
    known = {port.name: port for port in declared}
    names = list(known) or list(answers[0])
    ports = []
    for name in names:
        seen = [answer[name] for answer in answers if name in answer]
        if len(seen) != len(answers):
            raise NotRegistered(f"could not register the model: it did not give output '{name}'")
        port = known.get(name)
        if port is None or not all(
            port.spec.admits(data.shape) and data.dtype == DTYPES[port.datatype] for data in seen
        ):
            port = Port(name, datatype_of(seen[0].dtype), _dims(seen))
        ports.append(port)
    named_once(ports, "outputs")
    return tuple(ports)


def _dims(seen: Sequence[Array]) -> tuple[int | str, ...]:
    shapes = {data.shape for data in seen}
    if len({len(shape) for shape in shapes}) != 1:
        raise NotRegistered(
            "could not register the model: the number of an output's dimensions changes from call "
            "to call"
        )
    return tuple(sizes[0] if len(set(sizes)) == 1 else "" for sizes in zip(*shapes, strict=True))


def _finding(
    draft: Draft, wish: Wish, outputs: Sequence[Port], make: Draw, infer: Infer
) -> Finding:
    if wish.batch == "no":
        return Finding(apart=False, why="as was asked for")
    found = may_batch(draft.inputs, outputs, strict=wish.batch == "auto")
    if found.apart:
        found = probe_rows(make, infer, outputs)
    if wish.batch == "yes" and found.apart is None:
        return Finding(apart=True, why=f"as was asked for, although {found.why}")
    if wish.batch == "yes" and not found.apart:
        raise NotRegistered(
            f"could not register {wish.name}:{wish.version} with --batch yes: {found.why}; leave "
            "the option out to serve each request alone"
        )
    return found
