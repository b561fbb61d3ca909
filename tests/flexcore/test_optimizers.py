"""What is known of torch.optim's classes is what torch says when one is built."""

import pytest
import torch

from flexcore import optimizers
from flexcore.components import Component, Data, Items

NAMES = [name for name in optimizers.DEFAULTS if name != "LBFGS"]  # its groups hold one more kind of number


def component(kind, **kwargs):
    return Component(type=kind, kwargs=Data(tuple(kwargs.items())))


def built(name):
    """The numbers of a group of torch's own; momentum is betas[0] where there is no momentum."""
    (group,) = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(2, 2))]).param_groups
    numbers = {key: float(value) for key, value in group.items() if type(value) in (int, float)}
    if "betas" in group and "momentum" not in numbers:
        numbers["momentum"] = group["betas"][0]
    return numbers


@pytest.mark.parametrize("spelling", ["{}", "torch.optim.{}", "torch.optim:{}"])
@pytest.mark.parametrize("name", NAMES)
def test_a_group_starts_as_torchs_does(name, spelling):
    one = component(spelling.format(name))
    theirs = built(name)
    for key in ("lr", "weight_decay", "momentum", "eps", "alpha", "nonsense"):
        assert optimizers.has(one, key) == (key in theirs), key
        assert optimizers.base(one, key) == pytest.approx(theirs[key], rel=1e-15) if key in theirs else True
        assert key in theirs or optimizers.base(one, key) is None
    assert not optimizers.has(one, "beta")


@pytest.mark.parametrize("kind", ["mine:Adam", "pkg.optim.SGD", "Fancy"])
def test_of_a_class_of_ones_own_only_the_config_tells(kind):
    one = component(kind, lr=0.5)
    assert optimizers.defaults(one) is None
    assert optimizers.has(one, "lr") is None
    assert (optimizers.base(one, "lr"), optimizers.base(one, "momentum")) == (0.5, None)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"betas": (0.8, 0.99)}, 0.8), ({"betas": Items((0.7, 0.9))}, 0.7), ({"betas": ()}, 0.9), ({"betas": "x"}, 0.9),
        ({"betas": 3}, 0.9), ({"betas": ("x", 0.9)}, 0.9), ({}, 0.9), ({"momentum": 0.4, "betas": (0.8, 0.9)}, 0.4),
    ],
)  # fmt: skip
def test_momentum_of_the_adam_family_is_its_first_beta(kwargs, expected):
    assert optimizers.base(component("Adam", **kwargs), "momentum") == expected


def test_momentum_of_a_class_that_has_one_is_its_own():
    assert optimizers.base(component("SGD", betas=(0.8, 0.9)), "momentum") == 0.0
    assert optimizers.base(component("SGD", momentum=0.5), "momentum") == 0.5


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (0.5, 0.5), (True, None), ("1", None), (None, None)]
)
def test_numbers_are_numbers(value, expected):
    found = optimizers.number(value)
    assert (found, type(found)) == (expected, type(expected))
