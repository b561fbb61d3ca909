"""plan(config, facts) -> Plan and lint(config, facts) -> problems: the stages in order, each resolved elsewhere."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import attrs
from attrs import evolve

from flexcore import preprocessing, starting
from flexcore.checks import all_problems
from flexcore.checks.ddp import windows
from flexcore.checks.deepspeed import identity
from flexcore.checks.observed import observed
from flexcore.components import Supplied
from flexcore.config import Config
from flexcore.converting import parse_partly
from flexcore.environment import chosen_strategy, data_parallel_size, environment
from flexcore.evaluating import evaluation
from flexcore.facts import Facts, HookFact
from flexcore.hooks import (
    STAGES,
    STATEFUL,
    Checkpoint,
    Hook,
    ParamScheduler,
    PlannedHook,
    UserHook,
    hook_name,
    merged,
    priority_of,
    stages_of,
    state_keys,
)
from flexcore.noticing import notices, supplied_slots, unresolved
from flexcore.optimizing import optimizers
from flexcore.plan_files import trajectory
from flexcore.problems import ConfigError, Problem
from flexcore.reporting import logging
from flexcore.rules import problem
from flexcore.run_plan import Fresh, Mode, Names, Plan, Saving
from flexcore.sampling import derived_seed
from flexcore.saving import out_dir, saving
from flexcore.schedules import ReduceOnPlateau
from flexcore.sharding import sharding, started
from flexcore.storage import room
from flexcore.strategies import Compile
from flexcore.tensor_parallel import tensor_layout
from flexcore.training import Training, schedules, smoked, training
from flexcore.wrappers import schedule_lists

__all__ = ["lint", "plan", "planned_hooks", "supplied_slots"]
NOTHING_KNOWN = Facts()
FIELDS = tuple(field.name for field in attrs.fields(Config))


def plan(
    cfg: Config | Mapping[str, Any],
    facts: Facts = NOTHING_KNOWN,
    *,
    mode: Mode = "train",
    smoke: bool = False,
) -> Plan:
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
    errors = _errors(problems)
    if errors or made is None:
        raise ConfigError(errors)
    return made


def lint(
    cfg: Config | Mapping[str, Any], facts: Facts = NOTHING_KNOWN, *, mode: Mode = "train"
) -> tuple[Problem, ...]:
    """Every finding, in the order of the config's keys; empty when there is nothing to say. Pure."""
    return tuple(_planned(cfg, facts, mode)[1])


def _planned(cfg: Any, facts: Facts, mode: Mode, smoke: bool = False) -> tuple[Plan | None, list[Problem]]:
    """The plan, if nothing is in its way, and every finding in the order of the keys given."""
    config, misfits, broken = (cfg, [], frozenset[str]()) if isinstance(cfg, Config) else parse_partly(cfg)
    impossible = list(observed(facts))
    facts = NOTHING_KNOWN if impossible else facts
    problems = [
        *impossible,
        *misfits,
        *all_problems(config, facts, broken),
        *_mode_problems(config, mode, broken),
    ]
    made = None
    if not _errors(problems):
        made, found = _assembled(config, facts, mode, smoke)
        problems += found
    if made is not None:
        made, problems = _started(made, problems)
    return made, _in_order(problems, cfg if isinstance(cfg, Mapping) else FIELDS)


def _errors(problems: Iterable[Problem]) -> list[Problem]:
    return [p for p in problems if p.severity == "error"]


def _in_order(problems: Iterable[Problem], keys: Iterable[Any]) -> list[Problem]:
    """Stable by the place of each problem's top-level key among `keys`; the root comes first, keys that are not there last."""
    places = {path: i for i, path in enumerate([(), *((key,) for key in keys)])}
    return sorted(problems, key=lambda p: places.get(p.path[:1], len(places)))


def _mode_problems(config: Config, mode: Mode, broken: frozenset[str]) -> list[Problem]:
    found = []
    key, loader = f"{mode}_cfg", f"{mode}_dataloader"
    given = getattr(config, key) is not None or getattr(config, loader) is not None
    if not given and key not in broken and loader not in broken:
        text = f"is missing, so there is nothing to {'train' if mode == 'train' else 'evaluate'}."
        found.append(problem("FK021", (key,), text, f"Add {loader}, {key} and the rest of its group."))
    if config.model is None and "model" not in broken:
        found.append(problem("FK012", ("model",), "is missing.", 'Add model=dict(type="pkg.module:Name").'))
    return found


def _assembled(config: Config, facts: Facts, mode: Mode, smoke: bool) -> tuple[Plan | None, list[Problem]]:
    """The plan without its starting point; None if a problem leaves none."""
    env, strategy = environment(config, facts), chosen_strategy(config, facts)
    ranks = data_parallel_size(strategy, env.world_size)
    trains = mode == "train"
    parts, problems = training(config, facts, env, ranks) if trains else (Training(), [])
    problems += [*identity(config, parts.batching), *windows(strategy, parts.batching)]
    timeline = parts.timeline
    curves, found = schedules(config, timeline) if timeline is not None else ({}, [])
    problems += found
    if _errors(problems):
        return None, problems
    hooks, names = planned_hooks(config, facts), _names(config, facts, smoke)
    evaluate = partial(evaluation, config, facts, ranks=ranks, env=env, smoke=smoke)
    return Plan(
        format_version=config.format_version, mode=mode, smoke=smoke, names=names,
        environment=env, strategy=strategy, model=config.model or Supplied(), loss=config.loss,
        data_preprocessor=preprocessing.chosen(config), sharding=sharding(strategy, facts, ranks),
        tensor_parallel=tensor_layout(strategy, facts, env.world_size),
        compile=_compile(config), train=parts.data, batching=parts.batching,
        timeline=smoked(timeline) if smoke and timeline is not None else timeline,
        optimizers=optimizers(config, parts.batching, facts, curves) if trains else (),
        validation=evaluate("val") if mode in ("train", "val") else None,
        testing=evaluate("test") if mode == "test" or smoke else None,
        saving=_saving(config, hooks, smoke) if trains else None,
        logging=logging(config, hooks, names.work_dir), hooks=hooks, start=Fresh(), notices=(), unresolved=(),
        config=config, facts=facts,
    ), problems  # fmt: skip


def _started(made: Plan, problems: list[Problem]) -> tuple[Plan, list[Problem]]:
    """The plan with its starting point, notices and unknowns."""
    start = (
        starting.chosen(made.config, made.facts, trains=made.mode == "train")
        if not made.smoke
        else Fresh(because="a smoke run starts fresh")
    )
    fact, start = starting.fact_of(start, made.facts), starting.counted(start, made.timeline)
    if made.timeline is not None and fact is not None:
        now = trajectory(made) if fact.trajectory else ()  # costs as much as the rest of the plan
        problems = [*problems, *starting.resume_problems(fact, now, made.timeline, made.config)]
        problems += starting.hook_notices(fact, made.hooks)
    problems = [*problems, *notices(made, start), *room(made)]
    return evolve(  # an error among them leaves no plan: see plan()
        made, start=start, notices=tuple(_in_order(problems, FIELDS)),
        sharding=started(made.sharding, made.strategy, loads=not isinstance(start, Fresh)), unresolved=unresolved(made, start),
    ), problems  # fmt: skip


def planned_hooks(config: Config, facts: Facts) -> tuple[PlannedHook, ...]:
    """Every hook in the order it runs: stable by priority, default slots first, then custom ones."""
    seen = {fact.place: fact for fact in facts.hooks or ()}
    registered = merged(config.default_hooks, config.custom_hooks)
    plateaued = any(isinstance(s, ReduceOnPlateau) for _, own in schedule_lists(config) for s in own)
    planned = [
        _planned_hook(place, hook, key, seen.get(place), plateaued)
        for (place, hook), key in zip(registered, state_keys(hook for _, hook in registered), strict=True)
    ]
    return _saved_after(sorted(planned, key=lambda hook: hook.priority))


SAVING_STAGES = frozenset({"after_train_iter", "after_train_epoch"})


def _saved_after(planned: list[PlannedHook]) -> tuple[PlannedHook, ...]:
    """CheckpointHook behind every hook whose state it would else save without what is about to be seen in that stage."""
    at = next((i for i, hook in enumerate(planned) if isinstance(hook.hook, Checkpoint)), len(planned))
    behind = [
        i for i, hook in enumerate(planned) if i > at and hook.stateful and SAVING_STAGES & {*(hook.stages or ())}
    ]  # fmt: skip
    last = max(behind, default=at)
    return (*planned[:at], *planned[at + 1 : last + 1], *planned[at : at + 1], *planned[last + 1 :])


def _planned_hook(
    place: int | str, hook: Hook, key: str, fact: HookFact | None, plateaued: bool
) -> PlannedHook:
    own = fact.priority if fact is not None else None
    stages: tuple[str, ...] | None
    stateful: bool | None
    if not isinstance(hook, UserHook):
        stages, stateful = stages_of(hook), isinstance(hook, STATEFUL)
        if isinstance(hook, ParamScheduler) and plateaued:
            stages = (*stages, "after_val_epoch")
    else:
        stages = None if fact is None else tuple(stage for stage in STAGES if stage in fact.stages)
        stateful = None if fact is None else fact.stateful
    return PlannedHook(
        name=hook_name(hook), priority=priority_of(hook, own), place=place, hook=hook, stages=stages, key=key,
        stateful=stateful,
    )  # fmt: skip


def _saving(config: Config, hooks: tuple[PlannedHook, ...], smoke: bool) -> Saving | None:
    hook = next((h.hook for h in hooks if isinstance(h.hook, Checkpoint)), None)
    if hook is None or config.train_cfg is None:
        return None
    made = saving(hook, config.train_cfg)
    once = evolve(made.points, save_begin=0, save_last=True)
    return evolve(made, points=once, every_seconds=None, retry_seconds=None) if smoke else made


def _names(config: Config, facts: Facts, smoke: bool) -> Names:
    run_id = None if facts.entropy is None else f"{derived_seed(facts.entropy, 0x1D) % 16**6:06x}"
    stem = config.experiment_name or facts.config_stem or "experiment"
    experiment = stem if facts.started_at is None else f"{stem}_{facts.started_at}_{run_id}"
    work_dir = (config.work_dir or f"work_dirs/{facts.config_stem or stem}").rstrip("/") or "/"
    running = (hook for _, hook in merged(config.default_hooks, config.custom_hooks))
    elsewhere = out_dir(next((hook for hook in running if isinstance(hook, Checkpoint)), None), work_dir)
    apart = "/smoke" if smoke else ""
    return Names(
        experiment_name=experiment, work_dir=work_dir + apart, timestamp=facts.started_at, run_id=run_id,
        out_dir=None if elsewhere is None else elsewhere + apart,
    )  # fmt: skip


def _compile(config: Config) -> Compile | None:
    if isinstance(config.compile, bool):
        return Compile() if config.compile else None
    return Compile(kwargs=config.compile)
