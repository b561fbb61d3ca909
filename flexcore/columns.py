"""One request on several world sizes, side by side: what stays and what moves. Text from values."""

from collections.abc import Iterable

from flexcore.problems import ConfigError
from flexcore.questions import foreseen, value_at, with_world_size
from flexcore.run_plan import Plan

BATCH = ("micro batch", "accumulation", "global batch")
LENGTH = ("iterations", "optimizer steps", "samples", "dropped per epoch", "repeated per epoch")


def side_by_side(plan: Plan, world_sizes: Iterable[int]) -> str:
    """A column per world size; one that has no plan shows why below."""
    header, columns, notes = ["world size"], [], []
    rates = (f"{_of(one.name)}lr {when}" for one in plan.optimizers for when in ("at start", "at the end"))
    rows = (*BATCH, *rates, *LENGTH)
    for world_size in world_sizes:
        header.append(f"{world_size:,}")
        try:
            columns.append(_column(with_world_size(plan, world_size)))
        except ConfigError as error:
            columns.append(["-"] * len(rows))
            notes += [f"{world_size:,} ranks: {problem}" for problem in error.problems]
    table = [header, *([name, *(column[i] for column in columns)] for i, name in enumerate(rows))]
    widths = [max(len(row[c]) for row in table) for c in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in range(1, len(header)))])
        for row in table
    ]
    return "\n".join([*lines, *notes])


def _of(name: str | None) -> str:
    return "" if name is None else f"{name} "


def _column(plan: Plan) -> list[str]:
    batch, clock = plan.batching, plan.timeline
    if batch is None:
        return ["-"] * (len(BATCH) + len(LENGTH))
    assert clock is not None
    total = clock.max_iters
    samples = None if total is None or batch.global_batch_size is None else _samples(plan, total)
    rates: list[float | None] = []
    for one in plan.optimizers:
        last = None
        if total and foreseen(plan, "lr", total, one.name) == total:
            last = value_at(plan, iteration=total - 1, optimizer=one.name).value
        rates += [value_at(plan, optimizer=one.name).value, last]
    values = (batch.micro_batch_size, batch.gradient_accumulation_steps, batch.global_batch_size, *rates,
              total, clock.optimizer_steps, samples, batch.dropped, batch.repeated)  # fmt: skip
    return [
        "?" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        for value in values
    ]


def _samples(plan: Plan, total: int) -> int:
    """Samples all ranks read in the whole run; the last batch of an epoch may be short."""
    assert plan.batching is not None
    assert plan.timeline is not None
    assert plan.train is not None
    batch, length, order = plan.batching, plan.timeline.epoch_length, plan.train.order
    assert batch.micro_batch_size is not None
    assert batch.data_parallel_size is not None
    full = batch.micro_batch_size * batch.per_iteration * batch.data_parallel_size
    if order is None or order.endless:
        return total * full
    assert length is not None
    assert batch.dropped is not None
    assert batch.repeated is not None
    epochs, rest = divmod(total, length)
    return epochs * (order.samples - batch.dropped + batch.repeated) + rest * full
