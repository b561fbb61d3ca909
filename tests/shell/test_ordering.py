"""The block-wise order is the planned one, position for position, from any start."""

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flexcore.sampling import Order, Permutation, indices
from shell import ordering


@st.composite
def orders(draw):
    world, micro = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    contiguous = draw(st.booleans())
    return Order(
        samples=draw(st.integers(1, 60)),
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
        endless=not contiguous and draw(st.booleans()),
        padded=contiguous or draw(st.booleans()),
        contiguous=contiguous,
        world_size=world,
        micro_batch_size=micro,
        accumulation=draw(st.integers(1, 3)) if contiguous else 1,
        drop_last=draw(st.booleans()),
    )


@settings(max_examples=300, deadline=None)
@given(orders(), st.integers(0, 3), st.integers(0, 20), st.data())
def test_equal_to_the_plan_position_for_position(order, epoch, start, data):
    rank = data.draw(st.integers(0, order.world_size - 1))
    stop = max(start, order.micro_batches) + (7 if order.endless else 0)
    found = list(ordering.micro_batches(order, epoch, start, stop, rank))
    assert found == [indices(order, epoch, m, rank) for m in range(start, stop)]
    assert all(type(index) is int for batch in found for index in batch)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 10**12),
    st.integers(0, 2**64 - 1),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 10**12), max_size=20),
)
def test_permutations_of_any_size_agree(n, seed, epoch, positions):
    permutation = Permutation.keyed(n, seed, epoch)
    inside = [p % n for p in positions]
    assert ordering.permuted(permutation, np.array(inside, dtype=np.uint64)).tolist() == [
        permutation(p) for p in inside
    ]


def test_blocks_meet_without_a_seam(monkeypatch):
    order = Order(samples=1000, shuffle=True, seed=3, world_size=2, micro_batch_size=4)
    whole = list(ordering.micro_batches(order, 1, 0, order.micro_batches, 0))
    monkeypatch.setattr(ordering, "BLOCK", 12)
    assert list(ordering.micro_batches(order, 1, 0, order.micro_batches, 0)) == whole


def test_a_far_start_costs_one_block():
    """Ten billion samples in, nothing before the start is computed."""
    order = Order(samples=10**10, shuffle=True, seed=0, endless=True, world_size=8, micro_batch_size=4)
    first = next(islice(ordering.micro_batches(order, 0, 3 * 10**8, 10**15, 5), 1))
    assert first == indices(order, 0, 3 * 10**8, 5)
