"""How much device memory the model states of an unsharded model take; activations are not counted."""

from collections.abc import Mapping
from math import prod

from flexcore.components import Component, Supplied
from flexcore.config import Config
from flexcore.facts import Facts
from flexcore.wrappers import asked, owned

PARAMETER = GRADIENT = 4  # bytes of a float32; autocast keeps both in float32
STATE = 4  # bytes of one float32 value of optimizer state

# Values of optimizer state a trained number, by torch.optim class: (always, with momentum, with amsgrad).
STATES: Mapping[str, tuple[int, int, int]] = {
    "SGD": (0, 1, 1), "Adam": (2, 2, 3), "AdamW": (2, 2, 3), "NAdam": (2, 2, 2), "RAdam": (2, 2, 2),
    "Adamax": (2, 2, 2), "Adagrad": (1, 1, 1), "Adadelta": (2, 2, 2), "RMSprop": (1, 2, 2), "Rprop": (2, 2, 2),
    "ASGD": (1, 1, 1), "Adafactor": (0, 0, 0), "Muon": (1, 1, 1),
}  # fmt: skip
OTHER = (2, 2, 2)  # an optimizer of one's own: counted as Adam


def model_states(config: Config, facts: Facts) -> int | None:
    """Bytes of parameters, gradients and optimizer state on each rank; None while the parameters are unknown."""
    if facts.parameters is None:
        return None
    own = [p for p in facts.parameters if p.alias is None]
    every = sum(prod(p.shape) for p in own)
    trained = sum(prod(p.shape) for p in own if p.requires_grad)
    state = sum(
        values_per_number(one.optimizer) * sum(prod(p.shape) for p in owned(one.name, facts.parameters))
        for one in asked(config)
    )  # fmt: skip
    return every * PARAMETER + trained * GRADIENT + state * STATE


def values_per_number(optimizer: Component | Supplied) -> int:
    """Values of optimizer state for each number it trains."""
    if isinstance(optimizer, Supplied):
        return OTHER[0]
    always, moved, maximum = STATES.get(optimizer.name, OTHER)
    if optimizer.kwargs.get("amsgrad"):
        return maximum
    return moved if optimizer.kwargs.get("momentum") else always
