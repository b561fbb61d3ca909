"""What was asked: Config and its sections, in FlexibleRunner's vocabulary. Shape only; meaning is in checks/."""

from typing import Literal

from attrs import frozen

from flexcore.components import Component, Data, Supplied
from flexcore.hooks import Hook, HookSlot
from flexcore.log_specs import LogProcessor, Visualizer
from flexcore.loops import OwnEvalLoop, TestLoop, TrainLoop, ValLoop
from flexcore.schedules import Schedule
from flexcore.strategies import Auto, Strategy
from flexcore.timeline import Tail

FORMAT_VERSION = 1


@frozen(kw_only=True)
class DefaultSampler:
    """Finite epochs, dealt to ranks by stride; shuffled by a keyed permutation of (seed, epoch)."""

    NAME = "DefaultSampler"
    shuffle: bool = True
    seed: int | None = None
    round_up: bool = True


@frozen(kw_only=True)
class InfiniteSampler:
    """One endless stream of back-to-back epochs."""

    NAME = "InfiniteSampler"
    shuffle: bool = True
    seed: int | None = None


Sampler = DefaultSampler | InfiniteSampler


@frozen(kw_only=True)
class DataLoader:
    """One dataloader; keys are torch.utils.data.DataLoader's, and FlexibleRunner's num_batch_per_epoch.

    sampler None: DefaultSampler, shuffled in training and not in evaluation.
    batch_size: samples per rank and micro-batch.
    """

    dataset: Component | Supplied
    batch_size: int | None = None
    sampler: Sampler | Component | None = None
    batch_sampler: Component | None = None
    collate_fn: Component | None = None
    num_workers: int = 0
    persistent_workers: bool = False
    prefetch_factor: int | None = None
    pin_memory: bool = False
    drop_last: bool = False
    timeout: float = 0
    worker_init_fn: Component | None = None
    num_batch_per_epoch: int | None = None


@frozen(kw_only=True)
class NamedLoader:
    """A validation or test loader; name None when it is the only one and unnamed."""

    name: str | None = None
    loader: DataLoader | Supplied


@frozen(kw_only=True)
class NamedMetric:
    """A metric; name None takes the class's own name."""

    name: str | None = None
    metric: Component | Supplied


@frozen(kw_only=True)
class ClipGrad:
    """Gradient clipping before each optimizer step: by total norm, or each value ("value")."""

    type: Literal["norm", "value"] = "norm"
    max_norm: float | None = None
    norm_type: float = 2.0
    error_if_nonfinite: bool = False
    clip_value: float | None = None


@frozen(kw_only=True)
class Paramwise:
    """Settings by parameter: multipliers of LR and weight decay, for kinds of parameters and parts of names.

    custom_keys: part of a name -> dict(lr_mult, decay_mult, and any group setting); the longest match decides alone.
    bypass_duplicate: shared parameters count once; they always do.
    """

    custom_keys: Data | None = None
    bias_lr_mult: float | None = None
    bias_decay_mult: float | None = None
    norm_decay_mult: float | None = None
    flat_decay_mult: float | None = None
    dwconv_decay_mult: float | None = None
    dcn_offset_lr_mult: float | None = None
    bypass_duplicate: bool = False


@frozen(kw_only=True)
class _Optim:
    """What every optimizer wrapper has. accumulative_counts: micro-batches to an update."""

    optimizer: Component | Supplied
    accumulative_counts: int | None = None
    accumulation_tail: Tail = "carry"
    clip_grad: ClipGrad | None = None
    paramwise_cfg: Paramwise | None = None
    constructor: str | None = None


@frozen(kw_only=True)
class PlainOptim(_Optim):
    """OptimWrapper: full precision."""

    NAME = "OptimWrapper"


@frozen(kw_only=True)
class AmpOptim(_Optim):
    """AmpOptimWrapper: forward passes under autocast; float16 also scales the loss.

    dtype None: float16 on cuda, bfloat16 on cpu, as torch.autocast chooses.
    loss_scale: "dynamic", a fixed number, or GradScaler's settings.
    """

    NAME = "AmpOptimWrapper"
    dtype: Literal["float16", "bfloat16"] | None = None
    loss_scale: float | Literal["dynamic"] | Data = "dynamic"
    use_fsdp: bool = False


OptimWrapper = PlainOptim | AmpOptim


@frozen(kw_only=True)
class NamedOptim:
    """One of several optimizer wrappers; name: the model's submodule whose parameters it trains, dotted if deep."""

    name: str
    wrapper: OptimWrapper


@frozen(kw_only=True)
class OptimDict:
    """OptimWrapperDict: several wrappers by name; the model's own train_step updates each as often as it will."""

    NAME = "OptimWrapperDict"
    wrappers: tuple[NamedOptim, ...]
    constructor: str | None = None


@frozen(kw_only=True)
class NamedSchedules:
    """The schedules of one of several optimizers."""

    name: str
    schedules: tuple[Schedule, ...]


@frozen(kw_only=True)
class AutoScaleLR:
    """Scale every LR by global_batch_size / base_batch_size (linear rule: Goyal et al. 2017)."""

    enable: bool = False
    base_batch_size: int | None = None


@frozen(kw_only=True)
class Randomness:
    seed: int | None = None
    deterministic: bool = False
    diff_rank_seed: bool = False


@frozen(kw_only=True)
class MpCfg:
    mp_start_method: Literal["fork", "spawn", "forkserver"] = "fork"
    opencv_num_threads: int = 0


@frozen(kw_only=True)
class DistCfg:
    """backend None: nccl on cuda, gloo on cpu. timeout in seconds."""

    backend: str | None = None
    timeout: float = 1800.0


@frozen(kw_only=True)
class EnvCfg:
    """resource_limit: soft limit of open files, raised to at least this.

    hang_timeout: seconds without progress after which a run names the rank that stands still and ends with 5;
    None: never. It counts from the first iteration on, which may compile for as long as it takes.
    """

    cudnn_benchmark: bool = False
    mp_cfg: MpCfg = MpCfg()
    dist_cfg: DistCfg = DistCfg()
    resource_limit: int = 4096
    hang_timeout: float | None = 300.0


@frozen(kw_only=True)
class LoadFrom:
    """Weights to start from: a checkpoint, a file or its URL.

    revise_keys: (pattern, replacement) of re.sub, applied in turn to each name in the file, as mmengine's.
    strict: False leaves out what does not fit, with a warning that names it.
    """

    path: str
    revise_keys: tuple[tuple[str, str], ...] = ()
    strict: bool = True


@frozen(kw_only=True)
class Config:
    """One training, validation or test job as asked for. Fields are FlexibleRunner's arguments, and ours.

    Ours: global_batch_size (the batch of one optimizer update over all ranks; makes an iteration a global
    batch), loss (a component: loss(output, target)), format_version.
    """

    model: Component | Supplied | None = None
    work_dir: str | None = None
    experiment_name: str | None = None
    train_dataloader: DataLoader | Supplied | None = None
    optim_wrapper: PlainOptim | AmpOptim | OptimDict | None = None
    param_scheduler: tuple[Schedule, ...] | tuple[NamedSchedules, ...] | None = None
    train_cfg: TrainLoop | None = None
    val_dataloader: tuple[NamedLoader, ...] | None = None
    val_evaluator: tuple[NamedMetric, ...] | None = None
    val_cfg: ValLoop | OwnEvalLoop | None = None
    test_dataloader: tuple[NamedLoader, ...] | None = None
    test_evaluator: tuple[NamedMetric, ...] | None = None
    test_cfg: TestLoop | OwnEvalLoop | None = None
    strategy: Strategy | Auto | None = None
    auto_scale_lr: AutoScaleLR | None = None
    default_hooks: tuple[HookSlot, ...] = ()
    custom_hooks: tuple[Hook, ...] = ()
    data_preprocessor: Component | None = None
    load_from: str | LoadFrom | None = None
    resume: bool | str = False
    launcher: Literal["none", "pytorch", "slurm", "mpi"] | None = None
    env_cfg: EnvCfg = EnvCfg()
    log_processor: LogProcessor = LogProcessor()  # noqa: RUF009 - frozen
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    visualizer: Visualizer | None = None
    default_scope: str | None = None
    randomness: Randomness = Randomness()
    compile: bool | Data = False
    runner_type: str | None = None
    init_weights_for_test_or_val: bool = True
    global_batch_size: int | None = None
    loss: Component | Supplied | None = None
    format_version: int = FORMAT_VERSION


def weights_of(config: Config) -> LoadFrom | None:
    """load_from with its settings, however it was written."""
    given = config.load_from
    return LoadFrom(path=given) if isinstance(given, str) else given
