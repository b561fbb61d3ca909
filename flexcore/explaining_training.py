"""Batches, length, optimizers and their curves, as lines of a plan's explanation."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from flexcore import questions
from flexcore.backends import native
from flexcore.config import DataLoader
from flexcore.explaining_rows import number, or_unknown, ranks, row, thing
from flexcore.hook_texts import end_of
from flexcore.loops import OwnTrainLoop
from flexcore.plan_training import Group, Optimizer
from flexcore.run_plan import Plan
from flexcore.timeline import Timeline


def batches_of(plan: Plan) -> Iterator[str]:
    batch = plan.batching
    if batch is None:
        return
    assert plan.train is not None
    missing = "train_batch_size" if batch.micro_batch_size is None else "world_size"
    yield row("batch", or_unknown(batch.micro_batch_size, "train_batch_size"), "micro x",
               or_unknown(batch.gradient_accumulation_steps, "world_size"), "accumulation x",
               ranks(batch.data_parallel_size, "rank" if plan.tensor_parallel is None else "group"), "=", or_unknown(batch.global_batch_size, missing), "samples per optimizer step")  # fmt: skip
    told = native(plan)
    if told is not None:
        yield row("deepspeed", json.dumps(told, sort_keys=True))
    what = "one global batch" if batch.clock == "global" else "one micro-batch per rank"
    yield row("iteration", what)
    order = plan.train.order
    loader = plan.train.loader
    if isinstance(loader, DataLoader):
        yield row("train data", thing(loader.dataset))
    if order is not None:
        detail = f"{order.samples:,} samples, {'shuffled' if order.shuffle else 'in order'}"
        counts = f", {batch.dropped} dropped and {batch.repeated} repeated per epoch"
        yield row("", detail + ("" if order.endless else counts))
    elif plan.train.opaque:
        yield row("", "order of its own")


def length_of(plan: Plan) -> Iterator[str]:
    clock = plan.timeline
    if clock is None:
        return
    if clock.opaque:
        yield from _own_clock(plan, clock)
        return
    needed = questions.needed_for_length(plan)
    length, total = or_unknown(clock.epoch_length, needed), or_unknown(clock.max_iters, needed)
    steps = (
        f"{or_unknown(clock.optimizer_steps, needed)} optimizer steps"
        if clock.updates == "planned"
        else "the model's train_step updates the optimizers"
        if len(plan.optimizers) > 1
        else "the model's train_step updates the optimizer"
    )
    loop = (
        f"{clock.max_epochs:,} epochs x {length} iterations = {total}"
        if clock.by_epoch
        else f"{total} iterations"
    )
    yield row("length", f"{loop}; {steps}")
    if clock.window > 1:
        tail = {
            "carry": "windows cross epochs",
            "step": "each epoch's last window may be short",
            "drop": "no short windows",
        }
        yield row("", f"a step every {clock.window} iterations; {tail[clock.tail]}")
    if clock.max_seconds is not None:
        yield row("", f"or {clock.max_seconds:g} s of wall time, whichever comes first")
    for condition in filter(None, (end_of(hook.hook) for hook in plan.hooks)):
        yield row("", f"or sooner: {condition}")


def _own_clock(plan: Plan, clock: Timeline) -> Iterator[str]:
    loop = plan.config.train_cfg
    assert isinstance(loop, OwnTrainLoop)
    yield row("loop", thing(loop.component))
    needed, planned = questions.needed_for_length(plan), ""
    if loop.max_epochs or loop.max_iters:
        epochs = f"{clock.max_epochs:,} epochs x {or_unknown(clock.epoch_length, needed)} iterations = "
        total = or_unknown(clock.max_iters, needed)
        planned = f"; schedules take it for {epochs if loop.max_epochs else ''}{total} iterations"
    yield row("length", f"as its loop decides{planned}")


def rates_of(plan: Plan) -> Iterator[str]:
    if plan.timeline is None:
        return
    for optimizer in plan.optimizers:
        yield from _optimizer(plan, optimizer)


def _optimizer(plan: Plan, optimizer: Optimizer) -> Iterator[str]:
    clip = optimizer.clip_grad
    clipping = (
        ""
        if clip is None
        else f"clip {clip.type} {clip.max_norm if clip.type == 'norm' else clip.clip_value}"
    )
    kind = "model in" if optimizer.precision.casts_model else "autocast"
    precision = "" if optimizer.precision.dtype is None else f"{kind} {optimizer.precision.dtype}"
    scale = "" if optimizer.lr_scale in (None, 1.0) else f"LR scaled by {optimizer.lr_scale:g}"
    sharded = "state spread over the ranks" if optimizer.sharded else ""
    of = "" if optimizer.name is None else f"{optimizer.name}:"
    parts = (thing(optimizer.component), sharded, scale, clipping, precision)
    yield row("optimizer", of, "; ".join(part for part in parts if part))
    if optimizer.groups[0].params is not None:
        yield row("groups", of, f"{len(optimizer.groups):,}:", ", ".join(_alike(optimizer.groups)))
    for key in dict.fromkeys(schedule.param for schedule in optimizer.schedules or ()):
        names = ", then ".join(type(s).__name__ for s in optimizer.schedules or () if s.param == key)
        yield row(key, of, f"{names}: {_curve(plan, key, optimizer.name)}")
    if optimizer.schedules is None or "lr" not in {schedule.param for schedule in optimizer.schedules}:
        constant = f"{number(questions.value_at(plan, optimizer=optimizer.name).value)} throughout"
        yield row(
            "lr",
            of,
            constant
            if optimizer.schedules is not None
            else or_unknown(None, questions.needed_for_length(plan)),
        )


def _alike(groups: Iterable[Group]) -> Iterator[str]:
    """How many groups have which LR and weight decay."""
    counts = Counter(tuple((key, group.base(key)) for key in ("lr", "weight_decay")) for group in groups)
    for values, count in counts.items():
        yield f"{count} with {' '.join(f'{key} {number(value)}' for key, value in values if value is not None)}"


def _curve(plan: Plan, key: str, optimizer: str | None) -> str:
    assert plan.timeline is not None
    total = plan.timeline.max_iters
    if not total:
        return "?"
    end = questions.foreseen(plan, key, total, optimizer)
    points = sorted({0, end // 4, end // 2, 3 * end // 4, end - 1})
    values = questions.values_at(plan, key, points, optimizer=optimizer)
    if None in values:
        return questions.value_at(plan, key, optimizer=optimizer).reason
    rest = "" if end == total else "  then by the recursion"
    return "  ".join(map("{} @{}".format, map(number, values), points)) + rest
