"""micro x accumulation x data_parallel = global: solving for what is not given, and counting an epoch."""

from collections.abc import Iterator

from attrs import evolve

from flexcore.components import Component, Supplied
from flexcore.config import Config, DataLoader, DefaultSampler, InfiniteSampler, NamedLoader
from flexcore.facts import Facts
from flexcore.plan_training import Batching
from flexcore.problems import Problem
from flexcore.rules import problem
from flexcore.sampling import Order
from flexcore.wrappers import asked


def solve(
    config: Config, micro: int | None, data_parallel_size: int | None
) -> tuple[Batching | None, list[Problem]]:
    """The batch identity with its unknown solved; None where a contradiction leaves none.

    Any two of micro_batch_size, accumulation and global_batch_size fix the third.
    """
    wrapper = next((one.wrapper for one in asked(config)), None)  # several are alike in both
    given = wrapper.accumulative_counts if wrapper is not None else None
    total, ranks = config.global_batch_size, data_parallel_size
    tail = wrapper.accumulation_tail if wrapper is not None else "carry"
    if total is None:
        steps = given or 1
        product = None if micro is None or ranks is None else micro * steps * ranks
        return Batching(
            micro_batch_size=micro, gradient_accumulation_steps=steps, global_batch_size=product,
            data_parallel_size=ranks, per_iteration=1, tail=tail, clock="micro",
        ), []  # fmt: skip
    if ranks is None or (micro is None and given is None):
        return Batching(
            micro_batch_size=micro, gradient_accumulation_steps=given, global_batch_size=total,
            data_parallel_size=ranks, per_iteration=given or 1, tail=tail, clock="global",
        ), []  # fmt: skip
    found = list(_contradictions(total, micro, given, ranks))
    if found:
        return None, found
    if micro is None:
        assert given is not None
        micro = total // (given * ranks)
    steps = total // (micro * ranks)
    return Batching(
        micro_batch_size=micro, gradient_accumulation_steps=steps, global_batch_size=total,
        data_parallel_size=ranks, per_iteration=steps, tail=tail, clock="global",
    ), []  # fmt: skip


def _contradictions(total: int, micro: int | None, steps: int | None, ranks: int) -> Iterator[Problem]:
    parts = [
        (micro, "micro_batch_size"),
        (steps, "gradient_accumulation_steps"),
        (ranks, "data_parallel_size"),
    ]
    known = [(value, name) for value, name in parts if value is not None]
    product = 1
    for value, _ in known:
        product *= value
    spelled = " x ".join(f"{name} {value}" for value, name in known)
    path = ("global_batch_size",)
    if len(known) == 3 and product != total:
        text = f"{total} contradicts {spelled} = {product}."
        yield problem("FD002", path, text, f"Set global_batch_size={product}, or leave one of them out.")
    elif total % product:
        low, high = total // product * product, -(-total // product) * product
        near = f"{low} or {high}" if low else f"{high}"
        yield problem(
            "FD002", path, f"{total} is not a multiple of {spelled} = {product}.", f"Nearest valid: {near}."
        )


def micro_batch_size(loader: DataLoader | Supplied, facts: Facts) -> int | None:
    """The loader's batch_size, else its batch sampler's (written or observed), else the supplied loader's."""
    if isinstance(loader, Supplied):
        return facts.train_batch_size
    if loader.batch_size is not None or loader.batch_sampler is None:
        return loader.batch_size
    written = loader.batch_sampler.kwargs.get("batch_size")
    return written if type(written) is int else facts.train_batch_size


def is_opaque(loader: DataLoader | Supplied) -> bool:
    """Whether the order of samples is the user's own: a supplied loader, a sampler or batch sampler class."""
    return (
        isinstance(loader, Supplied)
        or loader.batch_sampler is not None
        or isinstance(loader.sampler, Component | Supplied)
    )


def train_order(loader: DataLoader, batching: Batching, samples: int, seed: int) -> Order | None:
    """How the training samples are dealt; None for an opaque order or an unsolved batch identity."""
    sampler = loader.sampler if loader.sampler is not None else DefaultSampler()
    micro, ranks = batching.micro_batch_size, batching.data_parallel_size
    if is_opaque(loader) or isinstance(sampler, Component) or micro is None or ranks is None:
        return None
    return Order(
        samples=samples, shuffle=sampler.shuffle, seed=seed if sampler.seed is None else sampler.seed,
        endless=isinstance(sampler, InfiniteSampler), contiguous=batching.clock == "global",
        world_size=ranks, micro_batch_size=micro, accumulation=batching.per_iteration, drop_last=loader.drop_last,
    )  # fmt: skip


def eval_order(named: NamedLoader, samples: int, world_size: int, seed: int) -> Order | None:
    """How evaluation samples are dealt: by stride, unpadded, in dataset order unless asked otherwise."""
    loader = named.loader
    if isinstance(loader, Supplied) or is_opaque(loader) or isinstance(loader.sampler, Component):
        return None
    sampler = loader.sampler if loader.sampler is not None else DefaultSampler(shuffle=False)
    return Order(
        samples=samples, shuffle=sampler.shuffle, seed=seed if sampler.seed is None else sampler.seed, padded=False,
        world_size=world_size, micro_batch_size=loader.batch_size or 1, drop_last=loader.drop_last,
    )  # fmt: skip


def settled(order: Order | None, loader: DataLoader | Supplied, seed: int | None) -> Order | None:
    """The order, unless its shuffling waits for a seed that is not known yet."""
    own = getattr(loader.sampler, "seed", None) if isinstance(loader, DataLoader) else None
    waits = order is not None and order.shuffle and seed is None and own is None
    return None if waits else order


def counted(batching: Batching, order: Order, micro_batches: int) -> Batching:
    """The batching with the samples an epoch of `micro_batches` per rank drops or repeats."""
    used = micro_batches * order.micro_batch_size * order.world_size
    if order.endless:
        return evolve(batching, dropped=0, repeated=0)
    if not order.contiguous and not order.drop_last:
        per_rank = -(-order.samples // order.world_size)
        used = min(used, per_rank * order.world_size)
    return evolve(batching, dropped=max(0, order.samples - used), repeated=max(0, used - order.samples))
