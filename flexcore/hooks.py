"""Stages, priorities and the order hooks run in; their settings are in hook_specs, and no hook is run here."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import get_args

from attrs import frozen

from flexcore.components import Component
from flexcore.hook_specs import (
    EMA,
    Checkpoint,
    EarlyStopping,
    EmptyCache,
    IterTimer,
    Logger,
    LogTrace,
    NaNGuard,
    ParamScheduler,
    Profiler,
    RuntimeInfo,
    SamplerSeed,
    SyncBuffers,
    TensorboardTrace,
    Throughput,
    TraceHandler,
)

__all__ = [
    "BUILTIN_HOOKS",
    "DEFAULT_SLOTS",
    "EMA",
    "PRIORITIES",
    "STAGES",
    "STATEFUL",
    "BuiltinHook",
    "Checkpoint",
    "EarlyStopping",
    "EmptyCache",
    "Hook",
    "HookSlot",
    "IterTimer",
    "LogTrace",
    "Logger",
    "NaNGuard",
    "ParamScheduler",
    "PlannedHook",
    "Profiler",
    "RuntimeInfo",
    "SamplerSeed",
    "SyncBuffers",
    "TensorboardTrace",
    "Throughput",
    "TraceHandler",
    "UserHook",
    "hook_name",
    "merged",
    "priority_of",
    "stages_of",
    "state_keys",
    "valid_priority",
]

STAGES: tuple[str, ...] = (
    "before_run", "after_run",
    "before_train", "after_train", "before_train_epoch", "after_train_epoch",
    "before_train_iter", "after_train_iter",
    "before_val", "after_val", "before_val_epoch", "after_val_epoch", "before_val_iter", "after_val_iter",
    "before_test", "after_test", "before_test_epoch", "after_test_epoch",
    "before_test_iter", "after_test_iter",
    "before_save_checkpoint", "after_load_checkpoint",
)  # fmt: skip

PRIORITIES: Mapping[str, int] = {
    "HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40, "NORMAL": 50,
    "BELOW_NORMAL": 60, "LOW": 70, "VERY_LOW": 90, "LOWEST": 100,
}  # fmt: skip


BuiltinHook = (
    RuntimeInfo | IterTimer | SamplerSeed | Logger | ParamScheduler | Checkpoint
    | EMA | EarlyStopping | NaNGuard | SyncBuffers | EmptyCache | Profiler | Throughput
)  # fmt: skip
BUILTIN_HOOKS: tuple[type[BuiltinHook], ...] = get_args(BuiltinHook)

STATEFUL: tuple[type[BuiltinHook], ...] = (Logger, ParamScheduler, Checkpoint, EMA, EarlyStopping, NaNGuard)
"""The built-in hooks whose state a checkpoint holds."""

DEFAULT_SLOTS: Mapping[str, BuiltinHook] = {
    "runtime_info": RuntimeInfo(),
    "timer": IterTimer(),
    "sampler_seed": SamplerSeed(),
    "logger": Logger(),
    "param_scheduler": ParamScheduler(),
    "checkpoint": Checkpoint(),
}


@frozen(kw_only=True)
class UserHook:
    """A hook class of the user's, built in the shell. `priority` None: the class's own, else NORMAL."""

    component: Component
    priority: int | str | None = None


Hook = BuiltinHook | UserHook


@frozen(kw_only=True)
class HookSlot:
    """One entry of default_hooks; hook None removes the default of that name."""

    key: str
    hook: Hook | None


@frozen(kw_only=True)
class PlannedHook:
    """One hook of the run: where it came from, what it is, when it runs.

    Attributes:
        name: class name. place: its key in default_hooks or index in custom_hooks.
        key: what its state is filed under in checkpoints, wherever it is registered.
        stages: what it listens to, in STAGES order; None while a user's class has not been looked at.
        stateful: whether it has state to save; None as above.
    """

    name: str
    priority: int
    place: int | str
    hook: Hook
    stages: tuple[str, ...] | None
    key: str = ""
    stateful: bool | None = None


def state_keys(hooks: Iterable[Hook]) -> tuple[str, ...]:
    """What the state of each is filed under: its type, and from the second of a type on "#2", "#3", ... in order."""
    seen: Counter[str] = Counter()
    keys = []
    for hook in hooks:
        kind = hook.component.type.replace(":", ".") if isinstance(hook, UserHook) else hook.NAME
        seen[kind] += 1
        keys.append(kind if seen[kind] == 1 else f"{kind}#{seen[kind]}")
    return tuple(keys)


def merged(slots: Iterable[HookSlot], custom: Iterable[Hook]) -> tuple[tuple[int | str, Hook], ...]:
    """(place, hook) in registration order: default slots, replaced or removed by key, new keys, then custom."""
    by_key: dict[str, Hook | None] = dict(DEFAULT_SLOTS)
    for slot in slots:
        by_key[slot.key] = slot.hook
    kept: list[tuple[int | str, Hook]] = [(key, hook) for key, hook in by_key.items() if hook is not None]
    return (*kept, *enumerate(custom))


def priority_of(hook: Hook, own: int | str | None = None) -> int:
    """The number a hook is sorted by: as configured, else the class's own, else NORMAL (50)."""
    given = hook.priority if hook.priority is not None else own
    if given is None:
        return PRIORITIES["NORMAL"] if isinstance(hook, UserHook) else hook.PRIORITY
    return PRIORITIES[given] if isinstance(given, str) else given


def valid_priority(priority: int | str | None) -> bool:
    if isinstance(priority, str):
        return priority in PRIORITIES
    return priority is None or 0 <= priority <= 100


def hook_name(hook: Hook) -> str:
    return hook.component.name if isinstance(hook, UserHook) else hook.NAME


def stages_of(hook: BuiltinHook) -> tuple[str, ...]:
    """What a built-in hook listens to as it is set; a stage it would do nothing at costs nothing."""
    match hook:
        case EmptyCache():
            wanted = {
                "before": hook.before_epoch,
                "after_epoch": hook.after_epoch,
                "after_iter": hook.after_iter,
            }
            return tuple(stage for stage in hook.STAGES if wanted[_moment(stage)])
        case _:
            return hook.STAGES


def _moment(stage: str) -> str:
    before_or_after, _, unit = stage.split("_")
    return "before" if before_or_after == "before" else f"after_{unit}"
