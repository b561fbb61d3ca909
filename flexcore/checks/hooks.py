"""Rules of what the built-in hooks can be set to, apart from checkpoints: ranges, contradictions, paths."""

import math
from collections.abc import Iterator

from flexcore.checks.saving import placed
from flexcore.config import AmpOptim, Config
from flexcore.facts import Facts
from flexcore.hooks import (
    EMA,
    Checkpoint,
    EarlyStopping,
    EmptyCache,
    NaNGuard,
    Profiler,
    SyncBuffers,
    TensorboardTrace,
    Throughput,
    merged,
    priority_of,
    valid_priority,
)
from flexcore.loops import IterLoop
from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem
from flexcore.stopping_early import rule_of
from flexcore.wrappers import asked

FIX = "Correct the value."


def built_in(config: Config, _: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    for path, hook in placed(config):
        match hook:
            case EMA():
                yield from _ema(config, hook, path)
            case EarlyStopping():
                yield from _early(config, hook, path, broken)
            case NaNGuard():
                yield from _guard(config, hook, path)
            case EmptyCache() if not (hook.before_epoch or hook.after_epoch or hook.after_iter):
                yield problem(
                    "FK019", path, "empties nothing: every moment is off.", "Set one, or remove it."
                )
            case SyncBuffers() if isinstance(config.train_cfg, IterLoop):
                text = "averages at epochs' ends, and the iteration loop has none."
                remedy = "Remove it; evaluations use rank 0's buffers, which are those that are saved."
                yield problem("FS003", path, text, remedy)
            case Profiler():
                yield from _profiler(config, hook, path)
            case Throughput():
                yield from _throughput(hook, path)


def _least(path: Path, value: float, least: float) -> Iterator[Problem]:
    if not value >= least:
        yield problem("FK020", path, f"must be at least {least:g}, got {shown(value)}.", FIX)


def _ema(config: Config, hook: EMA, path: Path) -> Iterator[Problem]:
    yield from _least((*path, "interval"), hook.interval, 1)
    yield from _least((*path, "begin_iter"), hook.begin_iter, 0)
    yield from _least((*path, "begin_epoch"), hook.begin_epoch, 0)
    if hook.momentum is not None and not 0 < hook.momentum < 1:
        text = f"must be above 0 and below 1, got {shown(hook.momentum)}."
        yield problem(
            "FK020", (*path, "momentum"), text, "It is the share of the new weights, such as 0.0002."
        )
    if hook.gamma is not None:
        yield from _least((*path, "gamma"), hook.gamma, 1)
    if hook.momentum is not None and hook.ema_type == "StochasticWeightAverage":
        yield _idle((*path, "momentum"), hook.ema_type)
    if hook.gamma is not None and hook.ema_type != "MomentumAnnealingEMA":
        yield _idle((*path, "gamma"), hook.ema_type)
    if hook.begin_iter and hook.begin_epoch:
        text = f"is {hook.begin_epoch} while begin_iter is {hook.begin_iter}; both say when averaging begins."
        yield problem("FK019", (*path, "begin_epoch"), text, "Keep one of them.")
    if hook.begin_epoch and isinstance(config.train_cfg, IterLoop):
        yield problem(
            "FS003",
            (*path, "begin_epoch"),
            "counts epochs, and the iteration loop has none.",
            "Use begin_iter.",
        )
    yield from _before_saving(config, hook, path)


def _idle(path: Path, ema_type: str) -> Problem:
    return problem(
        "FK019", path, f"does nothing with ema_type {ema_type}.", "Remove it, or use another ema_type."
    )


def _before_saving(config: Config, hook: EMA, path: Path) -> Iterator[Problem]:
    """A checkpoint must hold the average of its own weights, and those back in their place."""
    running = [own for _, own in merged(config.default_hooks, config.custom_hooks)]
    saves = next((own for own in running if isinstance(own, Checkpoint)), None)
    if saves is None or not (valid_priority(hook.priority) and valid_priority(saves.priority)):
        return
    own, theirs = priority_of(hook), priority_of(saves)
    if own > theirs or (own == theirs and saves in running[: running.index(hook)]):
        text = f"is {own}, which runs after CheckpointHook ({theirs}); it must run before."
        yield problem("FK020", (*path, "priority"), text, "Leave it out (NORMAL, 50).")


def _early(config: Config, hook: EarlyStopping, path: Path, broken: frozenset[str]) -> Iterator[Problem]:
    yield from _least((*path, "min_delta"), hook.min_delta, 0)
    yield from _least((*path, "patience"), hook.patience, 1)
    if hook.stopping_threshold is not None and hook.stopping_threshold != hook.stopping_threshold:
        yield problem("FK020", (*path, "stopping_threshold"), "must be a number, got nan.", FIX)
    if rule_of(hook) is None:
        text = f"cannot tell whether more or less of {shown(hook.monitor)} is better."
        yield problem("FC002", (*path, "monitor"), text, 'Add rule="greater" or rule="less".')
    if config.val_cfg is None and "val_cfg" not in broken and config.train_cfg is not None:
        text = f"watches {shown(hook.monitor)}, but the config has no validation."
        yield problem("FC003", (*path, "monitor"), text, "Add val_dataloader, val_cfg and val_evaluator.")


def _guard(config: Config, hook: NaNGuard, path: Path) -> Iterator[Problem]:
    yield from _least((*path, "interval"), hook.interval, 1)
    if hook.action == "skip" and hook.interval > 1:
        text = f'is {hook.interval}; action="skip" can only leave out updates it looks at.'
        yield problem("FK019", (*path, "interval"), text, 'Set interval=1, or action="stop".')
    wrappers = [one.wrapper for one in asked(config)]
    scaled = any(isinstance(wrapper, AmpOptim) and wrapper.dtype != "bfloat16" for wrapper in wrappers)
    if scaled and hook.check != "loss":
        text = f"is {shown(hook.check)}; with float16 the loss scale meets infinite gradients and skips them itself."
        yield problem("FK019", (*path, "check"), text, 'Use check="loss", or dtype="bfloat16".')


def _profiler(config: Config, hook: Profiler, path: Path) -> Iterator[Problem]:
    yield from _least((*path, "profile_times"), hook.profile_times, 1)
    if hook.by_epoch and isinstance(config.train_cfg, IterLoop):
        yield problem(
            "FS003",
            (*path, "by_epoch"),
            "counts epochs, and the iteration loop has none.",
            "Set by_epoch=False.",
        )
    if not (hook.activity_with_cpu or hook.activity_with_cuda):
        yield problem(
            "FK019", path, "profiles nothing: every activity is off.", "Set activity_with_cpu=True."
        )
    if hook.json_trace_path is not None and isinstance(hook.on_trace_ready, TensorboardTrace):
        text = "is given with tb_trace, and a trace can be written once."
        yield problem("FK019", (*path, "json_trace_path"), text, "Keep one of them.")
    if hook.schedule is not None:
        for key in ("wait", "warmup", "repeat", "skip_first"):
            yield from _least((*path, "schedule", key), getattr(hook.schedule, key), 0)
        yield from _least((*path, "schedule", "active"), hook.schedule.active, 1)
    names: list[tuple[Path, str | None]] = [((*path, "json_trace_path"), hook.json_trace_path)]
    if isinstance(hook.on_trace_ready, TensorboardTrace):
        names.append(((*path, "on_trace_ready", "dir_name"), hook.on_trace_ready.dir_name))
    for where, name in names:
        if name is not None and not stays_inside(name):
            text = f"must be a path under the log directory, got {shown(name)}."
            yield problem("FC010", where, text, 'Write a relative path, such as "trace.json".')


def stays_inside(path: str) -> bool:
    """Whether a relative path names something under the directory it is joined to, and nothing else."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not set(parts) & {"", ".", ".."} and len(path) <= 200


def _throughput(hook: Throughput, path: Path) -> Iterator[Problem]:
    for key, other in (("flops_per_sample", "peak_flops"), ("peak_flops", "flops_per_sample")):
        value = getattr(hook, key)
        if value is None and getattr(hook, other) is not None:
            text = f"is missing, and MFU needs it besides {other}."
            yield problem("FK012", (*path, key), text, f"Add {key}, or remove {other}.")
        if value is not None and not 0 < value < math.inf:
            yield problem("FK020", (*path, key), f"must be a finite number > 0, got {shown(value)}.", FIX)
