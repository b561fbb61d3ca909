"""Training state survives JSON and tensor files to the bit, and a restored optimizer goes on as if never stopped."""

import copy
import json
import random
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shell.checkpoints import Store
from shell.state_tensors import (
    StateMismatch,
    Unsavable,
    join,
    optimizer_state,
    restore_optimizer,
    restore_rng,
    rng_state,
    split,
)


def there_and_back(tree):
    described, tensors = split(tree)
    return join(json.loads(json.dumps(described)), tensors)


def through_a_store(tmp_path, tree):
    described, tensors = split(tree)
    path = Store(tmp_path, "run").save("x", {"state": tensors}, {"state": described})
    loaded = Store(tmp_path, "run").load(path)
    return join(loaded.manifest.fields["state"], loaded.tensors("state"))


def same(a, b):
    """Equal in type, in order and to the bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype and a.shape == b.shape and same(a.contiguous().numpy(), b.contiguous().numpy())
        )
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a.hex() == b.hex() if isinstance(a, float) else a == b


tensors = st.builds(
    lambda seed, shape, dtype: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(
        dtype
    ),
    st.integers(0, 9),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8]),
)
arrays = st.builds(
    lambda seed, shape, dtype: (np.random.default_rng(seed).random(shape) * 9).astype(dtype),
    st.integers(0, 9),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["<f4", ">f8", "<i2", "?", "<M8[s]", "<c16", "<U3", "S2"]),
)
text = st.text(st.characters(exclude_categories=()), max_size=5) | st.sampled_from(
    ["$tensor", "$", "a.b", "[0]"]
)
hashables = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text | st.binary(max_size=5)
)
hashables |= st.tuples(st.integers(), text)
scalars = arrays.filter(lambda array: array.size).map(lambda array: array.reshape(-1)[0])
leaves = hashables | st.floats() | st.sets(hashables, max_size=3) | st.frozensets(hashables, max_size=3)
leaves |= tensors | arrays | scalars
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.dictionaries(text, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_tree_comes_back_the_same(tree):
    assert same(there_and_back(tree), tree)


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        float("nan"),
        -float("inf"),
        5e-324,
        1 << 100_000,
        -(1 << 64),
        "\ud800",
        {1: 2, "1": 3},
        {"$float": "x"},
        {(1,): ()},
    ],
    ids=lambda value: type(value).__name__,
)
def test_awkward_values_come_back(value):
    assert same(there_and_back([value]), [value])


def test_the_payload_of_a_nan_survives():
    quiet = np.array([0x7FF8DEADBEEF0001], dtype=np.uint64).view(np.float64)[0]
    assert same(there_and_back([quiet, float(quiet)]), [quiet, float(quiet)])


def test_plain_state_stays_readable_and_tensors_are_named_by_place():
    described, found = split({"best": 0.5, "ema": {"w": torch.ones(2)}, "seen": [torch.zeros(1)], 3: ()})
    assert described == {
        "$dict": [
            ["best", 0.5],
            ["ema", {"w": {"$tensor": "state['ema'].w"}}],
            ["seen", [{"$tensor": "state['seen'][0]"}]],
            [3, {"$tuple": []}],
        ]
    }
    assert list(found) == ["state['ema'].w", "state['seen'][0]"]


def test_keys_that_would_collide_stay_apart():
    tree = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}
    assert same(there_and_back(tree), tree)


def test_a_tensor_met_twice_is_kept_once():
    shared = torch.ones(3)
    described, found = split([shared, shared])
    assert len(found) == 1
    first, second = join(described, found)
    assert first is second


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"a": [object()]},
            "state.a[0] is a builtins.object; state holds None, bool, int, float, str, bytes, dict, list, ",
        ),
        ({"a": defaultdict(int)}, "state.a is a collections.defaultdict; "),
        ({"a": len}, "state.a is a builtins.builtin_function_or_method; "),
        (
            {frozenset(): 1},
            "A key of state is a frozenset; keys are text, numbers, None, bytes or tuples of them.",
        ),
        (
            [np.array([None])],
            "state[0] is a numpy value of object; it must hold numbers, times or text.",
        ),
        ([np.ma.array([1])], "state[0] is a numpy.ma.MaskedArray; "),
        (
            [torch.zeros(1).to_sparse()],
            "state[0] is torch.sparse_coo on cpu; a file holds dense tensors with data.",
        ),
    ],
)
def test_anything_else_is_refused_by_place_and_type(tree, message):
    with pytest.raises(Unsavable) as caught:
        split(tree)
    assert str(caught.value).startswith(message)


def test_a_tree_that_contains_itself_is_refused():
    tree = []
    tree.append(tree)
    with pytest.raises(
        Unsavable, match="state is nested too deep; state is a tree: it may not contain itself"
    ):
        split(tree)


def test_what_no_split_wrote_is_refused():
    with pytest.raises(
        StateMismatch, match=r"Tensor 'w' is missing; the JSON and the tensors must come from one split"
    ):
        join({"$tensor": "w"}, {})
    with pytest.raises(StateMismatch, match=r"Mark '\$code' is unknown; marks are \$tensor, "):
        join([{"$code": "x"}], {})


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
