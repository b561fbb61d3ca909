"""Which layers a group of ranks computes together, and which part of each a rank holds: patterns in, paths out; no torch."""

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from attrs import frozen

from flexcore.components import Data
from flexcore.facts import Facts
from flexcore.strategies import FSDP, Strategy, TensorParallel, TensorPlan

Features = Literal["outputs", "inputs"]


@frozen
class Style:
    """How a layer is computed.

    Attributes:
        cut: along which features; None: every rank holds it whole.
        takes_share, gives_share: of what goes in and out.
        sums: a whole layer's gradients are added up over ranks.
        divides: the number of heads a module holds is that of a rank.
    """

    cut: Features | None
    takes_share: bool = False
    gives_share: bool = False
    sums: bool = False
    divides: bool = False


STYLES: Mapping[str, Style] = {
    "colwise": Style("outputs", gives_share=True),
    "colwise_rep": Style("outputs"),
    "rowwise": Style("inputs", takes_share=True),
    "rowwise_rep": Style("inputs"),
    "replicate": Style(None),
    "summed": Style(None, sums=True),
    "fewer_heads": Style(None, divides=True),
}
"""A layer cut by its outputs gives each rank a share of them, or ("_rep") puts them together again on every rank; one
cut by its inputs takes such shares, or cuts whole ones itself, and adds up what comes out. An embedding's inputs are its
vocabulary. "replicate" leaves a layer whole, and says so; "summed" is a whole one that works on shares, as a norm of each
head does, so that each rank has a part of its gradient. "fewer_heads" is attention whose forward counts on the number of
heads it holds, which is divided by the ranks; "replicate" is one whose forward infers it from its input."""

CUT_DIMS: Mapping[tuple[str, Features], int] = {
    ("linear", "outputs"): 0, ("linear", "inputs"): 1, ("embedding", "outputs"): 1, ("embedding", "inputs"): 0,
}  # fmt: skip
"""The dimension of the weight, by kind of layer and by what it is cut along."""


@frozen
class Row:
    """One line of the plan that was asked for. style: as written. parts: None: nothing is said of them."""

    pattern: str
    style: str
    parts: int | None = None


@frozen(kw_only=True)
class CutLayer:
    """One module and its style; parts: tensors that stand in its outputs one after the other, each cut by itself."""

    path: str
    style: str
    parts: int = 1


@frozen(kw_only=True)
class TensorLayout:
    """Groups of `size` neighbouring ranks, each of which computes one copy of the model.

    Attributes:
        size: None: it waits for the number of ranks.
        groups: how many see different samples; None: as above.
        layers: in the model's order; None: the modules are unknown.
    """

    size: int | None
    groups: int | None
    layers: tuple[CutLayer, ...] | None


def asked_plan(strategy: Strategy) -> TensorPlan | None:
    """What was asked, alone or beside FSDP."""
    if isinstance(strategy, FSDP):
        return strategy.tensor_parallel
    return strategy if isinstance(strategy, TensorParallel) else None


def group_size(strategy: Strategy, world_size: int | None) -> int | None:
    """Ranks that see the same samples; None: all of an unknown number."""
    asked = asked_plan(strategy)
    return 1 if asked is None else world_size if asked.size is None else asked.size


def tensor_layout(strategy: Strategy, facts: Facts, world_size: int | None) -> TensorLayout | None:
    """The layout these settings mean for these modules; None without tensor parallelism."""
    asked, size = asked_plan(strategy), group_size(strategy, world_size)
    if asked is None:
        return None
    groups = 1 if asked.size is None else None if world_size is None or not size else world_size // size
    return TensorLayout(size=size, groups=groups, layers=layers(asked.plan, facts))


def layers(plan: Data, facts: Facts) -> tuple[CutLayer, ...] | None:
    """Every module a pattern matches; None while the modules are unknown."""
    if facts.modules is None:
        return None
    found = list(rows(plan))
    first = ((module.path, next((row for row in found if matches(row.pattern, module.path)), None))
             for module in facts.modules)  # fmt: skip
    return tuple(
        CutLayer(path=path, style=row.style, parts=row.parts or 1) for path, row in first if row is not None
    )


def rows(plan: Data) -> Iterator[Row]:
    """The plan's lines, those of the right shape; checks.tensor_parallel tells of the others."""
    for pattern, value in plan.entries:
        style = value.get("style") if isinstance(value, Data) else value
        parts = value.get("parts") if isinstance(value, Data) else None
        if isinstance(pattern, str) and isinstance(style, str) and (parts is None or type(parts) is int):
            yield Row(pattern, style, parts)


def matches(pattern: str, path: str) -> bool:
    """Whether a path is meant: "*" stands for any text without a dot, so a pattern has as many dots as its paths."""
    return re.fullmatch("[^.]*".join(map(re.escape, pattern.split("*"))), path) is not None
