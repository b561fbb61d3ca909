"""The training side of a plan: batch identity, sample order, clock and resolved schedules. No evaluation, no files."""

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from flexcore import batching as batches
from flexcore.components import Supplied
from flexcore.config import Config, DataLoader, DefaultSampler
from flexcore.curves import lost, resolved
from flexcore.facts import Facts
from flexcore.loops import EpochLoop, IterLoop, OwnTrainLoop, TrainLoop
from flexcore.plan_training import Batching, TrainData
from flexcore.problems import Path, Problem
from flexcore.rules import problem
from flexcore.run_plan import Environment
from flexcore.sampling import Order
from flexcore.schedules import Schedule
from flexcore.timeline import Timeline
from flexcore.wrappers import asked, schedule_lists


@frozen
class Training:
    """What a training run is made of; None where the config has none or a problem left none."""

    batching: Batching | None = None
    data: TrainData | None = None
    timeline: Timeline | None = None


def training(
    config: Config, facts: Facts, env: Environment, ranks: int | None
) -> tuple[Training, list[Problem]]:
    """Batching, data and clock of the training loop, and what is wrong with them."""
    loader, loop = config.train_dataloader, config.train_cfg
    assert loader is not None
    assert loop is not None
    if isinstance(loop, OwnTrainLoop) and config.global_batch_size is not None:
        text = "sets the clock to global batches, and a loop of your own takes batches as it likes."
        return Training(), [problem("FD002", ("global_batch_size",), text, "Use accumulative_counts.")]
    batching, problems = batches.solve(config, batches.micro_batch_size(loader, facts), ranks)
    if batching is None:
        return Training(), problems
    opaque = batches.is_opaque(loader) or facts.train_iterable is True
    order, length = None, facts.train_batches if opaque else None
    if isinstance(loader, DataLoader) and facts.train_samples is not None and not opaque:
        order = batches.train_order(loader, batching, facts.train_samples, env.seed or 0)
        if order is not None:
            length = order.micro_batches
    if isinstance(loader, DataLoader) and loader.num_batch_per_epoch is not None:
        known = length is not None or facts.train_iterable is True
        most = loader.num_batch_per_epoch
        length = None if not known else most if length is None else min(length, most)
    own_updates = len(asked(config)) > 1 or facts.train_step is True
    timeline, found = _timeline(config, batching, length, own_updates=own_updates)
    problems = [*_uneven(loader, order), *_endless(config, facts, length), *found]
    if order is not None and timeline is not None and timeline.epoch_length is not None:
        batching = batches.counted(batching, order, timeline.epoch_length * batching.per_iteration)
    settled = batches.settled(order, loader, env.seed)
    return Training(batching, TrainData(loader=loader, order=settled, opaque=opaque), timeline), problems


def _endless(config: Config, facts: Facts, length: int | None) -> list[Problem]:
    """What a dataset that only iterates cannot do."""
    if facts.train_iterable is not True:
        return []
    found = []
    if length is None and isinstance(config.train_cfg, EpochLoop):
        text = "is missing, and the dataset has no length: its epochs have no end to plan."
        remedy = "Set it to micro-batches per rank and epoch, or train by iterations: by_epoch=False."
        found.append(problem("FK012", ("train_dataloader", "num_batch_per_epoch"), text, remedy))
    loader = config.train_dataloader
    for name in ("sampler", "batch_sampler") if isinstance(loader, DataLoader) else ():
        if getattr(loader, name) is not None:
            text = "is given, and the dataset only iterates, in an order of its own."
            found.append(problem("FK019", ("train_dataloader", name), text, "Remove it."))
    if config.global_batch_size is not None:
        text = "sets the clock to global batches, and the dataset only iterates, in an order of its own."
        found.append(problem("FD002", ("global_batch_size",), text, "Use accumulative_counts."))
    return found


def _uneven(loader: DataLoader | Supplied, order: Order | None) -> list[Problem]:
    sampler = loader.sampler if isinstance(loader, DataLoader) else None
    if not isinstance(sampler, DefaultSampler) or sampler.round_up:
        return []
    if order is None or order.samples % order.world_size == 0:
        return []
    text = (
        f"is false with {order.samples} samples on {order.world_size} ranks: "
        "some ranks would run out first and the rest hang."
    )
    path: Path = ("train_dataloader", "sampler", "round_up")
    return [problem("FD004", path, text, "Set round_up=True.")]


def _timeline(
    config: Config, batching: Batching, length: int | None, *, own_updates: bool
) -> tuple[Timeline | None, list[Problem]]:
    """The clock, from micro-batches per rank and epoch (`length`; None: unknown)."""
    loop = config.train_cfg
    assert loop is not None
    per_iteration, steps = batching.per_iteration, batching.gradient_accumulation_steps
    window = steps if batching.clock == "micro" and steps is not None else 1
    epoch_length = None if length is None else length // per_iteration
    if epoch_length is not None and batching.tail == "drop" and isinstance(loop, EpochLoop):
        epoch_length = epoch_length // window * window
    max_epochs, max_iters = _totals(loop, epoch_length, window if batching.tail == "drop" else 1)
    if isinstance(loop, IterLoop) and max_iters == 0 < loop.max_iters:
        text = f"is {loop.max_iters}, less than one accumulation window of {window}, and the tail is dropped."
        remedy = f"Set max_iters to at least {window}, or accumulation_tail to another than drop."
        return None, [problem("FD003", ("train_cfg", "max_iters"), text, remedy)]
    if epoch_length == 0:
        text = f"gives epochs of no iterations: {length} micro-batches per rank, {window * per_iteration} an update."
        remedy = "Lower batch_size or accumulation, or keep the short batch."
        return None, [problem("FD003", ("train_dataloader",), text, remedy)]
    return Timeline(
        by_epoch=loop.by_epoch, epoch_length=epoch_length, max_epochs=max_epochs, max_iters=max_iters,
        window=window, tail=batching.tail, val_begin=loop.val_begin, val_interval=loop.val_interval,
        dynamic_intervals=loop.dynamic_intervals or (), validates=config.val_cfg is not None,
        max_seconds=loop.max_time, opaque=isinstance(loop, OwnTrainLoop),
        updates="model" if own_updates else "planned",
    ), []  # fmt: skip


def _totals(loop: TrainLoop, epoch_length: int | None, whole: int) -> tuple[int, int | None]:
    """Epochs and iterations of the run, a multiple of `whole`; of a loop of one's own, as far as it says them."""
    if isinstance(loop, IterLoop):
        return 1, loop.max_iters // whole * whole
    if isinstance(loop, OwnTrainLoop) and loop.max_epochs is None:
        return 1, loop.max_iters
    assert loop.max_epochs is not None
    return loop.max_epochs, None if epoch_length is None else loop.max_epochs * epoch_length


def smoked(timeline: Timeline) -> Timeline:
    """One optimizer update, then a validation; lengths of schedules stay those of the real run."""
    known = [n for n in (timeline.window, timeline.epoch_length, timeline.max_iters) if n]
    length = min(known)
    return evolve(
        timeline, max_epochs=1, max_iters=length, epoch_length=length if timeline.by_epoch else timeline.epoch_length,
        val_begin=1, val_interval=1, dynamic_intervals=(),
    )  # fmt: skip


Resolved = Mapping[Path, tuple[Schedule, ...] | None]


def schedules(config: Config, timeline: Timeline) -> tuple[Resolved, list[Problem]]:
    """Every list of schedules by its place, with defaults filled; and what is wrong with them."""
    resolved_lists: dict[Path, tuple[Schedule, ...] | None] = {}
    problems: list[Problem] = []
    for place, own in schedule_lists(config):
        resolved_lists[place], found = _resolved(own, place, timeline)
        problems += found
    return resolved_lists, problems


def _resolved(
    given: Sequence[Schedule], place: Path, timeline: Timeline
) -> tuple[tuple[Schedule, ...] | None, list[Problem]]:
    """One list; None while a length is unknown."""
    done = [
        resolved(
            schedule, by_epoch=timeline.by_epoch, epoch_length=timeline.epoch_length,
            total_epochs=timeline.max_epochs, total=timeline.max_iters,
        )
        for schedule in given
    ]  # fmt: skip
    known = tuple(schedule for schedule in done if schedule is not None)
    if len(known) < len(done):
        return None, []
    return known, [*_spans(known, given, place, timeline), *_lost(known, place, timeline)]


def _spans(
    known: Sequence[Schedule], given: Sequence[Schedule], place: Path, timeline: Timeline
) -> list[Problem]:
    problems: list[Problem] = []
    for i, schedule in enumerate(known if timeline.max_iters else ()):
        begin, unit = schedule.begin, "epoch" if schedule.by_epoch else "iteration"
        total = timeline.max_epochs if schedule.by_epoch else timeline.max_iters
        if total is None or begin < total:
            continue
        text = f"is {unit} {begin}, and the run ends at {total}."
        if given[i].end is None:
            problems.append(problem("FS001", (*place, i, "begin"), text, "Begin it before the run ends."))
        else:
            remedy = "Train for longer, begin it earlier or remove it."
            problems.append(problem("FS007", (*place, i, "begin"), text, remedy))
    return problems


def _lost(known: Sequence[Schedule], place: Path, timeline: Timeline) -> list[Problem]:
    text = "starts at a factor of 0 while it meets a schedule that steps from value to value: no factor leads up from 0."
    remedy = "Start above 0, or let one end where the other begins."
    return [problem("FS002", (*place, i), text, remedy) for i in lost(known, timeline.epoch_length)]
