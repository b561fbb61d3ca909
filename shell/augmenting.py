"""Test-time augmentation: a batch is predicted once per transform of its inputs, and what comes out is merged.

A class of one's own, test_cfg=dict(tta=dict(type="pkg.module:Mine", ...)), has augment(batch) -> batches and
merge(outputs of each) -> outputs; the batches go through the model as any other, preprocessor included.
"""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import isclass
from typing import Any, Protocol

import torch
from attrs import evolve
from torch import nn

from flexcore.components import Component, thaw
from flexcore.loops import TTA
from flexcore.problems import ConfigError, Path
from flexcore.rules import problem
from flexcore.run_plan import Plan
from shell import building
from shell.contracts import Contract, Prediction

PATH: Path = ("test_cfg", "tta")


class Augmenting(Protocol):
    def augment(self, batch: Any) -> list[Any]:
        """The batch in each of its guises."""

    def merge(self, outputs: list[Any]) -> Any:
        """One batch of outputs from those of each guise, in the same order."""


class Transformed:
    """The planned transforms of a batch's inputs: the first of a pair, `inputs` (else the first) of a mapping."""

    def __init__(self, spec: TTA) -> None:
        self.transforms = [_transform(one, (*PATH, "transforms", i)) for i, one in enumerate(spec.transforms)]
        self.merged = mean if spec.merge == "mean" else building.resolve(spec.merge)

    def augment(self, batch: Any) -> list[Any]:
        return [_with_inputs(batch, transform) for transform in self.transforms]

    def merge(self, outputs: list[Any]) -> Any:
        """Merged once each transform that has an undo (of a flip, say, in a map of pixels) has undone itself."""
        undone = [getattr(t, "undo", _same)(out) for t, out in zip(self.transforms, outputs, strict=True)]
        return self.merged(undone)


def joined(contract: Contract, plan: Plan) -> Contract:
    """The contract with the planned augmentation around its predictions of test batches."""
    tta = plan.testing.tta if plan.testing is not None else None
    if tta is None:
        return contract
    made: Augmenting = Transformed(tta) if isinstance(tta, TTA) else building.build(tta, PATH)
    predict = contract.prediction("test")

    def augmented(model: nn.Module, batch: Any) -> Prediction:
        found = [predict(model, one) for one in made.augment(batch)]
        return evolve(found[0], outputs=made.merge([one.outputs for one in found]))

    return evolve(contract, test=augmented)


def _transform(spec: Component, path: Path) -> Callable[[Any], Any]:
    if not spec.is_import_path:
        return BUILT_IN[spec.type]
    target = building.resolve(spec.type)
    if isclass(target):
        made: Callable[[Any], Any] = building.build(spec, path)
        return made
    return partial(target, **thaw(spec.kwargs)) if len(spec.kwargs) else target


def _with_inputs(batch: Any, transform: Callable[[Any], Any]) -> Any:
    if isinstance(batch, Mapping):
        key = "inputs" if "inputs" in batch else next(iter(batch))
        return {**batch, key: transform(batch[key])}
    if isinstance(batch, tuple | list) and batch:
        return type(batch)([transform(batch[0]), *batch[1:]])
    return transform(batch)


def _same(value: Any) -> Any:
    return value


def _flipped(inputs: Any, dim: int) -> Any:
    """Inputs turned over along one of their last dimensions, sample by sample where they are a list."""
    return [_flipped(one, dim) for one in inputs] if isinstance(inputs, list | tuple) else inputs.flip(dim)


BUILT_IN: Mapping[str, Callable[[Any], Any]] = {
    "identity": _same, "hflip": partial(_flipped, dim=-1), "vflip": partial(_flipped, dim=-2),
}  # fmt: skip


def mean(outputs: list[Any]) -> Any:
    """The mean of outputs of one structure, tensor by tensor.

    Raises:
        ConfigError: they hold something that has no mean.
    """
    first = outputs[0]
    if isinstance(first, torch.Tensor) and first.is_floating_point():
        return torch.stack(outputs).mean(0)
    if isinstance(first, Mapping):
        return {key: mean([one[key] for one in outputs]) for key in first if first[key] is not None}
    if isinstance(first, list | tuple):
        return type(first)([mean(list(parts)) for parts in zip(*outputs, strict=True)])
    what = str(first.dtype) if isinstance(first, torch.Tensor) else type(first).__name__
    text = f'is "mean", and the model predicts {what}, which has none.'
    raise ConfigError([problem("FK011", (*PATH, "merge"), text, 'Name a function: "pkg.module:function".')])
