"""The loops a config can ask for: training by epochs or iterations, evaluation, and loops of one's own. Shape only."""

from typing import Literal

from attrs import frozen

from flexcore.components import Component


@frozen(kw_only=True)
class _Training:
    """When to validate, and when to stop by wall time. max_time in seconds."""

    val_begin: int = 1
    val_interval: int = 1
    dynamic_intervals: tuple[tuple[int, int], ...] | None = None
    max_time: float | None = None


@frozen(kw_only=True)
class EpochLoop(_Training):
    """Train for max_epochs; validate every val_interval epochs from val_begin on."""

    NAME = "EpochBasedTrainLoop"
    by_epoch = True
    max_epochs: int


@frozen(kw_only=True)
class IterLoop(_Training):
    """Train for max_iters; validate every val_interval iterations from val_begin on."""

    NAME = "IterBasedTrainLoop"
    by_epoch = False
    max_iters: int
    val_interval: int = 1000


@frozen(kw_only=True)
class OwnTrainLoop:
    """A class of the user's own, built as Loop(run, dataloader, **arguments); see shell.own_loops.

    max_epochs or max_iters among its arguments is the length that schedules are planned for.
    """

    component: Component
    val_begin = 1
    dynamic_intervals = max_time = None

    @property
    def val_interval(self) -> int:
        """What checkpoints fall back on, as in the loops that are built in."""
        return _whole(self.component, "val_interval") or (1 if self.by_epoch else 1000)

    @property
    def max_epochs(self) -> int | None:
        return _whole(self.component, "max_epochs")

    @property
    def max_iters(self) -> int | None:
        return _whole(self.component, "max_iters")

    @property
    def by_epoch(self) -> bool:
        """What intervals and schedules count in where they do not say: epochs, unless its length is in iterations."""
        return "max_iters" not in self.component.kwargs


TrainLoop = EpochLoop | IterLoop | OwnTrainLoop


@frozen(kw_only=True)
class TTA:
    """Predict each batch once per transform of its inputs, and merge what comes out.

    transforms: "identity", "hflip", "vflip", or a function or class of one's own by import path, given the inputs.
    merge: "mean" of the outputs, or "pkg.module:function" of the list of them.
    """

    NAME = "TTA"
    transforms: tuple[Component, ...]
    merge: str = "mean"


@frozen(kw_only=True)
class _Evaluating:
    """Evaluate once over every loader.

    dtype: autocast of forward passes; fp16 is float16's. predictions: write every sample's prediction to this
    file, in dataset order; see flexcore.run_plan.Evaluation.
    """

    fp16: bool = False
    dtype: Literal["float16", "bfloat16"] | None = None
    predictions: str | None = None


@frozen(kw_only=True)
class ValLoop(_Evaluating):
    """Each validation over every validation loader."""

    NAME = "ValLoop"


@frozen(kw_only=True)
class TestLoop(_Evaluating):
    """The test over every test loader. tta: test-time augmentation, or a class of one's own for it."""

    NAME = "TestLoop"
    tta: TTA | Component | None = None


@frozen(kw_only=True)
class OwnEvalLoop:
    """A class of the user's own, built as Loop(run, dataloader, evaluator, **arguments); see shell.own_loops."""

    component: Component


def _whole(component: Component, key: str) -> int | None:
    value = component.kwargs.get(key)
    return value if type(value) is int else None
