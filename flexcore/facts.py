"""What the shell observed, rank-free; None means unknown. Nothing is observed here."""

from typing import Literal

from attrs import frozen

Writer = Literal["flexcore", "mmengine"]
"""Who may have written a checkpoint that is resumed."""


@frozen(kw_only=True)
class CheckpointFact:
    """One checkpoint that discovery found whole: manifest readable, files there with the right sizes.

    Attributes:
        path: the directory, as written in a plan.
        epoch, iter: completed when it was saved.
        resumable: False for weights saved inside an accumulation window.
        validated: the validation due at that point was done before the save.
        trajectory: (field, JSON text) of what decided its weights; see flexcore.starting.
        hooks: the keys under which it holds hooks' state; None: not known.
        record: the name all starts of its training are kept together under; see Plan.record.
        writer: who wrote it; mmengine's is one file, whose epoch may be told wrong (see starting.counted).
    """

    path: str
    name: str
    epoch: int
    iter: int
    resumable: bool = True
    validated: bool = False
    trajectory: tuple[tuple[str, str], ...] | None = None
    world_size: int | None = None
    strategy: str | None = None
    best: bool = False
    hooks: tuple[str, ...] | None = None
    record: str | None = None
    writer: Writer = "flexcore"


@frozen(kw_only=True)
class ParameterFact:
    """One named parameter: shape, whether it trains, and the name it shares storage with, if any.

    Attributes:
        owner: type name of the module it belongs to. kind: what that is to paramwise_cfg: a normalisation, a
            2d convolution, or one of as many groups as channels ("depthwise"); "sparse": an embedding whose
            gradients are sparse.
        deformable: that module stands in a deformable convolution.
    """

    name: str
    shape: tuple[int, ...]
    requires_grad: bool = True
    alias: str | None = None
    owner: str | None = None
    kind: Literal["norm", "conv", "depthwise", "sparse"] | None = None
    deformable: bool = False


@frozen(kw_only=True)
class ModuleFact:
    """One submodule: its dotted path in the model and its class's name.

    Attributes:
        kind: what it is, whatever its class is called: torch.nn.Linear or Embedding, or one of their subclasses.
        heads: the numbers of attention heads it holds, of queries and perhaps of keys.
    """

    path: str
    type: str
    kind: Literal["linear", "embedding"] | None = None
    heads: tuple[int, ...] = ()


@frozen(kw_only=True)
class GroupFact:
    """Every number a freshly built optimizer group has, before LR scaling: (("lr", 0.001), ("momentum", 0.9))."""

    values: tuple[tuple[str, float], ...]


@frozen(kw_only=True)
class HookFact:
    """What a user's hook class says of itself: the stages it listens to and its own priority.

    `place` is its index in custom_hooks or its key in default_hooks. stateful: it has a state_dict to save.
    """

    place: int | str
    stages: tuple[str, ...]
    priority: int | str | None = None
    stateful: bool = False


@frozen(kw_only=True)
class Facts:
    """Everything a plan may depend on besides the config. `Facts()` knows nothing.

    Attributes:
        environment: launcher variables of the process environment, sorted by name.
        world_size: ranks in the run; local_world_size: ranks on one host.
        device_type: "cpu" or "cuda"; device_count per host; device_memory in bytes.
        train_samples: length of the training dataset; train_batches: length of a supplied loader,
            in micro-batches on the rank that has the fewest; most_train_batches: on the one that has the most, if
            they differ. train_iterable: the dataset only iterates, so its order is its own.
        val_samples, test_samples: one entry per loader, in config order.
        train_step: whether the model has one of its own, and so updates its optimizers itself.
        model_bytes: of all parameters and buffers that a checkpoint holds.
        modules: every submodule, looked at when the model is to be sharded. model_blocks: the class names the model
            itself wants kept whole (_no_split_modules).
        entropy: 64 random bits of rank 0; started_at: "YYYYmmdd_HHMMSS" of rank 0.
        config_stem: the config file's name without directory and suffix.
        checkpoints: what stands where the run saves; named_checkpoint: the one a path in the config names.
    """

    environment: tuple[tuple[str, str], ...] | None = None
    world_size: int | None = None
    local_world_size: int | None = None
    device_type: str | None = None
    device_count: int | None = None
    device_memory: int | None = None
    supports_bf16: bool | None = None
    supports_fp16: bool | None = None
    train_samples: int | None = None
    train_batches: int | None = None
    most_train_batches: int | None = None
    train_iterable: bool | None = None
    train_batch_size: int | None = None
    val_samples: tuple[int | None, ...] | None = None
    test_samples: tuple[int | None, ...] | None = None
    parameters: tuple[ParameterFact, ...] | None = None
    model_bytes: int | None = None
    modules: tuple[ModuleFact, ...] | None = None
    model_blocks: tuple[str, ...] | None = None
    parameter_groups: tuple[GroupFact, ...] | None = None
    train_step: bool | None = None
    hooks: tuple[HookFact, ...] | None = None
    checkpoints: tuple[CheckpointFact, ...] | None = None
    named_checkpoint: CheckpointFact | None = None
    free_disk: int | None = None
    versions: tuple[tuple[str, str], ...] | None = None
    entropy: int | None = None
    started_at: str | None = None
    config_stem: str | None = None
