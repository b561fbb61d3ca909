"""How much room checkpoints will take, and whether it is there: told before training, from what was built and found."""

from collections.abc import Iterator
from math import prod
from typing import Final

from flexcore.components import Component, Supplied
from flexcore.hooks import EMA
from flexcore.memory import values_per_number
from flexcore.problems import Path, Problem
from flexcore.rules import problem
from flexcore.run_plan import Plan
from flexcore.wrappers import asked, owned

BASE: Final = 7 * 1024
"""Bytes of a manifest besides what follows: the plan, the versions, the position."""

PER_PARAMETER: Final = 400
"""Bytes that one parameter takes in the plan and the tables of a manifest, and in the headers of its files."""

PER_RANK: Final = 18 * 1024
"""Bytes of the random states of one rank that sees samples of its own, as JSON."""

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")

STEP: Final = 4  # bytes of the count of steps that most optimizers keep for each parameter


def checkpoint_bytes(plan: Plan) -> int | None:
    """Bytes of one checkpoint; None while the model has not been built."""
    facts, saving = plan.facts, plan.saving
    if facts.model_bytes is None or facts.parameters is None or saving is None:
        return None
    own = [p for p in facts.parameters if p.alias is None]
    numbers = sum(prod(p.shape) for p in own)
    averages = sum(isinstance(hook.hook, EMA) for hook in plan.hooks)
    found = BASE + PER_PARAMETER * len(own) + facts.model_bytes * (1 + averages)
    if saving.weights_only:
        return found
    each = facts.model_bytes / numbers if numbers else 0.0
    for one in asked(plan.config):
        trained = [p for p in owned(one.name, facts.parameters) if p.requires_grad]
        found += round(sum(_values(one.optimizer, p.shape) for p in trained) * each)
        found += STEP * len(trained)
    ranks = plan.environment.world_size or 1
    return found + PER_RANK * sum(plan.leads(rank) for rank in range(ranks))


def _values(optimizer: Component | Supplied, shape: tuple[int, ...]) -> int:
    """Values of optimizer state for one parameter; Adafactor's are of rows and columns, where there are both."""
    if isinstance(optimizer, Supplied) or optimizer.name != "Adafactor":
        return prod(shape) * values_per_number(optimizer)
    return prod(shape[:-1]) + prod(shape[:-2]) * shape[-1] if len(shape) > 1 else prod(shape)


def room(plan: Plan) -> Iterator[Problem]:
    """No room for a single checkpoint more, or less than what the plan keeps besides one being written."""
    free, size = plan.facts.free_disk, checkpoint_bytes(plan)
    if plan.mode != "train" or plan.saving is None or free is None or size is None:
        return
    path: Path = ("work_dir",) if plan.names.out_dir is None else ("default_hooks", "checkpoint", "out_dir")
    where = plan.names.out_dir or plan.names.work_dir
    more = kept(plan) - len(plan.facts.checkpoints or ()) + 1
    if free < size:
        text = f"{where} has {readable(free)} free, and one checkpoint takes about {readable(size)}."
        yield problem("FC017", path, text, "Make room, or name another place.")
    elif free < size * more:
        text = (
            f"{where} has {readable(free)} free, and {more:,} more checkpoints of about {readable(size)}, one of them "
            f"being written, take {readable(size * more)}."
        )
        yield problem("FC018", path, text, "Make room, or keep fewer: max_keep_ckpts, interval.")


def kept(plan: Plan) -> int:
    """The most checkpoints that stand at once, by the plan; those by wall time are counted where so many are kept."""
    saving, clock = plan.saving, plan.timeline
    assert saving is not None
    most = saving.max_keep if saving.max_keep > 0 else None
    points, planned = saving.points, 0
    total = None if clock is None else clock.max_epochs if points.by_epoch else clock.max_iters
    if total is not None:
        planned = total // points.interval if points.interval > 0 else 0
        planned += points.save_last and (points.interval <= 0 or total % points.interval > 0)
    timed = (most or 0) if saving.every_seconds is not None else 0
    return (planned if most is None else min(most, planned)) + timed + len(saving.best)


def readable(size: int) -> str:
    """Bytes in the largest unit that leaves at least one, to three digits."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    number = size / 1024**power
    return f"{number:.3g} {UNITS[power]}" if number < 1000 else f"{number:.0f} {UNITS[power]}"
