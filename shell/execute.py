"""execute(plan): carries out a plan from building to the last step; every effect of a run starts here."""

import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from time import perf_counter
from typing import Any

from flexcore.facts import Facts
from flexcore.planning import plan as make_plan
from flexcore.problems import ConfigError, is_url
from flexcore.rules import problem
from flexcore.run_plan import LoadWeights, Mode, Plan, Resume
from shell import adopting, probe, processes, remote, settling, weights
from shell.assembling import Built, assemble, build
from shell.checkpoints import DamagedCheckpoint, Loaded, RemoveFailed, Store
from shell.environment import device_of, prepared, settle
from shell.evaluating import evaluate
from shell.events import Recorder
from shell.feeding import passes
from shell.locking import Claim, WorkDirLost, work_dir_lock
from shell.loggers.console import Console
from shell.loggers.sinks import Sinks
from shell.loops import Stopper, train
from shell.own_loops import LoopRun
from shell.results import CheckpointRefused, RunResult
from shell.run import Run
from shell.saving import load_weights, put_weights, renamed, restore
from shell.stopping import StopSignals
from shell.watchdog import watched
from shell.writing import CheckpointWriter

NOTHING_KNOWN = Facts()


def run(
    cfg: Any, *, facts: Facts = NOTHING_KNOWN, mode: Mode = "train", smoke: bool = False, **supplied: Any
) -> RunResult:
    """Load, probe, plan and execute, for notebooks and scripts. cfg: a mapping, a Config or a config file's path.

    Raises:
        ConfigError: with every problem of settings, components and supplied objects, before any effect on disk.
    """
    if isinstance(cfg, str | pathlib.Path):
        from shell import files

        source = files.read(str(cfg))
        facts = settling.with_stem(facts, str(cfg))
        cfg = source.data
    facts = probe.device(probe.environment(facts))
    first = settling.planned(cfg, facts, mode, smoke=smoke, supplied=supplied)
    facts = probe.checkpoints(facts, first.config, first.names)
    return execute(make_plan(first.config, facts, mode=mode, smoke=smoke), **supplied)


def execute(
    plan: Plan, *, _before_start: Callable[[Plan], None] | None = None, _leaves: bool = False, **supplied: Any
) -> RunResult:
    """Carry out the plan. Objects for its Supplied slots come by keyword: model=net, train_dataloader=loader.

    Unknown facts are observed and the plan is completed with them; known facts must hold.

    Raises:
        ConfigError: components that cannot be built, or problems only the built objects show.
        StalePlan: a fact the plan rests on does not hold. WorkDirLocked: another run has the work_dir, or took it over.
        CheckpointRefused: the checkpoint the config names is damaged or missing.
    """
    # _leaves: the caller ends the process through processes.leave, so the group is left standing.
    settling.check(plan, supplied)
    plan = settling.completed(plan)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        env = plan.environment
        backend = settling.backend_of(env)
        group = stack.enter_context(processes.joined(env.launcher, backend, env.timeout, leaves=_leaves))
        plan = settling.agreed(plan, group)
        device = device_of(plan, group)
        stack.enter_context(prepared(plan))
        built = build(plan, supplied, group, device)
        settle(plan)
        plan = settling.settled(plan, built.facts, group)
        plan, store = stack.enter_context(_claimed(plan, group))
        with _recorded(plan, group) as (recorder, console):
            opaque = plan.timeline is not None and plan.timeline.opaque
            started = (LoopRun if opaque else Run)(plan, group, device, console.logger, recorder)
            if _before_start is not None:
                _before_start(plan)
            # Alone in someone's notebook a run is not ended by force; they see that it stands still.
            with watched(started) if _leaves or started.world_size > 1 else nullcontext():
                return _conducted(started, built, console, signals, store)


@contextmanager
def _claimed(plan: Plan, group: processes.Group) -> Iterator[tuple[Plan, Store]]:
    """Hold the work_dir, and where checkpoints go if that is elsewhere; with it held, sweep leftovers and settle where to start from whole checkpoints only."""
    with ExitStack() as stack:
        claims: list[Claim] = []
        run_id, failure = plan.names.run_id or "run", None
        store = Store(pathlib.Path(plan.names.checkpoint_dir), run_id, claims)
        if group.rank.rank == 0:
            try:
                places = filter(None, (plan.names.work_dir, plan.names.out_dir))
                claims.extend(stack.enter_context(work_dir_lock(place, run_id)) for place in places)
                store.sweep()
            except Exception as error:
                failure = error
        settling.raise_together(group, failure)
        yield settling.started(plan, group), store


@contextmanager
def _recorded(plan: Plan, group: processes.Group) -> Iterator[tuple[Recorder, Console]]:
    """The log directory with the plan in it, the event record and the console; rank 0 writes."""
    log_dir, rank, failure = pathlib.Path(plan.names.log_dir or plan.names.work_dir), group.rank.rank, None
    try:
        if rank == 0:
            log_dir.mkdir(parents=True, exist_ok=True)
            (log_dir / "plan.json").write_text(plan.to_json(indent=1), encoding="utf-8")
    except OSError as error:
        text = f"{log_dir} cannot be written: {error.strerror or error}."
        remedy = "Make room, or name a directory that can be written."
        failure = ConfigError([problem("FC010", ("work_dir",), text, remedy)])
    settling.raise_together(group, failure)
    voice = Console(plan, rank, log_dir / "run.log" if rank == 0 else None)
    with Recorder(log_dir if rank == 0 else None) as recorder, voice as console:
        recorder.complain_to(console.logger.error)
        yield recorder, console


def _conducted(run: Run, built: Built, console: Console, signals: StopSignals, store: Store) -> RunResult:
    """Assemble, start from where the plan says, do what its mode says, and tell how it ended."""
    plan = run.plan
    background = plan.saving is not None and plan.saving.async_save
    writer = CheckpointWriter(store if run.rank == 0 else None, background=background)
    sinks = assemble(run, built, console, writer)
    ended = None
    try:
        if isinstance(run, LoopRun):
            run.attach(passes(run, built))
        told = _start(run, store)
        _open(sinks, run.group)
        run.recorder.event("start", mode=plan.mode, iter=run.completed, epoch=run.epoch, validated=run.validated,
                           start=type(plan.start).__name__, from_=getattr(plan.start, "path", None),
                           plan_digest=run.plan_digest, world_size=run.world_size, **told)  # fmt: skip
        run.stages.call("before_run")
        reason = _carried_out(run, built, signals)
        run.stages.call("after_run")
        run.recorder.event(
            "stop", reason=reason, iter=run.completed, epoch=run.epoch, missing=run.attempts.missing
        )
        ended = reason
    finally:
        writer.close()
        sinks.close(ended)
    return RunResult(
        reason=reason, metrics=dict(run.metrics), epoch=run.epoch, iter=run.completed,
        checkpoints=tuple(run.checkpoints), work_dir=plan.names.work_dir, log_dir=plan.names.log_dir,
        save_failed=run.save_failed or bool(run.attempts.missing), missing=run.attempts.missing, plan=plan,
    )  # fmt: skip


def _open(sinks: Sinks, group: processes.Group) -> None:
    """Rank 0's backends; one that cannot be opened ends every rank."""
    failure = None
    try:
        sinks.begin()
    except ConfigError as error:
        failure = error
    settling.raise_together(group, failure)


def _carried_out(run: Run, built: Built, signals: StopSignals) -> str:
    plan, reason = run.plan, "done"
    if plan.mode == "train" and plan.timeline is not None:
        limit = plan.timeline.max_seconds
        stopper = Stopper(run, signals, None if limit is None else perf_counter() + limit)
        if isinstance(run, LoopRun):
            reason = run.conduct(stopper)
        else:
            built.open_training(run)
            reason = train(run, stopper)
    elif plan.validation is not None:
        evaluate(run, plan.validation, "val")
    if plan.testing is not None and reason == "done":
        evaluate(run, plan.testing, "test")
    return reason


def _start(run: Run, store: Store) -> dict[str, Any]:
    """Fresh, weights only, or the whole state; returns what the record needs to know of it besides the plan."""
    start, told = run.plan.start, dict[str, Any]()
    if isinstance(start, LoadWeights):
        here = str(remote.local(start.path, run.plan.names.work_dir)) if is_url(start.path) else start.path
        if weights.is_foreign(here):
            put_weights(run, renamed(weights.read(here), start), start.path, strict=start.strict)
        else:
            load_weights(run, _loaded(store, start.path), start)
        run.stages.call("after_load_checkpoint", checkpoint=start.path)
    elif isinstance(start, Resume) and start.writer == "mmengine":
        if run.plan.mode == "train":
            told = _adopt(run, start)
        else:
            put_weights(run, weights.read(start.path), start.path)
        run.stages.call("after_load_checkpoint", checkpoint=start.path)
    elif isinstance(start, Resume):
        loaded = _loaded(store, start.path)
        if run.plan.mode != "train":
            load_weights(run, loaded)
        else:
            _resume(run, store, loaded)
        run.stages.call("after_load_checkpoint", checkpoint=start.path)
    if run.plan.mode == "train":
        for hook in run.stages.timed:
            hook.start(run)
    return told


def _adopt(run: Run, start: Resume) -> dict[str, Any]:
    """Go on where mmengine's run stood."""
    notes, best = adopting.adopt(run, start)
    for note in notes:
        run.logger.warning("%s", note)
    run.completed = run.iter = run.started_at_iter = int(start.iter or 0)
    run.epoch = int(start.epoch or 0)
    run.logger.info("resumed mmengine's %s at iteration %d", start.path, run.completed)
    return {"best": best} if best else {}


def _resume(run: Run, store: Store, loaded: Loaded) -> None:
    fields = loaded.manifest.fields
    for note in restore(run, loaded):
        run.logger.warning("%s", note)
    run.completed = run.iter = run.started_at_iter = int(fields["iter"])
    run.epoch, run.validated = int(fields["epoch"]), bool(fields["validated"])
    run.saved_at = run.completed
    if run.rank == 0:
        for name in fields.get("retire", ()):
            if pathlib.Path(run.plan.names.checkpoint_dir, name).exists():
                _retire(run, store, name)
    run.logger.info("resumed %s at iteration %d", loaded.manifest.path, run.completed)
    for notice in run.plan.notices:
        if notice.code == "FC011":
            run.logger.warning("%s", notice)


def _retire(run: Run, store: Store, name: str) -> None:
    try:
        store.remove(name)
    except (RemoveFailed, WorkDirLost) as error:
        run.logger.warning("%s", error)


def _loaded(store: Store, path: str) -> Loaded:
    try:
        return store.load(pathlib.Path(path))
    except (DamagedCheckpoint, OSError) as error:
        raise CheckpointRefused(str(error)) from error
