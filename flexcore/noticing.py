"""What a plan tells without being asked: notices, unknowns with the facts that settle them, slots to fill."""

from collections.abc import Iterator

from flexcore.batching import is_opaque
from flexcore.components import Supplied
from flexcore.config import AmpOptim, Config, DataLoader
from flexcore.facts import Facts
from flexcore.memory import model_states
from flexcore.optimizing import waits_for_parameters
from flexcore.problems import Problem, shown
from flexcore.rules import problem
from flexcore.run_plan import Fresh, Plan, Resume, Start, Unresolved
from flexcore.strategies import Auto, SingleDevice
from flexcore.wrappers import asked


def notices(made: Plan, start: Start) -> Iterator[Problem]:
    yield from _of_registries(made)
    yield from _of_strategy(made)
    yield from _of_seed(made)
    yield from _of_loop(made)
    yield from _of_data(made)
    if made.config.resume is True and isinstance(start, Fresh) and not made.smoke:
        yield problem(
            "FC008", ("resume",), f"{start.because}; the run starts fresh.", "Nothing to do on a first run."
        )


def _of_registries(made: Plan) -> Iterator[Problem]:
    for key in ("default_scope", "runner_type"):
        value = getattr(made.config, key)
        if value is not None:
            text = f"is {shown(value)} and changes nothing: there are no registries, types are import paths."
            yield problem("FK023", (key,), text, "Nothing to do.")


def _of_strategy(made: Plan) -> Iterator[Problem]:
    """What "auto" came to, by which facts, and which are missing."""
    wanted, env = made.config.strategy, made.environment
    if not isinstance(wanted, Auto):
        return
    alone = isinstance(made.strategy, SingleDevice)
    ranks = (
        "ranks" if env.world_size is None else f"{env.world_size} rank{'' if env.world_size == 1 else 's'}"
    )
    why = "no launcher started ranks" if alone else f"launcher {env.launcher} started {ranks}"
    missing = [row[2] for row in _unknown_memory(made) if row[0]]
    needed, there = model_states(made.config, made.facts), made.facts.device_memory
    if missing:
        fits = f"; whether its model states fit is unknown until {' and '.join(missing)} are there"
    elif needed is not None and there is not None:
        how = "fit" if needed <= there else f"need {env.world_size or 'the'} shares on"
        fits = f"; model states of {needed / 2**30:.3g} GiB {how} devices of {there / 2**30:.3g} GiB"
    else:
        fits = "; memory is not counted on a CPU"
    idle = "; the settings of DDP wait for ranks" if alone and wanted != Auto() else ""
    text = f'"auto" chose {made.strategy.NAME}: {why}{fits}{idle}.'
    yield problem("FP009", ("strategy",), text, "Name the strategy to fix it.")


def _of_seed(made: Plan) -> Iterator[Problem]:
    env = made.environment
    if env.seed_given:
        return
    if env.seed is None:
        what = "will be drawn"
    else:
        what = f"was drawn: {env.seed}" if was_drawn(made) else f"is the checkpoint's: {env.seed}"
    yield problem("FR001", ("randomness", "seed"), f"is not given and {what}.", "Give a seed to repeat runs.")


def was_drawn(made: Plan) -> bool:
    """Whether a seed nobody gave is the entropy's; else it is that of the checkpoint the run goes on from."""
    entropy = made.facts.entropy
    return entropy is not None and made.environment.seed == entropy % 2**32


def _of_loop(made: Plan) -> Iterator[Problem]:
    if made.timeline is not None and made.timeline.opaque:
        text = (
            "is a loop of your own: when it validates, ends an epoch and ends is not planned, nor compared."
        )
        yield problem(
            "FK025", ("train_cfg", "type"), text, "Use by_epoch=True or False for a run planned whole."
        )


def _of_data(made: Plan) -> Iterator[Problem]:
    if made.batching is not None and made.batching.dropped:
        text = f"leaves out {made.batching.dropped} samples in every epoch."
        yield problem("FD007", ("train_dataloader",), text, "Change batch_size or drop_last if unwanted.")
    if made.batching is not None and made.batching.repeated:
        text = f"uses {made.batching.repeated} samples twice in every epoch to fill the last batch."
        yield problem("FD008", ("train_dataloader",), text, "Set drop_last=True to leave a short batch out.")
    if made.train is not None and made.train.opaque:
        text = "has an order of its own, which is not planned; a resume replays it from the epoch's start."
        loader = made.train.loader
        if isinstance(loader, DataLoader) and loader.persistent_workers:
            text = (
                text.removesuffix(".")
                + ", and workers start anew for each pass in spite of persistent_workers."
            )
        if made.facts.train_iterable:
            yield _iterable(made)
        yield from _uneven(made.facts, loader.num_batch_per_epoch if isinstance(loader, DataLoader) else None)
        yield problem(
            "FD009", ("train_dataloader",), text, "Use a dataset with DefaultSampler for exact resume."
        )


def _uneven(facts: Facts, limit: int | None) -> Iterator[Problem]:
    """Ranks whose passes differ in length; limit: what the config ends each pass at anyway."""
    fewest, most = facts.train_batches, facts.most_train_batches
    if fewest is not None and most is not None and (limit is None or fewest < limit):
        text = (
            f"has {fewest} to {most} micro-batches on a rank; a pass is {fewest} on each, so that none waits for another, and "
            "what a rank has besides is left out."
        )
        yield problem("FD012", ("train_dataloader",), text, "Give each rank as many.")


def _iterable(made: Plan) -> Problem:
    alone = made.batching is not None and made.batching.data_parallel_size == 1
    text = "only iterates"
    text += "." if alone else "; what each rank reads of it is the dataset's own business."
    remedy = "Nothing to do on one rank." if alone else "Let it yield other samples on each rank."
    return problem("FD010", ("train_dataloader", "dataset"), text, remedy)


def unresolved(made: Plan, start: Start) -> tuple[Unresolved, ...]:
    """Every field that is still unknown, with the name of the fact that would settle it."""
    rows = (
        *_unknown_surroundings(made),
        *_unknown_training(made),
        *_unknown_start(made, start),
        *_unknown_rest(made),
    )
    return tuple(Unresolved(field=name, fact=fact) for missing, name, fact in rows if missing)


Row = tuple[bool, str, str]


def _unknown_surroundings(made: Plan) -> Iterator[Row]:
    env = made.environment
    yield env.world_size is None, "environment.world_size", "world_size"
    yield env.device_type is None, "environment.device_type", "device_type"
    yield env.seed is None, "environment.seed", "entropy"
    yield made.names.timestamp is None, "names.timestamp", "started_at"
    yield from _unknown_memory(made)


def _unknown_memory(made: Plan) -> Iterator[Row]:
    """What "auto" needs to know of memory; on a CPU it asks only where someone told its size."""
    automatic = isinstance(made.config.strategy, Auto)
    measured = automatic and (made.environment.device_type != "cpu" or made.facts.device_memory is not None)
    yield measured and made.facts.parameters is None, "strategy", "parameters"
    yield measured and made.facts.device_memory is None, "strategy", "device_memory"


def _unknown_training(made: Plan) -> Iterator[Row]:
    opaque = made.train is not None and made.train.opaque
    if made.timeline is not None:
        counted = "train_batches" if opaque else "world_size" if made.facts.train_samples else "train_samples"
        endless = made.facts.train_iterable is True
        yield made.timeline.epoch_length is None and not endless, "timeline.epoch_length", counted
    if made.batching is not None:
        yield made.batching.micro_batch_size is None, "batching.micro_batch_size", "train_batch_size"
        unsolved = made.batching.gradient_accumulation_steps is None
        yield unsolved, "batching.gradient_accumulation_steps", "world_size"
    yield made.sharding is not None and made.sharding.units is None, "sharding.units", "modules"
    cut = made.tensor_parallel
    yield cut is not None and cut.layers is None, "tensor_parallel.layers", "modules"
    for one in asked(made.config) if made.optimizers else ():
        field = "optimizer" if one.name is None else f"optimizers.{one.name}"
        yield waits_for_parameters(one.wrapper, made.facts), f"{field}.groups", "parameters"
        undecided = isinstance(one.wrapper, AmpOptim) and one.wrapper.dtype is None
        yield undecided and made.environment.device_type is None, f"{field}.precision", "device_type"


def _unknown_start(made: Plan, start: Start) -> Iterator[Row]:
    yield isinstance(start, Resume) and start.iter is None, "start.iter", "named_checkpoint"
    searched = made.config.resume is True and not made.smoke
    yield searched and made.facts.checkpoints is None, "start", "checkpoints"


def _unknown_rest(made: Plan) -> Iterator[Row]:
    yield any(hook.stages is None for hook in made.hooks), "hooks.stages", "hooks"
    for mode, part, fact in (
        ("validation", made.validation, "val_samples"),
        ("testing", made.testing, "test_samples"),
    ):
        unknown = part is not None and any(d.order is None and not is_opaque(d.loader) for d in part.loaders)
        yield unknown, f"{mode}.loaders", fact


def supplied_slots(config: Config) -> tuple[str, ...]:
    """The names `shell.execute` must be given objects for, in config order."""
    slots = [
        name for name in ("model", "train_dataloader", "loss") if isinstance(getattr(config, name), Supplied)
    ]
    if isinstance(config.train_dataloader, DataLoader) and isinstance(
        config.train_dataloader.dataset, Supplied
    ):
        slots.append("train_dataset")
    if any(isinstance(one.optimizer, Supplied) for one in asked(config)):
        slots.append("optimizer")
    for mode in ("val", "test"):
        slots += _supplied_eval(config, mode)
    return tuple(slots)


def _supplied_eval(config: Config, mode: str) -> Iterator[str]:
    loaders = getattr(config, f"{mode}_dataloader") or ()
    metrics = getattr(config, f"{mode}_evaluator") or ()
    if any(isinstance(named.loader, Supplied) for named in loaders):
        yield f"{mode}_dataloader"
    if any(
        isinstance(named.loader, DataLoader) and isinstance(named.loader.dataset, Supplied)
        for named in loaders
    ):
        yield f"{mode}_dataset"
    if any(isinstance(named.metric, Supplied) for named in metrics):
        yield f"{mode}_evaluator"
