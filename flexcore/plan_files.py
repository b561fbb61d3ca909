"""Plans as JSON text and as digests; the bytes here are a file format, so keys never move silently."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from flexcore.components import Component, Supplied
from flexcore.config import FORMAT_VERSION
from flexcore.converting import dump, marked, structure, unmarked
from flexcore.facts import Facts
from flexcore.loops import OwnTrainLoop
from flexcore.optimizing import any_waits
from flexcore.plan_training import Batching, Optimizer, TrainData
from flexcore.problems import ConfigError, shown
from flexcore.rules import problem
from flexcore.run_plan import Plan
from flexcore.strategies import DDP, Strategy, comm_hook


def to_json(plan: Plan, indent: int | None = None) -> str:
    return json.dumps({"kind": "flexcore.plan", **dump(plan, marked)}, indent=indent)


def from_json(text: str) -> Plan:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"is not JSON: {shown(str(error))}.") from None
    if not isinstance(data, dict) or data.pop("kind", None) != "flexcore.plan":
        raise _unreadable("is not a flexcore plan.")
    if data.get("format_version") != FORMAT_VERSION:
        raise _unreadable(
            f"has format_version {shown(data.get('format_version'))}; this release reads {FORMAT_VERSION}."
        )
    try:
        return structure(unmarked(data), Plan)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _unreadable(f"holds what no plan can: {shown(str(error))}.") from None


def _unreadable(message: str) -> ConfigError:
    return ConfigError([problem("FK002", (), message, "Write it anew with `flexcore plan -o`.")])


def plan_digest(plan: Plan) -> str:
    """Everything that will happen: the plan without the facts and notices it rests on."""
    return _digest(_canonical(evolve(plan, facts=Facts(), notices=())))


def trajectory(plan: Plan) -> tuple[tuple[str, str], ...]:
    """What decides the weights, field by field, as JSON text; keys are those of starting.CHANGES.

    A field that waits for a fact is left out: nothing can be said of it yet.
    """
    if plan.train is None or not plan.optimizers or plan.batching is None or plan.timeline is None:
        return (("model", _canonical(plan.model)),)
    batching, timeline, optimizers = plan.batching, plan.timeline, plan.optimizers
    loop = plan.config.train_cfg
    fields: dict[str, Any] = {
        "model": plan.model,
        "optimizer": _each(optimizers, _kind),
        "seed": plan.environment.seed,
        "clock": batching.clock,
        "loop": loop.component.type if isinstance(loop, OwnTrainLoop) else "built in",
        "batches": {"epoch_length": timeline.epoch_length, **_batch(batching)},
        "order": _order(plan.train),
        "data": plan.train.loader if isinstance(plan.train.loader, Supplied) else plan.train.loader.dataset,
        "loss": plan.loss,
        "preprocessor": plan.data_preprocessor,
        "optimizer settings": _each(optimizers, lambda one: [one.component, one.groups, one.clip_grad]),
        "accumulation": {"window": timeline.window, "tail": timeline.tail} if batching.clock == "micro" else "global",
        "schedules": _each(optimizers, lambda one: one.schedules),
        "precision": _each(optimizers, lambda one: one.precision),
        "between ranks": _between_ranks(plan.strategy),
        "length": {"max_epochs": timeline.max_epochs, "max_iters": timeline.max_iters},
    }  # fmt: skip
    unknown = {
        "seed": plan.environment.seed is None,
        "batches": timeline.epoch_length is None
        or (batching.clock == "micro" and batching.global_batch_size is None),
        "order": plan.train.order is None and not plan.train.opaque,
        "schedules": any(one.schedules is None for one in optimizers),
        "length": timeline.max_iters is None,
        "optimizer settings": any(one.lr_scale is None for one in optimizers)
        or any_waits(plan.config, plan.facts),
    }
    return tuple((name, _canonical(value)) for name, value in fields.items() if not unknown.get(name))


def _each(optimizers: Sequence[Optimizer], part: Callable[[Optimizer], Any]) -> Any:
    """A part of the only optimizer, or [name, part] of each of several."""
    return (
        part(optimizers[0]) if optimizers[0].name is None else [[one.name, part(one)] for one in optimizers]
    )


def _kind(optimizer: Optimizer) -> str:
    return optimizer.component.type if isinstance(optimizer.component, Component) else "supplied"


def _batch(batching: Batching) -> dict[str, int | None]:
    """What makes an iteration: the same on any world size with a global batch, else this one's own."""
    if batching.clock == "global":
        return {"global_batch_size": batching.global_batch_size}
    return {"micro_batch_size": batching.micro_batch_size, "data_parallel_size": batching.data_parallel_size}


def _between_ranks(strategy: Strategy) -> dict[str, Any]:
    """What ranks tell each other in another way than exactly, or that a single device would not compute."""
    ddp = strategy if isinstance(strategy, DDP) else DDP()
    return {"sync_bn": bool(ddp.sync_bn), "comm_hook": comm_hook(ddp)}


def _order(data: TrainData) -> dict[str, Any] | str:
    order = data.order
    if order is None:
        return "the loader's own"
    names = ("samples", "shuffle", "seed", "endless", "contiguous", "drop_last")
    return {name: getattr(order, name) for name in names}


def trajectory_digest(plan: Plan) -> str:
    return _digest(json.dumps(trajectory(plan)))


def config_digest(plan: Plan) -> str:
    """The request alone; ranks compare it before they share facts."""
    return _digest(_canonical(plan.config) + plan.mode + str(plan.smoke))


def _canonical(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_canonical(item) for item in value) + "]"
    return json.dumps(dump(value, marked), sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
