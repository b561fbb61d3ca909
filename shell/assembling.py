"""Builds what a plan names, observes it, and puts a Run together; the order of building is fixed here."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from attrs import define, evolve
from torch import nn

from flexcore import backends
from flexcore.components import Supplied
from flexcore.config import DataLoader
from flexcore.facts import Facts
from flexcore.hooks import (
    STAGES,
    Checkpoint,
    Logger,
    ParamScheduler,
    PlannedHook,
    UserHook,
)  # fmt: skip
from flexcore.plan_training import Optimizer
from flexcore.problems import ConfigError, Path, did_you_mean
from flexcore.rules import problem
from flexcore.run_plan import Evaluation, Plan
from shell import augmenting, building, parameters, preprocessing, sources
from shell.contracts import Contract, contract_of
from shell.environment import apart_from_model, diverge
from shell.feeding import default_collate_of, eval_feeds, training_batches
from shell.hooks import BUILTIN, SET_UP_BY_SPEC
from shell.loggers.console import Console
from shell.loggers.sinks import Sinks
from shell.materializing import without_memory
from shell.observing import observed
from shell.optim_wrappers import AnyOptim, OptimWrapper, OptimWrapperDict
from shell.own_evaluations import OwnEvaluation
from shell.processes import Group
from shell.ranks import Rank
from shell.run import Run, Stages
from shell.settling import raise_together
from shell.strategies import Layout, executor
from shell.writing import CheckpointWriter


@define
class Built:
    """The live objects of a run, before they are joined; `facts` is what they show."""

    model: nn.Module
    contract: Contract
    train: Any
    evals: dict[str, list[tuple[str | None, Any, DataLoader | Supplied, Path]]]
    metrics: dict[str, list[tuple[str, Any]]]
    optimizer: Any
    user_hooks: dict[int | str, Any]
    facts: Facts
    preprocessor: Any = None

    def open_training(self, run: Run) -> None:
        """Set run.batches to the stream from the next iteration on."""
        run.batches = training_batches(run, self, run.completed)


def build(plan: Plan, supplied: dict[str, Any], group: Group, device: torch.device) -> Built:
    """Every object once on every rank; a failure on one rank is raised on all."""
    made, failure = None, None
    try:
        made = _build(plan, supplied, group.rank)
    except Exception as error:
        failure = error
    raise_together(group, failure)
    assert made is not None
    if isinstance(made.preprocessor, nn.Module):
        made.preprocessor.to(device)
    return made


def _build(plan: Plan, supplied: dict[str, Any], rank: Rank) -> Built:
    preprocessor = preprocessing.built(plan)
    model = _model(plan, supplied, preprocessor, rank.rank)
    apart_from_model(plan)
    loss = (
        supplied.get("loss")
        if isinstance(plan.loss, Supplied)
        else plan.loss and building.build(plan.loss, ("loss",))
    )
    contract = augmenting.joined(
        preprocessing.joined(model, contract_of(model, loss, plan.mode), preprocessor), plan
    )
    group = 1 if plan.tensor_parallel is None else plan.tensor_parallel.size or rank.world_size
    place = sources.Place(
        plan, plan.data_rank(rank.rank), rank.world_size // group, default_collate_of(contract)
    )
    train = None if plan.train is None else sources.train_source(plan.train.loader, supplied, place)
    evals = {mode: sources.eval_sources(part, mode, supplied, place) for mode, part in _evaluations(plan)}
    metrics = {mode: _metrics(part, mode, supplied) for mode, part in _evaluations(plan)}
    hooks = {h.place: _user_hook(h) for h in plan.hooks if isinstance(h.hook, UserHook)}
    made = Built(
        model, contract, train, evals, metrics, supplied.get("optimizer"), hooks, Facts(), preprocessor
    )
    return evolve(made, facts=observed(plan, made))


def observed_by_building(plan: Plan) -> dict[str, Any]:
    """What building the plan's model and data shows, as Facts fields; nothing runs and nothing is written."""
    from shell.settling import SECOND_ROUND

    seen = _build(plan, {}, Rank(world_size=plan.environment.world_size or 1)).facts
    return {name: getattr(seen, name) for name in SECOND_ROUND}


def _evaluations(plan: Plan) -> Iterator[tuple[str, Evaluation]]:
    if plan.validation is not None:
        yield "val", plan.validation
    if plan.testing is not None:
        yield "test", plan.testing


def _model(plan: Plan, supplied: dict[str, Any], preprocessor: Any, rank: int) -> nn.Module:
    if isinstance(plan.model, Supplied):
        model = supplied["model"]
    else:
        taken = preprocessor is not None and preprocessing.takes_one(plan.model)
        hollow = plan.sharding is not None and plan.sharding.hollow(rank)
        with without_memory() if hollow else nullcontext():
            model = building.build(
                plan.model, ("model",), **({preprocessing.KEY: preprocessor} if taken else {})
            )
        if hollow:
            return _module(model)
    _module(model)
    if hasattr(model, "init_weights") and (plan.mode == "train" or plan.config.init_weights_for_test_or_val):
        model.init_weights()
    return model


def _module(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        text = f"is a {type(model).__name__}, not a torch.nn.Module."
        raise ConfigError(
            [problem("FK011", ("model",), text, "Name a Module class or a function returning one.")]
        )
    return model


def _metrics(part: Evaluation, mode: str, supplied: dict[str, Any]) -> list[tuple[str, Any]]:
    made = []
    for planned in part.metrics:
        given = supplied.get(f"{mode}_evaluator")
        if isinstance(planned.metric, Supplied):
            metric = given[planned.name] if isinstance(given, dict) else given
        else:
            metric = building.build(planned.metric, (f"{mode}_evaluator", planned.name))
        if not (hasattr(metric, "update") and hasattr(metric, "compute")) and not hasattr(metric, "process"):
            text = f"{type(metric).__name__} has neither update and compute nor process and evaluate."
            raise ConfigError(
                [problem("FK013", (f"{mode}_evaluator", planned.name), text, "Use a torchmetrics metric.")]
            )
        made.append((planned.name, metric))
    return made


def _user_hook(planned: PlannedHook) -> Any:
    assert isinstance(planned.hook, UserHook)
    owner = "custom_hooks" if isinstance(planned.place, int) else "default_hooks"
    hook = building.build(planned.hook.component, (owner, planned.place))
    known = set(STAGES)
    for name in dir(hook):
        if name.startswith(("before_", "after_")) and name not in known and callable(getattr(hook, name)):
            text = f"{planned.name}.{name} is not a stage, so it would never be called."
            remedy = did_you_mean(name, STAGES).strip() or f"Stages: {', '.join(STAGES)}."
            raise ConfigError([problem("FK010", (owner, planned.place), text, remedy)])
    return hook


def assemble(run: Run, built: Built, console: Console, writer: CheckpointWriter) -> Sinks:
    """Strategy, optimizer, hooks, evaluation feeds, in that order; returns the sinks to open and close."""
    plan = run.plan
    layout = Layout(plan.sharding, plan.tensor_parallel, backends.native(plan))
    run.strategy = executor(plan.strategy, run.device, layout)
    run.contract, run.model = built.contract, built.model
    if plan.compile is not None:
        _compile(built.model, {str(k): v for k, v in building.thaw(plan.compile.kwargs).items()})
    run.called = run.strategy.prepare(built.model, self_stepping=built.contract.loss is None)
    if plan.optimizers:
        run.optim_wrapper = _optim_wrapper(run, built)
    sinks = Sinks(run)
    run.stages = Stages(
        run, [(_hook(run, h, built, sinks, console, writer), *_called(h, plan)) for h in plan.hooks]
    )
    run.eval_feeds = {mode: eval_feeds(run, part, mode, built) for mode, part in _evaluations(plan)}
    run.eval_loops = {
        mode: OwnEvaluation(run, part.loop, mode)
        for mode, part in _evaluations(plan)
        if part.loop is not None
    }
    diverge(plan, run.data_rank)
    return sinks


def _compile(model: nn.Module, settings: dict[str, Any]) -> None:
    """The method itself, for Module.compile leaves models alone that inherit torch's own forward (Sequential)."""
    target = settings.pop("target", "forward")
    method = getattr(model, target, None)
    if not callable(method):
        text = f"is {target!r}, and {type(model).__name__} has no such method."
        raise ConfigError([problem("FK013", ("compile", "target"), text, "Name a method of the model.")])
    setattr(model, target, torch.compile(method, **settings))


def _called(planned: PlannedHook, plan: Plan) -> tuple[tuple[str, ...], bool]:
    """(stages, whether its iteration calls wait for a due point)."""
    if isinstance(planned.hook, ParamScheduler) and not any(one.schedules for one in plan.optimizers):
        return (), False
    return planned.stages or (), isinstance(planned.hook, Logger | Checkpoint) and plan.mode == "train"


def _hook(
    run: Run, planned: PlannedHook, built: Built, sinks: Sinks, console: Console, writer: CheckpointWriter
) -> Any:
    spec = planned.hook
    if isinstance(spec, UserHook):
        return built.user_hooks[planned.place]
    arguments: tuple[Any, ...] = ()
    if isinstance(spec, ParamScheduler):
        arguments = (run.plan,)
    elif isinstance(spec, Logger):
        arguments = (run.plan.logging, sinks, console)
    elif isinstance(spec, Checkpoint):
        arguments = (writer,)
    elif isinstance(spec, SET_UP_BY_SPEC):
        arguments = (spec,)
    return BUILTIN[type(spec)](*arguments)


def _optim_wrapper(run: Run, built: Built) -> AnyOptim:
    made = {}
    for one in run.plan.optimizers:
        optimizer = _optimizer(one, built)
        run.called = run.strategy.joined(run.called, optimizer)
        made[one.name] = OptimWrapper(optimizer, run.strategy, one, run.device)
    return made[None] if None in made else OptimWrapperDict({str(name): one for name, one in made.items()})


def _optimizer(planned: Optimizer, built: Built) -> torch.optim.Optimizer:
    if isinstance(planned.component, Supplied):
        chosen: torch.optim.Optimizer = built.optimizer
        return chosen
    return parameters.optimizer(planned, built.model)
