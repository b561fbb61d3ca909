"""Whether tensors by name are those of a model: the table of missing, unexpected and mismatched names, and what would help."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from attrs import frozen

from shell.tables import aligned

Shape: TypeAlias = tuple[int, ...] | None
"""None for state of a module that is no tensor."""
Shapes: TypeAlias = Mapping[str, Shape]
Revision: TypeAlias = tuple[str, str]
"""(pattern, replacement) of re.sub."""

SHOWN = 8
"""Rows of each kind; the others are counted."""
TRIED = 40
"""Names looked at for a prefix that would help."""
CLOSEST = 200
"""Names among which close ones are searched; the search takes time for each pair of them."""


@frozen
class Row:
    """One name that does not fit: missing in the file, unexpected in the model, or of another shape."""

    kind: str
    name: str
    there: Shape = None
    here: Shape = None
    hint: str = ""


@frozen
class Fit:
    """How the names of a file lie to a model's. `rows`: every name that does not fit, by kind and as they come."""

    fitting: int
    there: int
    here: int
    rows: tuple[Row, ...]
    revision: tuple[Revision, int] | None = None

    def __str__(self) -> str:
        kinds = ("missing", "unexpected", "shape")
        counts = {kind: sum(row.kind == kind for row in self.rows) for kind in kinds}
        told = [f"{counts[kind]} {TOLD[kind]}" for kind in kinds if counts[kind]]
        head = f"{self.fitting} of the model's {self.here} names fit ({self.there} there): {', '.join(told)}"
        lines = [f"  {line}" for line in aligned(_shown(self.rows, counts, kinds))]
        return "\n".join([head, *lines, *_advice(self.revision, self.here)])


TOLD: Mapping[str, str] = {
    "missing": "missing",
    "unexpected": "unexpected",
    "shape": "of another shape",
}


def shapes(state: Mapping[str, Any]) -> dict[str, Shape]:
    """The shape of the whole of each entry of a state_dict, however ranks share it."""
    return {name: _shape(value) for name, value in state.items()}


def _shape(value: Any) -> Shape:
    found = getattr(value, "ds_shape", None)  # ZeRO-3 leaves an empty tensor in a parameter's place
    found = getattr(value, "shape", None) if found is None else found
    return None if found is None else tuple(found)


def fit(here: Shapes, there: Shapes) -> Fit:
    """here: the model's names; there: the file's."""
    missing = [name for name in here if name not in there]
    unexpected = [name for name in there if name not in here]
    other = [name for name in here if name in there and not _alike(here[name], there[name])]
    near = _near(missing, unexpected, here, there)
    rows = [
        *(Row("missing", name, None, here[name], near.get(name, "")) for name in missing),
        *(Row("unexpected", name, there[name]) for name in unexpected),
        *(Row("shape", name, there[name], here[name]) for name in other),
    ]
    fitting = len(here) - len(missing) - len(other)
    return Fit(
        fitting, len(there), len(here), tuple(rows), _revision(here, there, missing, unexpected, fitting)
    )


def _alike(here: Shape, there: Shape) -> bool:
    """Torch before 0.4 wrote what has no dimension with one, of one element; torch takes that still."""
    return here is None or here == there or (here, there) == ((), (1,))


def _near(missing: list[str], unexpected: list[str], here: Shapes, there: Shapes) -> dict[str, str]:
    """For names that are missing one of the file's that is much like it, of the same shape."""
    found = {}
    for name in missing[:SHOWN]:
        able = [one for one in unexpected[:CLOSEST] if _alike(here[name], there[one])]
        close = difflib.get_close_matches(name, able, n=1, cutoff=0.75)
        if close:
            found[name] = close[0]
    return found


def _revision(
    here: Shapes, there: Shapes, missing: list[str], unexpected: list[str], fitting: int
) -> tuple[Revision, int] | None:
    """What makes the most names fit of all that take a prefix away or put one before, and how many then do."""
    best: tuple[Revision, int] | None = None
    for revision in dict.fromkeys(_prefixes(missing[:TRIED], unexpected[:TRIED])):
        new = revised(there, [revision])
        fits = sum(name in new and _alike(here[name], new[name]) for name in here)
        if fits > (fitting if best is None else best[1]):
            best = revision, fits
    return best


def _prefixes(missing: Iterable[str], unexpected: Iterable[str]) -> Iterator[Revision]:
    own = list(missing)
    for name in unexpected:
        for one in own:
            if name.endswith(f".{one}"):
                yield f"^{re.escape(name.removesuffix(one))}", ""
            if one.endswith(f".{name}"):
                yield "^", one.removesuffix(name)


def revised(tensors: Mapping[str, Any], revisions: Iterable[Revision]) -> dict[str, Any]:
    """Under other names: each revision in turn, as mmengine's revise_keys.

    Raises:
        ValueError: two would have one name.
    """
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in revisions]
    found: dict[str, Any] = {}
    for before, tensor in tensors.items():
        name = before
        for pattern, replacement in patterns:
            name = pattern.sub(replacement, name)
        if name in found:
            raise ValueError(f"revise_keys gives {name!r} to two tensors, {before!r} among them")
        found[name] = tensor
    return found


def _shown(rows: Iterable[Row], counts: Mapping[str, int], kinds: Iterable[str]) -> Iterator[tuple[str, ...]]:
    every = list(rows)
    for kind in kinds:
        for row in [row for row in every if row.kind == kind][:SHOWN]:
            hint = f"the file has {row.hint}" if row.hint else ""
            yield kind, row.name, _told(row.there, "there"), _told(row.here, "here"), hint
        if counts[kind] > SHOWN:
            yield kind, f"... and {counts[kind] - SHOWN:,} more", "", "", ""


def _told(shape: Shape, where: str) -> str:
    return "" if shape is None else f"{list(shape)} {where}"


def _advice(revision: tuple[Revision, int] | None, here: int) -> Iterator[str]:
    if revision is not None:
        (pattern, replacement), fits = revision
        yield f"With revise_keys=[[{pattern!r}, {replacement!r}]] {fits} of {here} fit."
