"""Training state of any shape survives JSON and tensor files to the bit, and what would not is refused by place."""

import json
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shell.state_tensors import StateMismatch, Unsavable, join, split


def there_and_back(tree):
    described, tensors = split(tree)
    return join(json.loads(json.dumps(described)), tensors)


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
