"""What is known of torch.optim's classes without importing them: the numbers their groups start with."""

from collections.abc import Mapping
from typing import Any

from flexcore.components import Component, Items

_ADAM = {"betas": 0.9, "eps": 1e-8, "weight_decay": 0.0}
# Defaults of torch 2.10 to 2.13; of betas the first, which is the Adam family's momentum.
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "SGD": {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0},
    "Adam": {"lr": 1e-3, **_ADAM},
    "AdamW": {"lr": 1e-3, **_ADAM, "weight_decay": 1e-2},
    "NAdam": {"lr": 2e-3, **_ADAM, "momentum_decay": 4e-3},
    "RAdam": {"lr": 1e-3, **_ADAM},
    "Adamax": {"lr": 2e-3, **_ADAM},
    "SparseAdam": {"lr": 1e-3, "betas": 0.9, "eps": 1e-8},
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    "Adagrad": {"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "eps": 1e-10},
    "ASGD": {"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0},
    "RMSprop": {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0},
    "Rprop": {"lr": 1e-2},
    "Adafactor": {"lr": 1e-2, "beta2_decay": -0.8, "d": 1.0, "weight_decay": 0.0},
    "LBFGS": {"lr": 1.0},
    "Muon": {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "eps": 1e-7},
}  # fmt: skip
# What asks for more than gradients: refused by name; (reason, remedy).
UNBUILT: Mapping[str, tuple[str, str]] = {
    "LBFGS": (
        "it evaluates the loss several times a step, through a closure, so no plan can count its steps",
        "Use AdamW or SGD.",
    ),
}


def defaults(optimizer: Component) -> Mapping[str, float] | None:
    """The group numbers of a torch.optim class; None for a class of the user's own."""
    bare = optimizer.type in DEFAULTS or optimizer.type.startswith(("torch.optim.", "torch.optim:"))
    return DEFAULTS.get(optimizer.name) if bare else None


def base(optimizer: Component, key: str) -> float | None:
    """A group key's value before anything is scheduled; None if neither config nor torch tells it.

    Momentum is betas[0] where there is no momentum.
    """
    known = defaults(optimizer) or {}
    if key == "momentum" and key not in optimizer.kwargs and key not in known:
        return first(optimizer.kwargs.get("betas")) or known.get("betas")
    return number(optimizer.kwargs.get(key, known.get(key)))


def has(optimizer: Component, key: str) -> bool | None:
    """Whether the groups have the key; None for a class whose groups nobody here knows."""
    known = defaults(optimizer)
    if known is None:
        return None
    return key in known or (key == "momentum" and "betas" in known)


def first(betas: Any) -> float | None:
    """betas[0] as a config holds it."""
    values = betas.values if isinstance(betas, Items) else betas
    return number(values[0]) if isinstance(values, tuple) and values else None


def number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None
