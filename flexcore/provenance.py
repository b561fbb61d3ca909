"""Where a value comes from: user, default, inferred or environment, by which rule. Computed on demand, not stored."""

from typing import Any, Literal

import attrs
from attrs import frozen

from flexcore.components import Component, Data, Items, thaw
from flexcore.config import OptimDict
from flexcore.problems import Path, did_you_mean
from flexcore.run_plan import Plan

Kind = Literal["user", "default", "inferred", "environment"]


@frozen
class Origin:
    """How one plan field is decided: the config key that fixes it, the fact it falls back on, the rule between."""

    config_key: str | None
    fact: str | None
    rule: str


# Plan fields that are decided rather than copied. A field not here is looked up in the config.
ORIGINS: dict[str, Origin] = {
    "strategy": Origin("strategy", None, "as given, else SingleDevice without a launcher and DDP with one; auto takes FSDP where model states do not fit"),
    "environment.launcher": Origin("launcher", "environment", "as given, else by the first signs found in the environment (flexcore.launchers.SIGNS)"),
    "environment.world_size": Origin(None, "world_size", "the number of ranks the launcher says; 1 without one"),
    "environment.device_type": Origin(None, "device_type", "cuda if a GPU is there, else cpu"),
    "environment.backend": Origin("env_cfg.dist_cfg.backend", "device_type", "as given, else nccl on cuda and gloo on cpu"),
    "environment.timeout": Origin("env_cfg.dist_cfg.timeout", None, "seconds a collective may take"),
    "environment.seed": Origin("randomness.seed", "entropy", "as given, else drawn and recorded"),
    "environment.deterministic": Origin("randomness.deterministic", None, "as given"),
    "environment.diff_rank_seed": Origin("randomness.diff_rank_seed", None, "as given"),
    "environment.cudnn_benchmark": Origin("env_cfg.cudnn_benchmark", None, "as given, unless randomness.deterministic, which wins"),
    "environment.mp_start_method": Origin("env_cfg.mp_cfg.mp_start_method", None, "as given"),
    "environment.opencv_num_threads": Origin("env_cfg.mp_cfg.opencv_num_threads", None, "as given"),
    "environment.resource_limit": Origin("env_cfg.resource_limit", None, "as given"),
    "environment.hang_timeout": Origin("env_cfg.hang_timeout", None, "seconds without progress that end the run"),
    "batching.micro_batch_size": Origin("train_dataloader.batch_size", "train_batch_size", "the loader's batch_size, else global_batch_size / (accumulation x data_parallel_size)"),
    "batching.gradient_accumulation_steps": Origin("optim_wrapper.accumulative_counts", None, "as given, else global_batch_size / (micro_batch_size x data_parallel_size), else 1"),
    "batching.global_batch_size": Origin("global_batch_size", None, "as given, else micro_batch_size x accumulation x data_parallel_size"),
    "batching.data_parallel_size": Origin(None, "world_size", "the ranks that see different data: all under DDP, one of each tensor-parallel group, 1 on a single device"),
    "batching.clock": Origin("global_batch_size", None, "global if global_batch_size is given: an iteration is then one global batch; else one micro-batch per rank"),
    "batching.tail": Origin("optim_wrapper.accumulation_tail", None, "what becomes of a window an epoch's end cuts"),
    "batching.dropped": Origin(None, "train_samples", "dataset length less the samples an epoch uses"),
    "batching.repeated": Origin(None, "train_samples", "samples an epoch uses beyond the dataset's length"),
    "timeline.by_epoch": Origin("train_cfg.by_epoch", None, "the loop train_cfg chooses by by_epoch or type"),
    "timeline.epoch_length": Origin(None, "train_samples", "micro-batches per rank and epoch, in iterations: rounded up, or down with drop_last"),
    "timeline.max_epochs": Origin("train_cfg.max_epochs", None, "as given; 1 in the iteration loop"),
    "timeline.max_iters": Origin("train_cfg.max_iters", "train_samples", "as given, else max_epochs x epoch_length"),
    "timeline.optimizer_steps": Origin(None, "train_samples", "iterations in windows of the accumulation; a short last window counts. A model with a train_step of its own decides itself"),
    "timeline.updates": Origin(None, "train_step", "model if it has a train_step of its own, which several optimizers need; else planned"),
    "timeline.val_begin": Origin("train_cfg.val_begin", None, "as given"),
    "timeline.val_interval": Origin("train_cfg.val_interval", None, "as given; 1 epoch or 1000 iterations by default"),
    "timeline.max_seconds": Origin("train_cfg.max_time", None, "as given"),
    "optimizer.lr_scale": Origin("auto_scale_lr.base_batch_size", None, "global_batch_size / base_batch_size if auto_scale_lr is enabled, else 1"),
    "saving.points.interval": Origin("default_hooks.checkpoint.interval", None, "as given, else every epoch, or every val_interval iterations"),
    "saving.max_keep": Origin("default_hooks.checkpoint.max_keep_ckpts", None, "as given; -1 keeps all"),
    "names.work_dir": Origin("work_dir", "config_stem", "as given, else work_dirs/<config file's stem>"),
    "names.experiment_name": Origin("experiment_name", "config_stem", "as given, else the config file's stem; then the time and a run id"),
    "names.timestamp": Origin(None, "started_at", "the start time of rank 0"),
    "names.run_id": Origin(None, "entropy", "six hex digits from rank 0's entropy"),
    "start": Origin("resume", "checkpoints", "the resume / load_from matrix over the checkpoints found"),
}  # fmt: skip
SHORT = {key.rsplit(".", 1)[-1]: key for key in ORIGINS}


@frozen(kw_only=True)
class Provenance:
    """One value's origin. path: the config path that decides it, given or not; the shell adds file and line."""

    key: str
    value: Any
    kind: Kind
    rule: str
    path: Path

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}\n  {self.kind}: {self.rule}"


def why(plan: Plan, key: str) -> Provenance:
    """Where the value of a plan field or config key comes from.

    Raises:
        KeyError: with a message naming the nearest key there is.
    """
    if key in SHORT and key not in ORIGINS and not _in_config(plan, key):
        key = SHORT[key]
    if key in ORIGINS:
        return _decided(plan, key, ORIGINS[key])
    return _asked(plan, key)


def _in_config(plan: Plan, key: str) -> bool:
    return key in {field.name for field in attrs.fields(type(plan.config))}


def _decided(plan: Plan, key: str, origin: Origin) -> Provenance:
    value = _walk(plan, key.split("."))
    given = origin.config_key is not None and is_given(plan, origin.config_key)
    if given:
        kind: Kind = "user"
    elif origin.fact is not None and getattr(plan.facts, origin.fact) is not None:
        kind = "environment"
    else:
        kind = "default" if origin.config_key is not None and origin.rule == "as given" else "inferred"
    path = tuple(origin.config_key.split(".")) if origin.config_key is not None else ()
    return Provenance(key=key, value=value, kind=kind, rule=origin.rule, path=path)


def _asked(plan: Plan, key: str) -> Provenance:
    steps = key.split(".")
    try:
        value = _walk(plan.config, steps)
    except LookupError:
        known = [*ORIGINS, *(field.name for field in attrs.fields(type(plan.config)))]
        raise KeyError(
            f'"{key}" is neither a plan field nor a config key.{did_you_mean(key, known)}'
        ) from None
    given = is_given(plan, key)
    rule = "written in the config" if given else "the key's default"
    return Provenance(
        key=key, value=thaw(value), kind="user" if given else "default", rule=rule, path=tuple(steps)
    )


def is_given(plan: Plan, key: str) -> bool:
    """Whether the config says it: the value at `key` is not what an empty config would have there."""
    from flexcore.converting import dump

    data: Any = dump(plan.config)
    for step in key.split("."):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list | tuple) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return bool(step == "by_epoch" and isinstance(data, dict) and "type" in data)
    return True


def _walk(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(value, OptimDict):
            value = _indexed(value.wrappers, step)
        elif isinstance(value, Component):
            value = value.type if step == "type" else value.kwargs[step]
        elif isinstance(value, Data):
            value = value[step]
        elif isinstance(value, Items | tuple):
            values = value.values if isinstance(value, Items) else value
            value = _indexed(values, step)
        elif attrs.has(type(value)) and hasattr(value, step):
            value = getattr(value, step)
        elif value is None and steps[0] in ("batching", "timeline", "optimizer", "saving"):
            return None
        else:
            raise LookupError
    return value


def _indexed(values: tuple[Any, ...], step: str) -> Any:
    """An element by number, or by the name or key of a loader, metric or hook slot."""
    if step.isdigit() and int(step) < len(values):
        return values[int(step)]
    for value in values:
        if getattr(value, "key", None) == step:
            return value.hook
        if getattr(value, "name", None) == step:
            inner = ("loader", "metric", "wrapper", "schedules")
            return next(getattr(value, name) for name in inner if hasattr(value, name))
    if len(values) == 1 and hasattr(values[0], "loader"):
        return _walk(values[0].loader, [step])
    raise LookupError
