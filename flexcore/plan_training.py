"""The training side of a Plan: batches, data, optimizers and their schedules. Nothing is decided here."""

from typing import Literal

from attrs import frozen

from flexcore.components import Component, Data, Supplied
from flexcore.config import ClipGrad, DataLoader
from flexcore.sampling import Order
from flexcore.schedules import Schedule
from flexcore.timeline import Tail


@frozen(kw_only=True)
class Precision:
    """Autocast of forward passes. dtype None: full precision. loss_scale: float16 only; None otherwise.

    loss_scale: "dynamic", or a fixed number; growth settings are torch.amp.GradScaler's.
    casts_model: the model itself is in dtype and the optimizer keeps a full-precision copy, in place of autocast; a
        loss is then scaled by the engine that does so (DeepSpeed's bf16 and fp16).
    """

    dtype: Literal["float16", "bfloat16"] | None = None
    loss_scale: float | Literal["dynamic"] | None = None
    init_scale: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    casts_model: bool = False


@frozen(kw_only=True)
class Batching:
    """The batch identity: micro_batch_size x gradient_accumulation_steps x data_parallel_size = global.

    Attributes:
        clock: what an iteration is: one "micro" batch per rank, or one "global" batch.
        gradient_accumulation_steps: micro-batches per rank and update; None: it waits for the world size.
        per_iteration: micro-batches per rank in one iteration: 1, or the accumulation on the global clock; 1 while
            that is unknown, and so is every length then.
        dropped, repeated: samples per epoch left out, or used twice to fill the last batch; None: unknown.
    """

    micro_batch_size: int | None
    gradient_accumulation_steps: int | None
    global_batch_size: int | None
    data_parallel_size: int | None
    clock: Literal["micro", "global"]
    per_iteration: int
    tail: Tail
    dropped: int | None = None
    repeated: int | None = None


@frozen(kw_only=True)
class Group:
    """One optimizer parameter group: base values after LR scaling, by group key; None: the class's default.

    params: names of its parameters; None: all that train. options: further settings of its own.
    """

    values: tuple[tuple[str, float | None], ...]
    params: tuple[str, ...] | None = None
    options: Data | None = None

    def base(self, key: str) -> float | None:
        return next((value for name, value in self.values if name == key), None)


@frozen(kw_only=True)
class Optimizer:
    """What is built, how its gradients are treated and what moves its groups.

    Attributes:
        name: the submodule whose parameters it trains; None: the only optimizer, which trains all.
        lr_scale: the factor of auto_scale_lr, 1 when off; None: it waits for the batch.
        schedules: None: they end with the run, whose length is unknown.
        sharded: its state is spread over the ranks (ZeroRedundancyOptimizer); each updates its share of parameters.
    """

    name: str | None = None
    component: Component | Supplied
    groups: tuple[Group, ...]
    lr_scale: float | None
    clip_grad: ClipGrad | None
    precision: Precision
    schedules: tuple[Schedule, ...] | None = ()
    sharded: bool = False


@frozen(kw_only=True)
class TrainData:
    """The training loader. order None: unknown yet, or (opaque) a user's own, which a resume replays."""

    loader: DataLoader | Supplied
    order: Order | None
    opaque: bool
