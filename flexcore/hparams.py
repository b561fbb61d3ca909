"""A run as flat names and single values, for trackers that lay runs side by side."""

import json
from collections.abc import Iterator
from typing import Any

from flexcore.dumping import dump, marked
from flexcore.run_plan import Plan

Flat = bool | int | float | str


def hparams(plan: Plan, keys: tuple[str, ...] | None = None) -> tuple[tuple[str, Flat], ...]:
    """The config as it was asked for ("optim_wrapper.optimizer.lr"), then what the plan made of it ("plan.seed").

    Args:
        plan: of the run.
        keys: the top-level keys of the config that are told; None: all.
    """
    config = dump(plan.config, marked)
    asked = {key: value for key, value in config.items() if keys is None or key in keys}
    made = {
        "mode": plan.mode, "strategy": plan.strategy.NAME, "world_size": plan.environment.world_size,
        "seed": plan.environment.seed,
        "global_batch_size": None if plan.batching is None else plan.batching.global_batch_size,
        "max_iters": None if plan.timeline is None else plan.timeline.max_iters,
    }  # fmt: skip
    rows = [*_flat(asked, ""), *_flat(made, "plan.")]
    return tuple((name, value) for name, value in rows)


def _flat(value: Any, name: str) -> Iterator[tuple[str, Flat]]:
    """Mappings and lists of them by dotted names; any other list as JSON text."""
    prefix = name if name.endswith(".") or not name else f"{name}."
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}{key}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f"{prefix}{i}")
    elif value is not None:
        yield name, value if isinstance(value, bool | int | float | str) else json.dumps(value)
