"""A restored optimizer goes on as if never stopped, and random streams where they were, each to the bit."""

import copy
import random

import numpy as np
import pytest
import torch

from shell.checkpoints import Store
from shell.optimizer_states import optimizer_state, restore_optimizer, restore_rng, rng_state
from shell.state_tensors import StateMismatch, Unsavable, join, split
from tests.shell.test_state_tensors import same


def through_a_store(tmp_path, tree):
    described, tensors = split(tree)
    path = Store(tmp_path, "run").save("x", {"state": tensors}, {"state": described})
    loaded = Store(tmp_path, "run").load(path)
    return join(loaded.manifest.fields["state"], loaded.tensors("state"))


# Optimizers

OPTIMIZERS = [
    ("SGD", {"lr": 0.1}, torch.float32),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, torch.float32),
    ("Adam", {"amsgrad": True}, torch.float32),
    ("Adam", {"lr": torch.tensor(0.01)}, torch.float32),
    ("AdamW", {"foreach": False}, torch.float32),
    ("AdamW", {"fused": True}, torch.float32),
    ("NAdam", {}, torch.float64),
    ("RAdam", {}, torch.float64),
    ("ASGD", {"lambd": 0.1}, torch.float64),
    ("Adamax", {}, torch.bfloat16),
    ("Adafactor", {}, torch.bfloat16),
    ("Adadelta", {}, torch.float32),
    ("Adagrad", {}, torch.float32),
    ("RMSprop", {"centered": True, "momentum": 0.5}, torch.float32),
    ("Rprop", {}, torch.float32),
    ("LBFGS", {"max_iter": 3, "line_search_fn": "strong_wolfe"}, torch.float32),
]


def build(kind, settings, dtype):
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(dtype)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
    groups = [{"params": [*net[2].parameters()]}, {"params": [*net[0].parameters()], "weight_decay": 0.01}]
    if kind in ("LBFGS", "Rprop"):
        groups = (
            list(net.parameters())
            if kind == "LBFGS"
            else [{"params": [*net[2].parameters()], "lr": 0.5}, {"params": net[0].parameters()}]
        )
    return net, getattr(torch.optim, kind)(groups, **copy.deepcopy(settings))


def train(net, optimizer, steps, dtype):
    for step in steps:
        batch = torch.randn(5, 3, generator=torch.Generator().manual_seed(step)).to(dtype)

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = net(batch).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        optimizer.param_groups[0]["lr"] *= 0.9


@pytest.mark.parametrize(
    ("kind", "settings", "dtype"),
    OPTIMIZERS,
    ids=[f"{kind}-{n}" for n, (kind, _, _) in enumerate(OPTIMIZERS)],
)
def test_three_steps_and_three_more_are_six_to_the_bit(tmp_path, kind, settings, dtype):
    straight, optimizer = build(kind, settings, dtype)
    train(straight, optimizer, range(6), dtype)

    first, optimizer_1 = build(kind, settings, dtype)
    train(first, optimizer_1, range(3), dtype)
    tree = through_a_store(tmp_path, optimizer_state(optimizer_1, first.named_parameters()))

    second, optimizer_2 = build(kind, settings, dtype)
    second.load_state_dict(first.state_dict())
    restore_optimizer(optimizer_2, second.named_parameters(), tree)
    again = optimizer_state(optimizer_2, second.named_parameters())
    assert same(split(again)[0], split(tree)[0])
    train(second, optimizer_2, range(3, 6), dtype)
    for expected, actual in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(expected, actual)
        assert not torch.equal(expected, torch.zeros_like(expected))


def test_restored_state_is_a_copy(tmp_path):
    net, optimizer = build("Adam", {}, torch.float32)
    train(net, optimizer, range(1), torch.float32)
    tree = optimizer_state(optimizer, net.named_parameters())
    other, restored = build("Adam", {}, torch.float32)
    restore_optimizer(restored, other.named_parameters(), tree)
    before = tree["state"]["0.weight"]["exp_avg"].clone()
    train(other, restored, range(1), torch.float32)
    assert torch.equal(tree["state"]["0.weight"]["exp_avg"], before)


def test_an_optimizer_that_has_not_stepped_has_no_state(tmp_path):
    net, optimizer = build("Adam", {}, torch.float32)
    tree = through_a_store(tmp_path, optimizer_state(optimizer, net.named_parameters()))
    train(net, optimizer, range(2), torch.float32)
    restore_optimizer(optimizer, net.named_parameters(), tree)
    assert optimizer.state == {}


def other_groups(net):
    return torch.optim.Adam([{"params": [net[0].weight]}, {"params": [net[0].bias, *net[2].parameters()]}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda net: torch.optim.Adam(net.parameters()),
            "The number of parameter groups is 1; the checkpoint has 2: build ",
        ),
        (
            other_groups,
            "Parameters of group 0 is different in 0.weight, 2.bias, 2.weight; only one of checkpoint and ",
        ),
        (lambda _: "wider", "Parameter '2.weight' is of shape [2, 5]; the checkpoint's is [2, 4]."),
    ],
)
def test_state_of_another_model_or_other_groups_is_refused_and_nothing_changed(make, message):
    net, optimizer = build("Adam", {}, torch.float32)
    tree = optimizer_state(optimizer, net.named_parameters())
    changed = make(net)
    if changed == "wider":
        net[2].weight = torch.nn.Parameter(torch.ones(2, 5))
        changed = torch.optim.Adam(
            [{"params": [*net[2].parameters()]}, {"params": [*net[0].parameters()]}], lr=7.0
        )
    before = copy.deepcopy(changed.state_dict())
    with pytest.raises(StateMismatch) as caught:
        restore_optimizer(changed, net.named_parameters(), tree)
    assert str(caught.value).startswith(message)
    assert changed.state_dict() == before


def test_a_parameter_without_a_name_is_refused():
    net, optimizer = build("Adam", {}, torch.float32)
    with pytest.raises(
        Unsavable, match="A parameter of the optimizer is an unnamed Parameter; everything it trains or "
    ):
        optimizer_state(optimizer, net[0].named_parameters())


# Random streams


def draw():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.standard_normal(),  # noqa: NPY002 - the global stream is what is restored
        torch.randn(3),
        torch.randperm(5),
    ]


def test_random_streams_go_on_where_they_were(tmp_path):
    draw()  # leaves half a pair of normals waiting in each stream
    described, found = split(rng_state())
    before = draw()
    draw()
    assert restore_rng(through_a_store(tmp_path, join(described, found))) == ()
    assert same(draw(), before)


def test_streams_of_devices_that_are_not_here_are_named():
    tree = {**rng_state(), "cuda": [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)}
    tree["cuda"][:-1] = torch.cuda.get_rng_state_all() if torch.cuda.device_count() else []
    assert restore_rng(tree) == (f"cuda:{torch.cuda.device_count()}",)
