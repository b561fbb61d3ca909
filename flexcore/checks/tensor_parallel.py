"""Rules of tensor parallelism: ranks that divide, styles that exist, and what ranks of a group must have alike."""

from collections.abc import Iterator

from flexcore.batching import is_opaque
from flexcore.checks.cutting import Cutting
from flexcore.checks.sharding import divisors, whole_parameters
from flexcore.components import Component, Data
from flexcore.config import AmpOptim, Config, NamedLoader
from flexcore.environment import chosen_strategy, known_world_size
from flexcore.facts import Facts
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.strategies import TensorParallel, TensorPlan
from flexcore.tensor_parallel import STYLES, asked_plan, group_size, rows
from flexcore.wrappers import asked

KEYS = ("style", "parts")


def tensor_parallel(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    strategy = chosen_strategy(config, facts)
    plan, world, alone = (
        asked_plan(strategy),
        known_world_size(config, facts),
        isinstance(strategy, TensorParallel),
    )
    if plan is None:
        return
    place: Path = ("strategy",) if alone else ("strategy", "tensor_parallel")
    yield from _sizes(plan, place, world, alone=alone)
    yield from _styles(plan.plan, (*place, "plan"))
    yield from _loaders(config, facts)
    yield from _optimizers(config, alone=alone)
    if facts.modules is not None and facts.parameters is not None:
        size = group_size(strategy, world) or 1
        cutting = Cutting(facts.modules, facts.parameters, size, (*place, "plan"))
        yield from cutting.problems(row for row in rows(plan.plan) if row.style in STYLES)


def _sizes(plan: TensorPlan, place: Path, world: int | None, *, alone: bool) -> Iterator[Problem]:
    if plan.size is None and not alone:
        text = "is missing: how many ranks compute one copy together."
        yield problem("FK012", (*place, "size"), text, "Set it, mostly to the ranks of a host or fewer.")
    if plan.size is not None and plan.size < 1:
        yield problem(
            "FK020", (*place, "size"), f"must be at least 1, got {plan.size}.", "Correct the value."
        )
    elif plan.size is not None and world is not None and world % plan.size:
        text = f"groups of {plan.size} ranks do not come out even in a world of {world}."
        yield problem("FP020", (*place, "size"), text, f"Use one of {', '.join(map(str, divisors(world)))}.")
    if not plan.plan.entries:
        text = "is missing, so no layer is cut and the ranks of a group would compute the same."
        yield problem("FK012", (*place, "plan"), text, 'Write paths and styles: {"blocks.*.up": "colwise"}.')


def _styles(plan: Data, place: Path) -> Iterator[Problem]:
    """The shape of each line."""
    for pattern, value in plan.entries:
        here: Path = (*place, pattern)
        if not isinstance(pattern, str):
            yield problem("FK011", here, "must be text: a module's path.", "Put it in quotes.")
        if isinstance(value, Data):
            yield from _settings(value, here)
        style = value.get("style") if isinstance(value, Data) else value
        if isinstance(value, Data) and style is None:
            yield problem("FK012", (*here, "style"), "is missing.", f"Use one of {', '.join(STYLES)}.")
        elif not isinstance(style, str) or style not in STYLES:
            guess = did_you_mean(style, STYLES).strip() if isinstance(style, str) else ""
            text = f"{shown(style)} is not a style."
            yield problem("FK013", here, text, guess or f"Known: {', '.join(STYLES)}.")


def _settings(value: Data, place: Path) -> Iterator[Problem]:
    for key, item in value.entries:
        if key not in KEYS:
            text = "is not a setting of a style."
            yield problem("FK010", (*place, key), text, f"Known: {', '.join(KEYS)}.")
        elif key == "parts" and (type(item) is not int or item < 1):
            text = f"must be an integer of at least 1, got {shown(item)}."
            yield problem("FK011", (*place, key), text, "Correct the value.")
        elif key == "parts" and item > 1 and value.get("style") != "colwise":
            text = f"are of outputs that stay cut, and the style is {shown(value.get('style'))}."
            yield problem("FK020", (*place, key), text, 'Use style="colwise", or drop the key.')


def _loaders(config: Config, facts: Facts) -> Iterator[Problem]:
    """Ranks of a group must read the same, which only a planned order promises."""
    text = (
        "has an order of its own, which may differ between ranks that compute one copy of the model together."
    )
    remedy = "Use a dataset that has a length, with DefaultSampler or InfiniteSampler."
    train = config.train_dataloader
    if train is not None and (is_opaque(train) or facts.train_iterable):
        yield problem("FP047", ("train_dataloader",), text, remedy)
    for mode in ("val", "test"):
        loaders: tuple[NamedLoader, ...] = getattr(config, f"{mode}_dataloader") or ()
        seen: tuple[int | None, ...] = getattr(facts, f"{mode}_samples") or ()
        for i, named in enumerate(loaders):
            if is_opaque(named.loader) or None in seen[i : i + 1]:
                lone = len(loaders) == 1 and named.name is None
                path: Path = (f"{mode}_dataloader",) if lone else (f"{mode}_dataloader", named.name or i)
                yield problem("FP047", path, text, remedy)


def _optimizers(config: Config, *, alone: bool) -> Iterator[Problem]:
    """What cannot mix parameters that are cut with others; what needs whole ones checks.sharding tells beside FSDP."""
    for one in asked(config):
        optimizer, place = one.wrapper.optimizer, (*one.place, "optimizer")
        if alone:
            yield from whole_parameters(optimizer, place)
        if alone and isinstance(one.wrapper, AmpOptim) and one.wrapper.dtype == "float16":
            text = "float16 scales the loss by what all gradients say, and a rank holds a part of some."
            yield problem("FP021", (*one.place, "dtype"), text, 'Set dtype="bfloat16".')
        for key in ("foreach", "fused"):
            if isinstance(optimizer, Component) and optimizer.kwargs.get(key):
                text = "takes all parameters at once, and some are cut over other ranks than others."
                yield problem("FP021", (*place, key), text, "Remove it: each is updated by itself.")
