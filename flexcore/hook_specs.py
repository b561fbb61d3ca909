"""What every built-in hook can be set to, with its name, priority and stages; nothing is checked or carried out here."""

from typing import Literal

from attrs import frozen

from flexcore.components import Data
from flexcore.log_specs import ARTIFACT_SUFFIXES

Average = Literal["ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage"]


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

    Attributes:
        ignore_last: leave out the short group of iterations at the end of an epoch.
        interval_exp_name: tell the experiment's name every so many iterations; None: never.
        log_metric_by_epoch: backends count evaluations by epoch; by iteration otherwise, as training values.
        out_dir: files of the log directory ending in out_suffix are copied under it as the run ends.
        keep_local, backend_args, file_client_args: FlexibleRunner's; what they would change is refused.
    """

    NAME = "LoggerHook"
    PRIORITY = 60
    STAGES = ("after_train_iter", "after_val_epoch", "after_test_epoch")
    interval: int = 10
    ignore_last: bool = True
    interval_exp_name: int | None = None
    log_metric_by_epoch: bool = False
    out_dir: str | None = None
    out_suffix: str | tuple[str, ...] = ARTIFACT_SUFFIXES
    keep_local: bool = True
    backend_args: Data | None = None
    file_client_args: Data | None = None
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
        interval_minutes: also whenever the last checkpoint is this old; max_keep_ckpts counts these by themselves.
        retry_minutes: after a save that failed another one follows at the first update so much later, then after twice
            as long each time, up to an hour, until one stands; None: not before the next that is due.
        max_keep_ckpts: keep the newest so many (best ones aside); -1 keeps all.
        save_best: metric names whose best checkpoint is kept, or "auto" for the first metric.
        rule: "greater" or "less" per save_best name; inferred from greater_keys and less_keys otherwise.
        filename_tmpl: name with one "{}" for the epoch or iteration; a ".pth" suffix is dropped.
        save_optimizer: False saves weights and hooks' state alone, which cannot be resumed.
        save_param_scheduler: schedules are functions of the iteration; only a plateau has state, and keeps it.
        published_keys: what of the best (else the last) checkpoint is written to one safetensors file at the end:
            "state_dict" (also "model"), "optimizer", "hooks"; "meta" puts where it stands into the file's header.
        out_dir: checkpoints go to out_dir/<last part of work_dir> instead of work_dir/checkpoints.
        async_save: go on training while a checkpoint is written, from a copy in host memory; one at a time.
        file_client_args, backend_args: where checkpoints are kept; a local file system is all there is.
    """

    NAME = "CheckpointHook"
    PRIORITY = 90
    STAGES = ("after_train_iter", "after_train_epoch", "after_val_epoch")
    interval: int | None = None
    by_epoch: bool | None = None
    save_begin: int = 0
    save_last: bool = True
    interval_minutes: float | None = None
    retry_minutes: float | None = 0.5
    max_keep_ckpts: int = -1
    save_best: str | tuple[str, ...] | None = None
    rule: str | tuple[str, ...] | None = None
    greater_keys: str | tuple[str, ...] | None = None
    less_keys: str | tuple[str, ...] | None = None
    filename_tmpl: str | None = None
    save_optimizer: bool = True
    save_param_scheduler: bool = True
    published_keys: str | tuple[str, ...] | None = None
    out_dir: str | None = None
    async_save: bool = False
    file_client_args: Data | None = None
    backend_args: Data | None = None
    priority: int | str | None = None


@frozen(kw_only=True)
class EMA:
    """Averages the weights after each iteration and evaluates with the average (EMAHook).

    Attributes:
        ema_type: how an average moves; see flexcore.averaging.
        momentum: share of the new weights, 0.0002 by default. gamma: of the annealed kind only, 100 by default.
        interval: every so many iterations. update_buffers: average floating-point buffers too, each rank its own;
            a checkpoint holds rank 0's, as it does of the buffers themselves.
        begin_iter, begin_epoch: the first iteration or epoch that is averaged; at most one of the two.
        strict_load: whether a checkpoint's averages must be those of this model, name for name.
    """

    NAME = "EMAHook"
    PRIORITY = 50
    STAGES = (
        "before_run", "after_train_iter", "before_val_epoch", "after_val_epoch",
        "before_test_epoch", "after_test_epoch",
    )  # fmt: skip
    ema_type: Average = "ExponentialMovingAverage"
    momentum: float | None = None
    gamma: int | None = None
    interval: int = 1
    update_buffers: bool = False
    begin_iter: int = 0
    begin_epoch: int = 0
    strict_load: bool = False
    priority: int | str | None = None


@frozen(kw_only=True)
class EarlyStopping:
    """Ends the run when a metric no longer gets better (EarlyStoppingHook).

    Attributes:
        monitor: the metric. rule: which way is better, inferred from the name otherwise.
        min_delta: the least that counts as better. patience: validations without it before the run ends.
        strict: a validation without the metric ends the run with an error; it is told and passed over otherwise.
        check_finite: end on a score that is NaN or infinite. stopping_threshold: end on a score better than this.
    """

    NAME = "EarlyStoppingHook"
    PRIORITY = 100
    STAGES = ("before_train", "after_val_epoch")
    monitor: str
    rule: Literal["greater", "less"] | None = None
    min_delta: float = 0.1
    strict: bool = False
    check_finite: bool = True
    patience: int = 5
    stopping_threshold: float | None = None
    priority: int | str | None = None


@frozen(kw_only=True)
class NaNGuard:
    """Looks for NaN and infinity before each optimizer update (NaNGuardHook, flexcore's own).

    Attributes:
        action: "stop" ends the run (reason "nonfinite") and saves nothing more; "skip" leaves the update out.
        check: the loss, the gradient or both. Looking waits for the device; the loss is asked of every rank.
        interval: look at every so many updates; "skip" looks at each.
    """

    NAME = "NaNGuardHook"
    PRIORITY = 40
    STAGES = ("before_train",)
    action: Literal["stop", "skip"] = "stop"
    check: Literal["loss", "gradient", "both"] = "loss"
    interval: int = 1
    priority: int | str | None = None


@frozen(kw_only=True)
class SyncBuffers:
    """Averages floating-point buffers over ranks at each epoch's end (SyncBuffersHook)."""

    NAME = "SyncBuffersHook"
    PRIORITY = 50
    STAGES = ("after_train_epoch",)
    priority: int | str | None = None


@frozen(kw_only=True)
class EmptyCache:
    """Gives cached GPU memory back before or after epochs, or after iterations, of any kind (EmptyCacheHook)."""

    NAME = "EmptyCacheHook"
    PRIORITY = 50
    STAGES = (
        "before_train_epoch", "after_train_epoch", "after_train_iter",
        "before_val_epoch", "after_val_epoch", "after_val_iter",
        "before_test_epoch", "after_test_epoch", "after_test_iter",
    )  # fmt: skip
    before_epoch: bool = False
    after_epoch: bool = True
    after_iter: bool = False
    priority: int | str | None = None


@frozen(kw_only=True)
class TraceSchedule:
    """Which iterations are profiled, as torch.profiler.schedule has it."""

    wait: int
    warmup: int
    active: int
    repeat: int = 0
    skip_first: int = 0


@frozen(kw_only=True)
class LogTrace:
    """Logs a table of the costliest operators when a trace is ready."""

    NAME = "log_trace"
    sort_by: str = "self_cpu_time_total"
    row_limit: int = 100


@frozen(kw_only=True)
class TensorboardTrace:
    """Writes a trace for TensorBoard when it is ready. dir_name: under the log directory."""

    NAME = "tb_trace"
    dir_name: str = "tf_tracing"
    worker_name: str | None = None


TraceHandler = LogTrace | TensorboardTrace


@frozen(kw_only=True)
class Profiler:
    """Profiles the first iterations or epochs on every rank with torch.profiler (ProfilerHook).

    Attributes:
        by_epoch, profile_times: how long. json_trace_path: a Chrome trace of it all, under the log directory.
        schedule, on_trace_ready: what is kept of it and what becomes of each trace.
    """

    NAME = "ProfilerHook"
    PRIORITY = 90
    STAGES = ("before_train", "after_train", "after_train_epoch", "after_train_iter")
    by_epoch: bool = True
    profile_times: int = 1
    activity_with_cpu: bool = True
    activity_with_cuda: bool = False
    schedule: TraceSchedule | None = None
    on_trace_ready: TraceHandler | None = None
    record_shapes: bool = False
    profile_memory: bool = False
    with_stack: bool = False
    with_flops: bool = False
    json_trace_path: str | None = None
    priority: int | str | None = None


@frozen(kw_only=True)
class Throughput:
    """Adds samples per second over all ranks, and MFU, to each log line (ThroughputHook, flexcore's own).

    flops_per_sample: of forward and backward. peak_flops: of one device, per second.
    """

    NAME = "ThroughputHook"
    PRIORITY = 50
    STAGES = ("before_train", "before_val", "after_val")
    flops_per_sample: float | None = None
    peak_flops: float | None = None
    priority: int | str | None = None
