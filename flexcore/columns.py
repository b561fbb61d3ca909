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
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join([*lines, *notes])


def _of(name: str | None) -> str:
    return "" if name is None else f"{name} "


def _column(plan: Plan) -> list[str]:
    batch, clock = plan.batching, plan.timeline
    if batch is None or clock is None:
        return ["-"] * (len(BATCH) + 2 * len(plan.optimizers) + len(LENGTH))
    total = clock.max_iters
    samples = None if total is None or batch.global_batch_size is None else _samples(plan, total)
    rates: list[float | None] = []
    for one in plan.optimizers:
        near = bool(total) and foreseen(plan, "lr", total or 0, one.name) == total
        last = value_at(plan, iteration=(total or 1) - 1, optimizer=one.name).value if near else None
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
    batch, length = plan.batching, plan.timeline.epoch_length
    full = (batch.micro_batch_size or 0) * batch.per_iteration * (batch.data_parallel_size or 1)
    order = plan.train.order if plan.train is not None else None
    if order is None or order.endless or not length or batch.dropped is None:
        return total * full
    epochs, rest = divmod(total, length)
    return epochs * (order.samples - batch.dropped + (batch.repeated or 0)) + rest * full
