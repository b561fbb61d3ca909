"""Stages, priorities and hook settings, and the order hooks run in; no hook is run or imported here."""

from collections.abc import Iterable, Mapping

from attrs import frozen

from flexcore.components import Component

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


@frozen(kw_only=True)
class RuntimeInfo:
    """Adds the LR (and other scheduled values) to each log line (RuntimeInfoHook)."""

    NAME = "RuntimeInfoHook"
    PRIORITY = 10
    STAGES = ()
    priority: int | str | None = None


@frozen(kw_only=True)
class IterTimer:
    """Adds data wait and iteration time, in seconds, and the time left to each log line (IterTimerHook)."""

    NAME = "IterTimerHook"
    PRIORITY = 50
    STAGES = ()
    priority: int | str | None = None


@frozen(kw_only=True)
class SamplerSeed:
    """Calls set_epoch on the user's own samplers and loaders (DistSamplerSeedHook)."""

    NAME = "DistSamplerSeedHook"
    PRIORITY = 50
    STAGES = ("before_train_epoch",)
    priority: int | str | None = None


@frozen(kw_only=True)
class Logger:
    """Logs every `interval` training iterations and after each evaluation (LoggerHook).

    ignore_last: leave out the short group of iterations at the end of an epoch.
    """

    NAME = "LoggerHook"
    PRIORITY = 60
    STAGES = ("after_train_iter", "after_val_epoch", "after_test_epoch")
    interval: int = 10
    ignore_last: bool = True
    log_metric_by_epoch: bool = True
    priority: int | str | None = None


@frozen(kw_only=True)
class ParamScheduler:
    """Sets each scheduled parameter before the iteration it holds for (ParamSchedulerHook)."""

    NAME = "ParamSchedulerHook"
    PRIORITY = 70
    STAGES = ("before_train_iter",)
    priority: int | str | None = None


@frozen(kw_only=True)
class Checkpoint:
    """Saves the training state and keeps the best (CheckpointHook).

    Attributes:
        interval: every so many epochs or iterations; None: every epoch, or every val_interval iterations.
        by_epoch: the interval's unit; None follows the training loop.
        save_begin: first due at this many units. save_last: also at the end of the run.
        max_keep_ckpts: keep the newest so many (best ones aside); -1 keeps all.
        save_best: metric names whose best checkpoint is kept, or "auto" for the first metric.
        rule: "greater" or "less" per save_best name; inferred from greater_keys and less_keys otherwise.
        filename_tmpl: name with one "{}" for the epoch or iteration; a ".pth" suffix is dropped.
    """

    NAME = "CheckpointHook"
    PRIORITY = 90
    STAGES = ("after_train_iter", "after_train_epoch", "after_val_epoch")
    interval: int | None = None
    by_epoch: bool | None = None
    save_begin: int = 0
    save_last: bool = True
    max_keep_ckpts: int = -1
    save_best: str | tuple[str, ...] | None = None
    rule: str | tuple[str, ...] | None = None
    greater_keys: str | tuple[str, ...] | None = None
    less_keys: str | tuple[str, ...] | None = None
    filename_tmpl: str | None = None
    save_optimizer: bool = True
    save_param_scheduler: bool = True
    priority: int | str | None = None


BuiltinHook = RuntimeInfo | IterTimer | SamplerSeed | Logger | ParamScheduler | Checkpoint
BUILTIN_HOOKS: tuple[type[BuiltinHook], ...] = (
    RuntimeInfo, IterTimer, SamplerSeed, Logger, ParamScheduler, Checkpoint,
)  # fmt: skip

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
        stages: what it listens to, in STAGES order; None while a user's class has not been looked at.
    """

    name: str
    priority: int
    place: int | str
    hook: Hook
    stages: tuple[str, ...] | None


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
