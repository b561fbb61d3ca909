"""Which checkpoints are written, named, best and kept: from CheckpointHook's settings to Saving."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from flexcore.hooks import Checkpoint
from flexcore.loops import TrainLoop
from flexcore.run_plan import Best, Saving
from flexcore.timeline import SavePoints

GREATER_KEYS = ("acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc")
LESS_KEYS = ("loss",)
Rule = Literal["greater", "less"]


def as_tuple(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def inferred_rule(key: str, greater: Iterable[str], less: Iterable[str]) -> Rule | None:
    """Whether more of a metric is better: exact name first, then substring, ignoring case (mmengine's order)."""
    lowered = key.lower()
    up, down = [k.lower() for k in greater], [k.lower() for k in less]
    if lowered in up:
        return "greater"
    if lowered in down:
        return "less"
    if any(name in lowered for name in up):
        return "greater"
    return "less" if any(name in lowered for name in down) else None


def best_rules(hook: Checkpoint) -> tuple[Best, ...]:
    """One Best per save_best name; key None for "auto", whose rule is inferred when the metric is seen."""
    names, rules = as_tuple(hook.save_best), as_tuple(hook.rule)
    given: tuple[str | None, ...] = rules * len(names) if len(rules) == 1 else rules or (None,) * len(names)
    greater = as_tuple(hook.greater_keys) or GREATER_KEYS
    less = as_tuple(hook.less_keys) or LESS_KEYS
    found = []
    for name, rule in zip(names, given, strict=False):
        known: Rule | None = "greater" if rule == "greater" else "less" if rule == "less" else None
        if name == "auto":
            found.append(Best(key=None, rule=known))
        else:
            found.append(Best(key=name, rule=known or inferred_rule(name, greater, less)))
    return tuple(found)


def saving(hook: Checkpoint, loop: TrainLoop) -> Saving:
    """The checkpoint plan; interval and unit default to the training loop's own."""
    epochs = loop.by_epoch
    by_epoch = epochs if hook.by_epoch is None else hook.by_epoch
    default = 1 if by_epoch else loop.val_interval if not epochs else 1000
    template = hook.filename_tmpl or ("epoch_{}" if by_epoch else "iter_{}")
    return Saving(
        points=SavePoints(
            interval=default if hook.interval is None else hook.interval,
            by_epoch=by_epoch, save_begin=hook.save_begin, save_last=hook.save_last,
        ),
        max_keep=hook.max_keep_ckpts,
        template=template.removesuffix(".pth"),
        best=best_rules(hook),
        greater_keys=as_tuple(hook.greater_keys) or GREATER_KEYS,
        less_keys=as_tuple(hook.less_keys) or LESS_KEYS,
        weights_only=not hook.save_optimizer,
        published=published(hook),
        every_seconds=None if hook.interval_minutes is None else hook.interval_minutes * 60,
        async_save=hook.async_save,
        retry_seconds=None if hook.retry_minutes is None else hook.retry_minutes * 60,
    )  # fmt: skip


PUBLISHED: Mapping[str, str] = {
    "state_dict": "model", "model": "model", "optimizer": "optimizer", "hooks": "hooks", "meta": "meta",
}  # fmt: skip


def published(hook: Checkpoint) -> tuple[str, ...]:
    """The tensor files that published_keys name, once each, and "meta"; mmengine calls the model's "state_dict"."""
    return tuple(dict.fromkeys(PUBLISHED[key] for key in as_tuple(hook.published_keys) if key in PUBLISHED))


def out_dir(hook: Checkpoint | None, work_dir: str) -> str | None:
    """out_dir/<last part of work_dir>, as mmengine has it; None: under work_dir, which out_dir may name itself."""
    given = hook.out_dir if hook is not None else None
    if given is None or _trimmed(given) == _trimmed(work_dir):
        return None
    return f"{given.rstrip('/')}/{last_part(work_dir)}"


def last_part(path: str) -> str:
    return _trimmed(path).rpartition("/")[2]


def _trimmed(path: str) -> str:
    return path.rstrip("/").removeprefix("./")


def best_name(key: str, by_epoch: bool, units: int) -> str:
    """The name for "acc" at epoch 5 is "best_acc_epoch_5"; separators in a metric's name become "_"."""
    plain = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in key)
    return f"best_{plain}_{'epoch' if by_epoch else 'iter'}_{units}"


def timed_name(done: int) -> str:
    """The name of a checkpoint that was due by wall time, after so many iterations."""
    return f"timed_iter_{done}"


def is_better(rule: Rule, score: float, best: float | None) -> bool:
    """Whether a score replaces the best so far; NaN never does."""
    if math.isnan(score):
        return False
    return best is None or (score > best if rule == "greater" else score < best)
