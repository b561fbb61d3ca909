"""How a model is asked for losses and predictions: four contracts, the first that fits a model is used."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from attrs import frozen
from torch import nn

from flexcore.problems import ConfigError
from flexcore.rules import problem

Outputs = dict[str, Any]
PAIRS = (list, tuple)


@frozen
class Prediction:
    """What an evaluation step gives: `outputs` for a metric's update, `target` where the contract has one."""

    outputs: Any
    target: Any = None
    has_target: bool = False


@frozen
class Contract:
    """One way to call a model.

    Attributes:
        name: for the log.
        loss: (model, batch) -> (loss, named values to log). None: the model steps itself.
        predict: (model, batch) -> Prediction. test: the same for test loaders, where it differs.
        prepare: (batch, training) -> batch, before each training step; predict and test do it themselves.
        keeps_lists: batches are lists of samples (pseudo_collate) unless a collate_fn says otherwise.
    """

    name: str
    loss: Callable[[nn.Module, Any], tuple[torch.Tensor, Outputs]] | None
    predict: Callable[[nn.Module, Any], Prediction]
    keeps_lists: bool = False
    test: Callable[[nn.Module, Any], Prediction] | None = None
    prepare: Callable[[Any, bool], Any] | None = None

    def prediction(self, mode: str) -> Callable[[nn.Module, Any], Prediction]:
        """How loaders of this mode, "val" or "test", are predicted."""
        return self.test if mode == "test" and self.test is not None else self.predict


def contract_of(model: nn.Module, loss: Callable[..., torch.Tensor] | None, mode: str) -> Contract:
    """The first contract that fits.

    Raises:
        ConfigError: none does for training.
    """
    if hasattr(model, "train_step"):
        return Contract(
            "train_step", None, _own("val_step", "test_step"), True, _own("test_step", "val_step")
        )
    if "mode" in inspect.signature(model.forward).parameters:
        return Contract('forward(mode="loss")', _mode_loss, _mode_predict, keeps_lists=True)
    if loss is not None:
        return Contract("model and loss", _separate(loss), _pair_predict)
    if mode == "train" and _is_torchs_own(model.forward):
        text = f"is missing, and {type(model).__name__} has none of its own: its forward is torch's, without a mode."
        remedy = 'Add loss=dict(type="torch.nn:CrossEntropyLoss"), or return {"loss": ...} from forward.'
        raise ConfigError([problem("FK012", ("loss",), text, remedy)])
    return Contract('forward returning {"loss"}', _mapping_loss, _mapping_predict)


def _is_torchs_own(forward: Callable[..., Any]) -> bool:
    """Torch's modules never return a mapping with a loss."""
    return forward.__module__.startswith("torch.nn.")


def _call(model: Callable[..., Any], batch: Any, **extra: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch, **extra)
    if isinstance(batch, tuple | list):
        return model(*batch, **extra)
    return model(batch, **extra)


def _own(*steps: str) -> Callable[[nn.Module, Any], Prediction]:
    """Prediction by the first of these methods that a model has, else by its forward."""

    def predict(model: nn.Module, batch: Any) -> Prediction:
        step = next((getattr(model, name) for name in steps if hasattr(model, name)), None)
        return Prediction(step(batch) if step is not None else _call(model, batch))

    return predict


def _mode_loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, Outputs]:
    return parse_losses(_call(model, batch, mode="loss"))


def _mode_predict(model: nn.Module, batch: Any) -> Prediction:
    return Prediction(_call(model, batch, mode="predict"))


def _separate(
    criterion: Callable[..., torch.Tensor],
) -> Callable[[nn.Module, Any], tuple[torch.Tensor, Outputs]]:
    def loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, Outputs]:
        if type(batch) not in PAIRS:
            _no_pair(batch)
        try:
            inputs, target = batch
        except ValueError:
            _no_pair(batch)
        value = criterion(model(inputs), target)
        return value, {"loss": value.detach()}

    return loss


def _pair_predict(model: nn.Module, batch: Any) -> Prediction:
    inputs, target = batch if type(batch) in PAIRS and len(batch) == 2 else _no_pair(batch)
    return Prediction(model(inputs), target, has_target=True)


def _no_pair(batch: Any) -> NoReturn:
    what = f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else type(batch).__name__
    text = f"with a loss component a batch is a pair (inputs, target), and the loader gave a {what}."
    raise ConfigError(
        [problem("FK011", ("loss",), text, "Give pairs, or a model that returns its own loss.")]
    )


def _mapping_loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, Outputs]:
    outputs = _call(model, batch)
    found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if found is None:
        text = f'{type(model).__name__}.forward returned {type(outputs).__name__} without "loss".'
        raise ConfigError(
            [problem("FK012", ("loss",), text, "Add a loss component, or return a mapping with it.")]
        )
    return found, {"loss": found.detach()}


def _mapping_predict(model: nn.Module, batch: Any) -> Prediction:
    outputs = _call(model, batch)
    target, has_target = target_of(batch)
    return Prediction(outputs, target, has_target)


def target_of(batch: Any) -> tuple[Any, bool]:
    """(what outputs of a batch are compared with, whether there is any): a mapping's labels, or a pair's second."""
    if isinstance(batch, Mapping):
        target = batch.get("labels", batch.get("target"))
        return target, target is not None
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[1], True
    return None, False


def parse_losses(losses: Mapping[str, Any]) -> tuple[torch.Tensor, Outputs]:
    """As mmengine does: each value is averaged (lists summed), and what has "loss" in its name adds up."""
    values = {name: _averaged(value) for name, value in losses.items()}
    total = sum(value for name, value in values.items() if "loss" in name)
    if not isinstance(total, torch.Tensor):
        names = ", ".join(values) or "nothing"
        text = f'the model returned {names}; no tensor\'s name holds "loss".'
        raise ConfigError([problem("FK012", ("model",), text, 'Name a loss term, such as "loss".')])
    named = {**values, "loss": total}
    return total, {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in named.items()}


def _averaged(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return sum(_averaged(part) for part in value)
    return value.mean() if isinstance(value, torch.Tensor) else value
