"""Questions a plan answers, for scripts and notebooks: values, events and samples at any point, lazily."""

from collections.abc import Iterator, Sequence
from itertools import islice

from attrs import evolve, frozen

from flexcore import curves, sampling, timeline
from flexcore.loops import OwnTrainLoop
from flexcore.optimizing import waits_for_parameters
from flexcore.plan_training import Optimizer
from flexcore.run_plan import Plan, Saving
from flexcore.saving import best_name
from flexcore.wrappers import asked


@frozen
class Value:
    """An answer that may not exist yet: `value` None comes with the reason."""

    value: float | None
    reason: str = ""


class Undecided(ValueError):  # noqa: N818 - named for what is so
    """A plan cannot answer: a loop of the user's own decides it as it runs."""

    def __init__(self, what: str, plan: Plan) -> None:
        loop = plan.config.train_cfg
        assert isinstance(loop, OwnTrainLoop)
        super().__init__(f"{what} are not planned: {loop.component.type} decides them as it runs.")


def _planned_clock(plan: Plan, what: str) -> timeline.Timeline | None:
    """The clock, if it is the plan's to tell.

    Raises:
        Undecided: a loop of the user's own does.
    """
    if plan.timeline is not None and plan.timeline.opaque:
        raise Undecided(what, plan)
    return plan.timeline


def value_at(
    plan: Plan, key: str = "lr", iteration: int = 0, group: int = 0, optimizer: str | None = None
) -> Value:
    """The optimizer-group value in force during a 0-based iteration, before its optimizer step.

    optimizer: the name of one of several.

    Raises:
        IndexError: the plan has no such group. KeyError: the group has no such planned key, or the plan no such
            optimizer.
    """
    if not plan.optimizers:
        return Value(None, f"a {plan.mode} plan has no optimizer")
    assert plan.timeline is not None
    chosen = _named(plan, optimizer)
    base = dict(chosen.groups[group].values)[key]
    if base is None:
        return Value(None, _why_unknown(plan, key, optimizer))
    if chosen.lr_scale is None and key == "lr":
        return Value(None, "the LR's scale needs world_size and the batch size")
    if chosen.schedules is None:
        return Value(None, f"a schedule ends with the run, whose length needs {needed_for_length(plan)}")
    length = plan.timeline.epoch_length
    moving, walks, plateau = curves.course(chosen.schedules, key, length)
    if plateau is not None:
        return Value(None, f"validations of {plateau.monitor} decide it (ReduceOnPlateau)")
    return Value(curves.followed(moving, base, iteration, length, walks=walks))


def needed_for_length(plan: Plan) -> str:
    """The fact an epoch of unknown length waits for; a dataset that only iterates has none."""
    return next((one.fact for one in plan.unresolved if one.field == "timeline.epoch_length"), "an end")


def _why_unknown(plan: Plan, key: str, optimizer: str | None) -> str:
    for one in asked(plan.config):
        if one.name == optimizer and waits_for_parameters(one.wrapper, plan.facts):
            return "the groups of paramwise_cfg need the model's parameters"
    return f"{key} is not in the config and the optimizer has not been built"


def _named(plan: Plan, name: str | None) -> Optimizer:
    found = next((one for one in plan.optimizers if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in plan.optimizers if one.name is not None)
        told = f"the optimizers are {names}" if names else "there is one optimizer, without a name"
        raise KeyError(f"optimizer={name!r}: {told}")
    return found


FAR = 100_000


def foreseen(plan: Plan, key: str, total: int, optimizer: str | None = None) -> int:
    """How many of `total` iterations a text tells values of: all in closed form, else no more than FAR.

    Where each value takes the one before it, the last of 10^9 would take minutes.
    """
    assert plan.timeline is not None
    own = curves.own(_named(plan, optimizer).schedules or (), key)
    walks = curves.clashes(own, plan.timeline.epoch_length)
    return min(total, FAR) if walks else total


def values_at(
    plan: Plan, key: str, iterations: Sequence[int], group: int = 0, optimizer: str | None = None
) -> list[float | None]:
    """`value_at` at iterations, in one walk where schedules have no closed form."""
    if value_at(plan, key, optimizer=optimizer).value is None:
        return [None for _ in iterations]
    assert plan.timeline is not None
    chosen, length = _named(plan, optimizer), plan.timeline.epoch_length
    own, base = curves.own(chosen.schedules or (), key), chosen.groups[group].base(key)
    if not curves.clashes(own, length):
        return [value_at(plan, key, i, group, optimizer).value for i in iterations]
    assert base is not None
    walk = zip(range(max(iterations, default=-1) + 1), curves.values(own, base, length), strict=False)
    found = {i: value for i, value in walk if i in iterations}
    return [found[i] for i in iterations]


def validations(plan: Plan) -> Iterator[tuple[int, int | None]]:
    """(completed epochs, completed iterations) of every validation, in order; epoch 0 in the iteration loop.

    Raises:
        Undecided: a loop of the user's own says when.
    """
    clock = _planned_clock(plan, "validations")
    return iter(()) if clock is None else timeline.validations(clock)


@frozen
class Save:
    """One planned checkpoint. conditional: written only if the metric improved."""

    epoch: int
    iter: int
    name: str
    conditional: bool = False


def saves(plan: Plan, *, best: bool = True) -> Iterator[Save]:
    """Every checkpoint in the order written; best ones, which the data decide, are marked conditional.

    Empty while the run's length is unknown (see plan.unresolved).

    Raises:
        Undecided: a loop of the user's own says where an epoch and the run end.
    """
    clock = _planned_clock(plan, "saves")
    if plan.saving is None or clock is None or clock.max_iters is None:
        return iter(())
    return _saves(clock, plan.saving, best=best)


def _saves(clock: timeline.Timeline, saving: Saving, *, best: bool) -> Iterator[Save]:
    regular = timeline.saves(clock, saving.points)
    validated = timeline.validations(clock) if best and saving.best else ()
    checks = ((epoch, at) for epoch, at in validated if at is not None)
    due, check = next(regular, None), next(checks, None)
    while due is not None or check is not None:
        if due is not None and (check is None or due[1] <= check[1]):
            yield Save(clock.epoch_of(due[1]), due[1], saving.name(due[0]))
            due = next(regular, None)
        else:
            assert check is not None
            epoch, at = check
            for entry in saving.best:
                units = epoch if clock.by_epoch else at
                yield Save(epoch, at, best_name(entry.key or "auto", clock.by_epoch, units), conditional=True)
            check = next(checks, None)


def kept(plan: Plan, after: int) -> tuple[str, ...]:
    """The regular checkpoints standing after `after` completed iterations, oldest first.

    Raises:
        Undecided: a loop of the user's own says where an epoch and the run end.
    """
    clock = _planned_clock(plan, "saves")
    if plan.saving is None or clock is None:
        return ()
    names = (plan.saving.name(units) for units, _ in timeline.last_saves(clock, plan.saving.points, after))
    newest = islice(names, None if plan.saving.max_keep == -1 else plan.saving.max_keep)
    return tuple(newest)[::-1]


def sample_indices(plan: Plan, *, epoch: int, rank: int = 0, start: int = 0) -> Iterator[int]:
    """Dataset indices one rank trains on in an epoch, from its sample `start` on. The skip costs O(1).

    Ranks of one tensor-parallel group train on the same.

    Raises:
        ValueError: the order is a user's own, or a fact it needs is unknown.
        Undecided: a loop of the user's own reads as many as it likes.
    """
    order = plan.train.order if plan.train is not None else None
    if order is None:
        opaque = plan.train is not None and plan.train.opaque
        raise ValueError(
            "the order is the loader's own." if opaque else "the order needs train_samples and a seed."
        )
    clock = _planned_clock(plan, "samples")
    per_epoch = order.micro_batches
    if clock is not None and clock.epoch_length is not None and plan.batching is not None:
        per_epoch = clock.epoch_length * plan.batching.per_iteration
    first, skip = divmod(start, order.micro_batch_size)
    base = epoch * per_epoch if order.endless else 0
    for micro_batch in range(first, per_epoch):
        own = sampling.indices(order, epoch, base + micro_batch, plan.data_rank(rank))
        yield from own[skip:] if micro_batch == first else own


def window_samples(plan: Plan, iteration: int, rank: int = 0) -> tuple[int, ...] | None:
    """Dataset indices of one rank in the window of a running iteration, up to it; None where no order is planned."""
    order = plan.train.order if plan.train is not None else None
    clock, batching = plan.timeline, plan.batching
    if order is None or clock is None or clock.opaque or batching is None or clock.epoch_length is None:
        return None
    per, length = batching.per_iteration, clock.epoch_length * batching.per_iteration
    first, _ = timeline.window_at(clock, iteration)
    found: list[int] = []
    for at in range(first * per, (iteration + 1) * per):
        found += sampling.indices(
            order, at // length, at if order.endless else at % length, plan.data_rank(rank)
        )
    return tuple(found)


def with_world_size(plan: Plan, world_size: int) -> Plan:
    """The plan of the same request on another number of ranks, whatever checkpoints stand in its work_dir.

    Raises:
        ConfigError: the request has no plan there.
    """
    from flexcore.planning import plan as make

    torchrun = (("RANK", "0"), ("WORLD_SIZE", str(world_size)))
    environment = torchrun if plan.config.launcher in (None, "pytorch") else None
    facts = evolve(plan.facts, world_size=world_size, environment=environment, local_world_size=None,
                   checkpoints=None, named_checkpoint=None)  # fmt: skip
    return make(plan.config, facts, mode=plan.mode, smoke=plan.smoke)
