"""The data preprocessor: given to a model that knows what to do with it, else applied to each batch by the run."""

import inspect
from collections.abc import Callable
from typing import Any

from attrs import evolve
from torch import nn

from flexcore.components import Component
from flexcore.preprocessing import KEY
from flexcore.problems import ConfigError
from flexcore.rules import problem
from flexcore.run_plan import Plan
from shell import building
from shell.contracts import Contract, Prediction

Preprocess = Callable[[Any, bool], Any]
Predict = Callable[[nn.Module, Any], Prediction]


def built(plan: Plan) -> Any:
    """The planned preprocessor, a module or a function of a batch; None without one.

    Raises:
        ConfigError: it cannot be called.
    """
    if plan.data_preprocessor is None:
        return None
    made = building.build(plan.data_preprocessor, (KEY,))
    if not callable(made):
        text = f"{type(made).__name__} cannot be called with a batch."
        raise ConfigError([problem("FK013", (KEY,), text, "Name a Module, or a class with __call__.")])
    return made


def takes_one(model: Component) -> bool:
    """Whether a model's constructor is given the preprocessor, as FlexibleRunner gives it: mmengine-like models alone."""
    target = building.resolve(model.type)
    forward = getattr(target, "forward", None)
    steps = hasattr(target, "train_step")
    if not inspect.isclass(target) or not (
        steps or (forward and "mode" in inspect.signature(forward).parameters)
    ):
        return False
    parameters = inspect.signature(target).parameters
    return KEY in parameters or (steps and any(p.kind is p.VAR_KEYWORD for p in parameters.values()))


def joined(model: nn.Module, contract: Contract, made: Any) -> Contract:
    """The contract with the preprocessor in its place: the model's attribute if that is free, else before each call.

    A model that holds it and steps itself calls it itself; any other call is preceded by it here.

    Raises:
        ConfigError: it has parameters that would be neither trained nor saved.
    """
    if made is None:
        return contract
    if contract.keeps_lists and getattr(model, KEY, made) is None:
        setattr(model, KEY, made)
    held = contract.keeps_lists and getattr(model, KEY, None) is made
    if held and contract.loss is None:
        return contract
    if not held and isinstance(made, nn.Module) and any(p.requires_grad for p in made.parameters()):
        text = f"{type(made).__name__} has parameters that train, and stands outside the model: they never would."
        raise ConfigError([problem("FK013", (KEY,), text, "Make them buffers, or put it into the model.")])
    prepare, test = calling(made), contract.test
    return evolve(
        contract,
        prepare=prepare,
        predict=_prepared(contract.predict, prepare),
        test=None if test is None else _prepared(test, prepare),
    )


def _prepared(predict: Predict, prepare: Preprocess) -> Predict:
    return lambda model, batch: predict(model, prepare(batch, False))


def calling(made: Any) -> Preprocess:
    """A preprocessor as a function of (batch, training): told by argument if it takes one, else by its mode."""
    try:
        parameters = inspect.signature(made.forward if isinstance(made, nn.Module) else made).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    if "training" in parameters:
        return lambda batch, training: made(batch, training=training)
    if not isinstance(made, nn.Module):
        return lambda batch, _: made(batch)

    def by_mode(batch: Any, training: bool) -> Any:
        if made.training != training:
            made.train(training)
        return made(batch)

    return by_mode
