"""plan(config, facts) -> Plan and lint(config, facts) -> problems: the stages, each a resolver elsewhere."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from flexcore import batching as batches
from flexcore import starting
from flexcore.checks import all_problems
from flexcore.components import Component, Supplied
from flexcore.config import AmpOptim, Config, DataLoader, DefaultSampler, EpochLoop, NamedLoader
from flexcore.converting import parse_partly
from flexcore.environment import chosen_strategy, data_parallel_size, environment
from flexcore.facts import Facts, HookFact
from flexcore.hooks import STAGES, Checkpoint, Hook, Logger, PlannedHook, UserHook, hook_name, merged, priority_of
from flexcore.plan_files import trajectory
from flexcore.problems import ConfigError, Path, Problem
from flexcore.rules import problem
from flexcore.run_plan import (
    Batching, Environment, EvalData, Evaluation, Fresh, Group, Logging, Mode, Names, Optimizer, Plan, PlannedMetric,
    Precision, Resume, TrainData, Unresolved,
)  # fmt: skip
from flexcore.sampling import derived_seed
from flexcore.saving import saving
from flexcore.schedules import Schedule, clashes, resolved
from flexcore.strategies import Compile
from flexcore.timeline import Timeline

# Default base values of torch.optim classes (torch 2.10 to 2.13), for groups whose config names none.
DEFAULT_LR: Mapping[str, float] = {
    "SGD": 1e-3, "Adam": 1e-3, "AdamW": 1e-3, "NAdam": 2e-3, "RAdam": 1e-3, "Adamax": 2e-3, "Adadelta": 1.0,
    "Adagrad": 1e-2, "ASGD": 1e-2, "RMSprop": 1e-2, "Rprop": 1e-2, "SparseAdam": 1e-3, "Adafactor": 1e-2,
    "LBFGS": 1.0, "Muon": 1e-3,
}  # fmt: skip


def plan(cfg: Config | Mapping[str, Any], facts: Facts = Facts(), *, mode: Mode = "train", smoke: bool = False) -> Plan:
    """Everything the run will do, from what was asked and what is known. Pure.

    Args:
        cfg: a Config, or plain data in FlexibleRunner's vocabulary (never mutated).
        facts: what was observed; unknowns stay symbolic and are listed in `plan.unresolved`.
        mode: "train", "val" or "test".
        smoke: one batch of everything, under work_dir/smoke.

    Raises:
        ConfigError: with every error at once.
    """
    made, problems = _planned(cfg, facts, mode, smoke)
    errors = [p for p in problems if p.severity == "error"]
    if errors or made is None:
        raise ConfigError(errors)
    return made


def lint(cfg: Config | Mapping[str, Any], facts: Facts = Facts(), *, mode: Mode = "train") -> tuple[Problem, ...]:
    """Every finding, errors first to last in config order; empty when there is nothing to say. Pure."""
    return tuple(_planned(cfg, facts, mode, smoke=False)[1])


def _planned(cfg: Any, facts: Facts, mode: Mode, smoke: bool) -> tuple[Plan | None, list[Problem]]:
    config, problems, broken = (cfg, [], frozenset[str]()) if isinstance(cfg, Config) else parse_partly(cfg)
    problems = [*problems, *all_problems(config, facts, broken), *_mode_problems(config, mode, broken)]
    if any(p.severity == "error" for p in problems):
        return None, problems
    return _assembled(config, facts, mode, smoke, problems)


def _mode_problems(config: Config, mode: Mode, broken: frozenset[str]) -> list[Problem]:
    found = []
    key = f"{mode}_cfg"
    if getattr(config, key) is None and key not in broken and not _partial(config, mode):
        text = f"is missing, so there is nothing to {'train' if mode == 'train' else 'evaluate'}."
        found.append(problem("FK021", (key,), text, f"Add {mode}_dataloader, {key} and the rest of its group."))
    if config.model is None and "model" not in broken:
        found.append(problem("FK012", ("model",), "is missing.", 'Add model=dict(type="pkg.module:Name").'))
    return found


def _partial(config: Config, mode: Mode) -> bool:
    return getattr(config, f"{mode}_dataloader") is not None


def _assembled(
    config: Config, facts: Facts, mode: Mode, smoke: bool, problems: list[Problem]
) -> tuple[Plan | None, list[Problem]]:
    env, strategy = environment(config, facts), chosen_strategy(config, facts)
    ranks = data_parallel_size(strategy, env.world_size)
    training = mode == "train"
    batching, data, timeline = _training(config, facts, env, ranks, problems) if training else (None, None, None)
    schedules = _schedules(config, timeline, problems) if timeline is not None else None
    if any(p.severity == "error" for p in problems):
        return None, problems
    hooks = planned_hooks(config, facts)
    checkpoint = next((h.hook for h in hooks if isinstance(h.hook, Checkpoint)), None)
    if timeline is not None and smoke:
        timeline = _smoke(timeline)
    made = Plan(
        format_version=config.format_version, mode=mode, smoke=smoke, names=_names(config, facts, smoke),
        environment=env, strategy=strategy, model=config.model or Supplied(), loss=config.loss,
        compile=_compile(config), train=data, batching=batching, timeline=timeline,
        optimizer=_optimizer(config, batching, facts) if training else None, schedules=schedules,
        validation=_evaluation(config, facts, "val", ranks, env, smoke) if mode in ("train", "val") else None,
        testing=_evaluation(config, facts, "test", ranks, env, smoke) if mode == "test" or smoke else None,
        saving=saving(checkpoint, config.train_cfg) if training and checkpoint and config.train_cfg else None,
        logging=_logging(config, hooks), hooks=hooks, start=Fresh(), notices=(), unresolved=(),
        config=config, facts=facts,
    )  # fmt: skip
    return _started(made, problems)


def _started(made: Plan, problems: list[Problem]) -> tuple[Plan, list[Problem]]:
    start = starting.chosen(made.config, made.facts) if not made.smoke else Fresh(because="a smoke run starts fresh")
    total = made.timeline.max_iters if made.timeline is not None else None
    if made.mode == "train":
        problems = [*problems, *starting.resume_problems(start, made.facts, trajectory(made), total)]
    problems = [*problems, *_notices(made, start)]
    kept = tuple(p for p in problems if p.severity != "error")
    return evolve(made, start=start, notices=kept, unresolved=_unresolved(made, start)), problems


def _training(
    config: Config, facts: Facts, env: Environment, ranks: int | None, problems: list[Problem]
) -> tuple[Batching | None, TrainData | None, Timeline | None]:
    loader, loop = config.train_dataloader, config.train_cfg
    if loader is None or loop is None:
        return None, None, None
    micro = loader.batch_size if isinstance(loader, DataLoader) else facts.train_batch_size
    batching, found = batches.solve(config, micro, ranks)
    problems += found
    if batching is None:
        return None, None, None
    opaque = batches.is_opaque(loader)
    order, length = None, _opaque_length(loader, facts) if opaque else None
    if isinstance(loader, DataLoader) and not opaque and facts.train_samples is not None:
        order = batches.train_order(loader, batching, facts.train_samples, env.seed or 0)
        if order is not None:
            problems += _uneven(loader, facts.train_samples, ranks)
            length = order.micro_batches
    if isinstance(loader, DataLoader) and loader.num_batch_per_epoch is not None and length is not None:
        length = min(length, loader.num_batch_per_epoch)
    timeline, found = _timeline(config, batching, length)
    problems += found
    if order is not None and timeline is not None and timeline.epoch_length is not None:
        batching = batches.counted(batching, order, timeline.epoch_length * batching.per_iteration)
    settled = order if order is None or not order.shuffle or env.seed is not None else None
    return batching, TrainData(loader=loader, order=settled, opaque=opaque), timeline


def _opaque_length(loader: DataLoader | Supplied, facts: Facts) -> int | None:
    return facts.train_batches


def _uneven(loader: DataLoader, samples: int, ranks: int | None) -> list[Problem]:
    sampler = loader.sampler
    if not isinstance(sampler, DefaultSampler) or sampler.round_up or not ranks or samples % ranks == 0:
        return []
    text = f"is false with {samples} samples on {ranks} ranks: some ranks would run out first and the rest hang."
    path: Path = ("train_dataloader", "sampler", "round_up")
    return [problem("FD004", path, text, "Set round_up=True.")]


def _timeline(config: Config, batching: Batching, length: int | None) -> tuple[Timeline | None, list[Problem]]:
    """The clock, from micro-batches per rank and epoch (`length`; None: unknown)."""
    loop = config.train_cfg
    assert loop is not None
    by_epoch = isinstance(loop, EpochLoop)
    window = batching.gradient_accumulation_steps if batching.clock == "micro" else 1
    epoch_length = None if length is None else length // batching.per_iteration
    if epoch_length is not None and batching.tail == "drop" and by_epoch:
        epoch_length = epoch_length // window * window
    if isinstance(loop, EpochLoop):
        max_epochs, max_iters = loop.max_epochs, None if epoch_length is None else loop.max_epochs * epoch_length
    else:
        max_epochs = 1
        max_iters = loop.max_iters // window * window if batching.tail == "drop" else loop.max_iters
    if epoch_length == 0:
        text = f"gives epochs of no iterations: {length} micro-batches per rank, {window * batching.per_iteration} an update."
        return None, [problem("FD003", ("train_dataloader",), text, "Lower batch_size or accumulation, or keep the short batch.")]
    return Timeline(
        by_epoch=by_epoch, epoch_length=epoch_length, max_epochs=max_epochs, max_iters=max_iters, window=window,
        tail=batching.tail, val_begin=loop.val_begin, val_interval=loop.val_interval,
        dynamic_intervals=loop.dynamic_intervals or (), validates=config.val_cfg is not None,
        max_seconds=loop.max_time,
    ), []  # fmt: skip


def _smoke(timeline: Timeline) -> Timeline:
    """One optimizer update, then a validation; lengths of schedules stay those of the real run."""
    length = timeline.window if timeline.epoch_length is None else min(timeline.window, timeline.epoch_length)
    return evolve(
        timeline, max_epochs=1, max_iters=length, epoch_length=length if timeline.by_epoch else timeline.epoch_length,
        val_begin=1, val_interval=1, dynamic_intervals=(),
    )  # fmt: skip


def _schedules(config: Config, timeline: Timeline, problems: list[Problem]) -> tuple[Schedule, ...] | None:
    done: list[Schedule | None] = [
        resolved(
            schedule, by_epoch=timeline.by_epoch, epoch_length=timeline.epoch_length,
            total_epochs=timeline.max_epochs, total=timeline.max_iters,
        )
        for schedule in config.param_scheduler or ()
    ]  # fmt: skip
    known = [schedule for schedule in done if schedule is not None]
    if len(known) < len(done):
        return None
    for i, schedule in enumerate(known):
        if schedule.end is not None and schedule.end <= schedule.begin and timeline.max_iters:
            text = f"begins at {schedule.begin}, and the run ends at {schedule.end}."
            problems.append(problem("FS001", ("param_scheduler", i, "begin"), text, "Begin it before the run ends."))
    for i, j in clashes(known):
        text = f"overlaps param_scheduler.{i} while one of them has a floor; together they have no closed form."
        problems.append(problem("FS002", ("param_scheduler", j), text, "Let one end where the other begins, or drop eta_min."))
    return tuple(known)


def _optimizer(config: Config, batching: Batching | None, facts: Facts) -> Optimizer | None:
    wrapper = config.optim_wrapper
    if wrapper is None:
        return None
    scale = _lr_scale(config, batching)
    kwargs = wrapper.optimizer.kwargs if isinstance(wrapper.optimizer, Component) else None
    params = dict.fromkeys(["lr", *(schedule.param for schedule in config.param_scheduler or ())])
    groups = []
    for fact in facts.parameter_groups or (None,):
        seen = dict(fact.values) if fact is not None else {}
        values = []
        for param in params:
            base = seen.get(param, kwargs.get(param) if kwargs is not None else None)
            if base is None and param == "lr" and isinstance(wrapper.optimizer, Component):
                base = DEFAULT_LR.get(wrapper.optimizer.name)
            if param == "lr" and base is not None and scale is not None and fact is None:
                base = base * scale
            values.append((param, None if base is None else float(base)))
        groups.append(Group(values=tuple(values)))
    return Optimizer(
        component=wrapper.optimizer, groups=tuple(groups), lr_scale=scale, clip_grad=wrapper.clip_grad,
        precision=_precision(wrapper, facts),
    )  # fmt: skip


def _lr_scale(config: Config, batching: Batching | None) -> float | None:
    scale = config.auto_scale_lr
    if scale is None or not scale.enable or scale.base_batch_size is None:
        return 1.0
    if batching is None or batching.global_batch_size is None:
        return None
    return batching.global_batch_size / scale.base_batch_size


def _precision(wrapper: Any, facts: Facts) -> Precision:
    if not isinstance(wrapper, AmpOptim):
        return Precision()
    dtype = wrapper.dtype or ("float16" if facts.device_type == "cuda" else "bfloat16")
    if dtype != "float16":
        return Precision(dtype=dtype)
    if isinstance(wrapper.loss_scale, str | float | int):
        return Precision(dtype=dtype, loss_scale=wrapper.loss_scale)
    settings = {str(key): value for key, value in wrapper.loss_scale.entries}
    return Precision(dtype=dtype, loss_scale="dynamic", **settings)


def _evaluation(
    config: Config, facts: Facts, mode: str, ranks: int | None, env: Environment, smoke: bool
) -> Evaluation | None:
    loaders: tuple[NamedLoader, ...] | None = getattr(config, f"{mode}_dataloader")
    loop = getattr(config, f"{mode}_cfg")
    if loaders is None or loop is None:
        return None
    counts = getattr(facts, f"{mode}_samples") or (None,) * len(loaders)
    several, planned = len(loaders) > 1, []
    for i, (named, samples) in enumerate(zip(loaders, counts, strict=True)):
        order = None
        if samples is not None and ranks is not None:
            seed = derived_seed(env.seed or 0, i + 1)
            order = batches.eval_order(named, samples, ranks, seed)
        name = named.name if named.name is not None else (str(i) if several else None)
        planned.append(EvalData(name=name, loader=named.loader, order=order))
    metrics = tuple(
        PlannedMetric(name=named.name or _metric_name(named.metric), metric=named.metric)
        for named in getattr(config, f"{mode}_evaluator") or ()
    )
    dtype = "float16" if loop.fp16 else None
    return Evaluation(loaders=tuple(planned), metrics=metrics, dtype=dtype, max_batches=1 if smoke else None)


def _metric_name(metric: Component | Supplied) -> str:
    """ "torchmetrics:MeanSquaredError" -> "mean_squared_error"."""
    if isinstance(metric, Supplied):
        return "metric"
    name = metric.name
    split = [
        "_" + c.lower() if c.isupper() and i and (name[i - 1].islower() or name[i + 1 : i + 2].islower()) else c.lower()
        for i, c in enumerate(name)
    ]
    return "".join(split)


def planned_hooks(config: Config, facts: Facts) -> tuple[PlannedHook, ...]:
    """Every hook in the order it runs: stable by priority, default slots first, then custom ones."""
    seen = {fact.place: fact for fact in facts.hooks or ()}
    planned = [_planned_hook(place, hook, seen.get(place)) for place, hook in merged(config.default_hooks, config.custom_hooks)]
    return tuple(sorted(planned, key=lambda hook: hook.priority))


def _planned_hook(place: int | str, hook: Hook, fact: HookFact | None) -> PlannedHook:
    own = fact.priority if fact is not None else None
    if isinstance(hook, UserHook):
        stages = None if fact is None else tuple(stage for stage in STAGES if stage in fact.stages)
    else:
        stages = hook.STAGES
    return PlannedHook(name=hook_name(hook), priority=priority_of(hook, own), place=place, hook=hook, stages=stages)


def _logging(config: Config, hooks: tuple[PlannedHook, ...]) -> Logging:
    logger = next((h.hook for h in hooks if isinstance(h.hook, Logger)), None)
    given = config.visualizer.vis_backends if config.visualizer is not None else None
    names = ("TensorboardVisBackend",) if given is None else tuple(backend.NAME for backend in given)
    return Logging(
        interval=logger.interval if logger is not None else None,
        ignore_last=logger.ignore_last if logger is not None else True,
        window=config.log_processor.window_size, digits=config.log_processor.num_digits, level=config.log_level,
        backends=tuple(dict.fromkeys(("LocalVisBackend", *names))),
    )  # fmt: skip


def _names(config: Config, facts: Facts, smoke: bool) -> Names:
    run_id = None if facts.entropy is None else f"{derived_seed(facts.entropy, 0x1D) % 16**6:06x}"
    stem = config.experiment_name or facts.config_stem or "experiment"
    experiment = stem if facts.started_at is None else f"{stem}_{facts.started_at}_{run_id}"
    work_dir = (config.work_dir or f"work_dirs/{facts.config_stem or stem}").rstrip("/") or "/"
    return Names(
        experiment_name=experiment, work_dir=f"{work_dir}/smoke" if smoke else work_dir, timestamp=facts.started_at,
        run_id=run_id,
    )  # fmt: skip


def _compile(config: Config) -> Compile | None:
    if isinstance(config.compile, bool):
        return Compile() if config.compile else None
    return Compile(kwargs=config.compile)


def _notices(made: Plan, start: Any) -> list[Problem]:
    found = []
    if not made.environment.seed_given:
        what = "will be drawn" if made.environment.seed is None else f"was drawn: {made.environment.seed}"
        found.append(problem("FR001", ("randomness", "seed"), f"is not given and {what}.", "Give a seed to repeat runs."))
    if made.batching is not None and made.batching.dropped:
        text = f"leaves out {made.batching.dropped} samples in every epoch."
        found.append(problem("FD007", ("train_dataloader",), text, "Change batch_size or drop_last if unwanted."))
    if made.batching is not None and made.batching.repeated:
        text = f"uses {made.batching.repeated} samples twice in every epoch to fill the last batch."
        found.append(problem("FD008", ("train_dataloader",), text, "Set drop_last=True to leave a short batch out."))
    if made.train is not None and made.train.opaque:
        text = "has an order of its own, which is not planned; a resume replays it from the epoch's start."
        found.append(problem("FD009", ("train_dataloader",), text, "Use a dataset with DefaultSampler for exact resume."))
    if made.config.resume is True and isinstance(start, Fresh) and not made.smoke:
        found.append(problem("FC008", ("resume",), f"{start.because}; the run starts fresh.", "Nothing to do on a first run."))
    return found


def _unresolved(made: Plan, start: Any) -> tuple[Unresolved, ...]:
    env = made.environment
    rows: list[tuple[bool, str, str]] = [
        (env.world_size is None, "environment.world_size", "world_size"),
        (env.device_type is None, "environment.device_type", "device_type"),
        (env.seed is None, "environment.seed", "entropy"),
        (made.names.timestamp is None, "names.timestamp", "started_at"),
        (made.timeline is not None and made.timeline.epoch_length is None, "timeline.epoch_length",
         "train_batches" if made.train is not None and made.train.opaque else "train_samples"),
        (isinstance(start, Resume) and start.iter is None, "start.iter", "checkpoints"),
        (made.config.resume is True and made.facts.checkpoints is None, "start", "checkpoints"),
        (made.batching is not None and made.batching.micro_batch_size is None, "batching.micro_batch_size",
         "train_batch_size"),
        (any(hook.stages is None for hook in made.hooks), "hooks.stages", "hooks"),
    ]  # fmt: skip
    for mode, part in (("validation", made.validation), ("testing", made.testing)):
        unknown = part is not None and any(d.order is None and not batches.is_opaque(d.loader) for d in part.loaders)
        rows.append((unknown, f"{mode}.loaders", f"{'val' if mode == 'validation' else 'test'}_samples"))
    return tuple(Unresolved(field=name, fact=fact) for missing, name, fact in rows if missing)


def supplied_slots(config: Config) -> tuple[str, ...]:
    """The names `shell.execute` must be given objects for, in config order."""
    slots = [name for name in ("model", "train_dataloader", "loss") if isinstance(getattr(config, name), Supplied)]
    if isinstance(config.train_dataloader, DataLoader) and isinstance(config.train_dataloader.dataset, Supplied):
        slots.append("train_dataset")
    if config.optim_wrapper is not None and isinstance(config.optim_wrapper.optimizer, Supplied):
        slots.append("optimizer")
    for mode in ("val", "test"):
        slots += _supplied_eval(config, mode)
    return tuple(slots)


def _supplied_eval(config: Config, mode: str) -> list[str]:
    loaders = getattr(config, f"{mode}_dataloader") or ()
    metrics = getattr(config, f"{mode}_evaluator") or ()
    found = []
    if any(isinstance(named.loader, Supplied) for named in loaders):
        found.append(f"{mode}_dataloader")
    if any(isinstance(named.loader, DataLoader) and isinstance(named.loader.dataset, Supplied) for named in loaders):
        found.append(f"{mode}_dataset")
    if any(isinstance(named.metric, Supplied) for named in metrics):
        found.append(f"{mode}_evaluator")
    return found
