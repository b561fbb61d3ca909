"""How ranks share one model: each strategy's settings, a closed union; nothing here touches torch."""

from collections.abc import Mapping
from typing import Literal

from attrs import frozen

from flexcore.components import Component, Data

NO_DATA = Data()


@frozen(kw_only=True)
class SingleDevice:
    """One process, one device (FlexibleRunner's SingleDeviceStrategy)."""

    NAME = "SingleDeviceStrategy"


@frozen(kw_only=True)
class _DDPSettings:
    find_unused_parameters: bool = False
    broadcast_buffers: bool = False
    bucket_cap_mb: int | None = None
    gradient_as_bucket_view: bool = False
    static_graph: bool = False
    skip_all_reduce_unused_params: bool = False
    batched_grad_copy: bool = False
    sync_bn: bool | Literal["torch", "mmcv"] | None = None
    comm_hook: str | Data | None = None
    detect_anomalous_params: bool = False


@frozen(kw_only=True)
class DDP(_DDPSettings):
    """torch's DistributedDataParallel; settings are its constructor's, with its defaults save one.

    Attributes:
        broadcast_buffers: False as in FlexibleRunner: buffers stay each rank's own while training.
        sync_bn: FlexibleRunner's: batch norms see the batches of all ranks (SyncBatchNorm). On GPUs alone.
        comm_hook: what gradients cross between ranks in, "fp16_compress" or "bf16_compress"; None: as they are.
        detect_anomalous_params: FlexibleRunner's: name the parameters that a loss does not depend on.
    """

    NAME = "DDPStrategy"


COMM_HOOKS: Mapping[str, str] = {"fp16_compress": "float16", "bf16_compress": "bfloat16"}
"""What gradients may cross between ranks in: torch's hook without "_hook" -> dtype."""


def comm_hook(strategy: DDP) -> str | None:
    """The hook's name, however it is written; None: there is none, or no name in it."""
    given = strategy.comm_hook
    name = given.get("type") if isinstance(given, Data) else given
    return name if isinstance(name, str) else None


@frozen(kw_only=True)
class Auto(_DDPSettings):
    """Whatever fits: a single device without a launcher, else DDP with these settings, or FSDP where those do not fit."""

    NAME = "auto"


@frozen(kw_only=True)
class MixedPrecision:
    """fully_shard's MixedPrecisionPolicy: the dtype of computing, of reducing gradients, and of a unit's outputs."""

    NAME = "MixedPrecisionPolicy"
    param_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    reduce_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    output_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    cast_forward_inputs: bool = True


@frozen(kw_only=True)
class WrappedFSDP1:
    """FlexibleRunner's model_wrapper: the first FSDP's settings. What fully_shard does anyway is without effect."""

    NAME = "MMFullyShardedDataParallel"
    auto_wrap_policy: Component | None = None
    cpu_offload: bool | Data | None = None
    mixed_precision: Data | None = None
    sharding_strategy: str | None = None
    use_orig_params: bool | None = None
    backward_prefetch: str | None = None
    forward_prefetch: bool | None = None
    limit_all_gathers: bool | None = None
    sync_module_states: bool | None = None


@frozen(kw_only=True)
class TensorPlan:
    """Layers that a group of ranks computes together, each rank a part of each; see flexcore.tensor_parallel.

    Attributes:
        size: ranks of a group. They see the same samples; groups see different ones.
        plan: paths of modules, "*" standing for any part of one between dots, each with its style: a name of STYLES,
            or dict(style="colwise", parts=3) of a layer whose outputs are so many tensors in one.
    """

    size: int | None = None
    plan: Data = NO_DATA


@frozen(kw_only=True)
class TensorParallel(TensorPlan):
    """Tensor parallelism alone: what the plan does not cut every rank holds whole. size None: all ranks are one group.

    More ranks than a group has are groups side by side, whose gradients are averaged.
    """

    NAME = "TensorParallelStrategy"


@frozen(kw_only=True)
class FSDP:
    """torch's fully_shard (FSDP2): each rank holds a share of every parameter, gradient and optimizer state.

    Attributes:
        wrap: class names; each module of such a class is gathered as one unit. None: the model's own list
            (_no_split_modules) unless wrap_min_params is given. What is in no unit is gathered with the whole model.
        wrap_min_params: modules of at least so many parameters, counted without the units inside them, are units.
        reshard_after_forward: free a unit between forward and backward; None: all but the outermost. A number:
            reshard to so many ranks.
        shard_size: ranks that share one copy of the model (HSDP); None: all.
        mixed_precision: of parameters and gradients; the optimizer's copy stays in full precision.
        cpu_offload: shares rest in host memory.
        meta_init: rank 0 alone initialises the weights, in host memory, and deals out the shares; the others build
            parameters without memory (torch's meta device).
        activation_checkpointing: class names whose activations are computed again in backward.
        tensor_parallel: layers that ranks compute together; what each of them holds is shared out besides.
        model_wrapper, skip_init_weights, state_dict_cfg: FlexibleRunner's; see docs/differences.md.
    """

    NAME = "FSDPStrategy"
    wrap: tuple[str, ...] | None = None
    wrap_min_params: int | None = None
    reshard_after_forward: bool | int | None = None
    shard_size: int | None = None
    mixed_precision: MixedPrecision | None = None
    cpu_offload: bool = False
    meta_init: bool = False
    activation_checkpointing: tuple[str, ...] = ()
    tensor_parallel: TensorPlan | None = None
    model_wrapper: WrappedFSDP1 | None = None
    skip_init_weights: bool = False
    state_dict_cfg: str | Data | None = None


@frozen(kw_only=True)
class DeepSpeed:
    """DeepSpeed's ZeRO; settings are FlexibleRunner's: sections of DeepSpeed's configuration, and ours of it.

    Attributes:
        config: DeepSpeed's configuration as a mapping. A file's name is read where the config is read from a file.
        zero_optimization, gradient_clipping, fp16, bf16, amp, activation_checkpointing, aio,
            train_micro_batch_size_per_gpu, gradient_accumulation_steps, steps_per_print: its keys of that name.
        inputs_to_half: which inputs of the model are cast to its dtype under fp16 and bf16: positions or names;
            None: every floating-point one.
        exclude_frozen_parameters: leave parameters that do not train out of checkpoints.
    """

    NAME = "DeepSpeedStrategy"
    config: Data | str | None = None
    zero_optimization: Data | None = None
    gradient_clipping: float | str | None = None
    fp16: Data | None = None
    bf16: Data | None = None
    amp: Data | None = None
    activation_checkpointing: Data | None = None
    aio: Data | None = None
    train_micro_batch_size_per_gpu: int | str | None = None
    gradient_accumulation_steps: int | str | None = None
    steps_per_print: int | None = None
    inputs_to_half: tuple[int | str, ...] | None = None
    exclude_frozen_parameters: bool = False


Strategy = SingleDevice | DDP | FSDP | TensorParallel | DeepSpeed
DISTRIBUTED = (DDP, FSDP, TensorParallel, DeepSpeed)


COMPILE_KEYS: Mapping[str, tuple[type, ...]] = {
    "backend": (str,), "mode": (str, type(None)), "dynamic": (bool, type(None)), "fullgraph": (bool,),
    "options": (Data, type(None)), "disable": (bool,), "target": (str,),
}  # fmt: skip
"""What a compile mapping may hold, and its kinds. target is FlexibleRunner's: the method that is compiled."""

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@frozen(kw_only=True)
class Compile:
    """torch.compile of the model's forward, or its `target`, with these arguments: see COMPILE_KEYS."""

    kwargs: Data = NO_DATA
