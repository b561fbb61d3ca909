"""The order of samples against brute force: lists built whole and cut up."""

from collections import Counter
from itertools import chain, permutations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from flexcore.sampling import Order, Permutation, derived_seed, indices, mix
from tests.strategies import orders


@given(st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(0, 10**9))
def test_a_permutation_is_one(n, seed, epoch):
    permuted = Permutation.keyed(n, seed, epoch)
    assert sorted(map(permuted, range(n))) == list(range(n))


def test_a_permutation_of_a_huge_range_stays_inside_it():
    n = 2**62 + 12345
    permuted = Permutation.keyed(n, 1, 2)
    assert permuted.left * permuted.right >= n
    assert all(0 <= permuted(x) < n for x in (0, 1, n // 2, n - 1))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_permutations_of_few_are_equally_likely(n):
    """Chi-square over seeds; the limit is the 0.9999 quantile by Wilson and Hilferty's approximation."""
    trials = 40 * len(list(permutations(range(n))))
    seen = Counter(tuple(map(Permutation.keyed(n, seed, 0), range(n))) for seed in range(trials))
    every = list(permutations(range(n)))
    expected = trials / len(every)
    statistic = sum((seen[order] - expected) ** 2 / expected for order in every)
    free = len(every) - 1
    assert statistic < free * (1 - 2 / (9 * free) + 3.72 * (2 / (9 * free)) ** 0.5) ** 3


@pytest.mark.parametrize("n", [10, 37])
def test_every_index_is_equally_likely_at_every_position(n):
    trials = 40 * n
    for position in (0, n // 2, n - 1):
        seen = Counter(Permutation.keyed(n, seed, 3)(position) for seed in range(trials))
        statistic = sum((seen[i] - 40) ** 2 / 40 for i in range(n))
        free = n - 1
        assert statistic < free * (1 - 2 / (9 * free) + 3.72 * (2 / (9 * free)) ** 0.5) ** 3


def test_epochs_and_seeds_give_other_orders():
    whole = [
        tuple(map(Permutation.keyed(50, seed, epoch), range(50))) for seed in range(5) for epoch in range(5)
    ]
    assert len(set(whole)) == 25
    assert len({derived_seed(*parts) for parts in [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]}) == 6
    assert mix(0) == 0


def test_mix_is_splitmix64s_finaliser():
    """Its published outputs for the seeds 0 and 1234567; a bijection differs wherever its argument does."""
    golden = 0x9E3779B97F4A7C15
    drawn = [mix((seed + i * golden) % 2**64) for seed in (0, 1234567) for i in (1, 2, 3)]
    assert drawn == [
        0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F,
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


def test_a_derived_seed_draws_once_a_part():
    """Each part is mixed into the state by one step of splitmix64, and 63 bits are kept."""
    golden = 0x9E3779B97F4A7C15
    assert derived_seed() == golden >> 1
    assert derived_seed(0) == 0x6E789E6AA1B965F4 >> 1
    assert derived_seed(-1) == derived_seed(2**64 - 1) == derived_seed(2**65 - 1)
    for parts in [(3,), (3, 2**63 + 5), (0, 0, 7)]:
        state = golden
        for part in parts:
            state = mix(((state ^ part) + golden) % 2**64)
        assert derived_seed(*parts) == state // 2


def test_an_order_once_dealt_stays():
    """A run started by an older version goes on with its samples: these orders never change."""
    assert list(map(Permutation.keyed(10, 7, 3), range(10))) == [9, 2, 3, 4, 7, 0, 6, 1, 8, 5]
    assert [Permutation.keyed(10**12, 1, 0)(position) for position in (0, 1, 10**12 - 1)] == [
        749810660293,
        116194021910,
        120591313066,
    ]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13, 16, 17, 99, 100, 101])
def test_the_domain_of_a_permutation_is_the_least_near_its_square(n):
    permuted = Permutation.keyed(n, 1, 2)
    least = next(side for side in range(1, 99) if side * side >= n)
    assert permuted.left == least
    assert permuted.right == max(1, next(side for side in range(99) if least * side >= n))
    assert permuted.keys == tuple(derived_seed(1, 2, r) for r in range(16))


def dealt(order: Order, epoch: int) -> list[list[list[int]]]:
    """[rank][micro-batch] of one epoch, from a whole list of the order."""
    n, world, size = order.samples, order.world_size, order.micro_batch_size
    permuted = Permutation.keyed(n, order.seed, epoch)
    whole = [permuted(i) for i in range(n)] if order.shuffle else list(range(n))
    if order.padded:
        while len(whole) % world:
            whole.append(whole[len(whole) - n])
    ranks = [whole[rank::world] for rank in range(world)]
    batches = [[own[i : i + size] for i in range(0, len(own), size)] for own in ranks]
    return [[b for b in own if len(b) == size] if order.drop_last else own for own in batches]


@given(orders, st.integers(0, 9))
def test_strided_micro_batches_are_those_of_the_whole_list(order, epoch):
    expected = dealt(order, epoch)
    longest = max(map(len, expected))
    if order.padded or not order.drop_last:
        assert order.micro_batches == longest
    for rank, own in enumerate(expected):
        got = [indices(order, epoch, i, rank) for i in range(len(own))]
        assert got == own


@given(orders, st.integers(0, 9))
def test_an_epoch_covers_the_dataset_once_and_its_padding(order, epoch):
    whole = evolve(order, drop_last=False)
    seen = Counter(chain.from_iterable(
        indices(whole, epoch, i, rank) for rank in range(order.world_size) for i in range(whole.micro_batches)
    ))  # fmt: skip
    padding = -order.samples % order.world_size if order.padded else 0
    assert set(seen) == set(range(order.samples))
    assert sum(seen.values()) == order.samples + padding
    if not order.padded:
        assert max(seen.values()) == 1  # evaluation never counts a sample twice


@given(st.integers(1, 80), st.integers(0, 99), st.booleans(), st.booleans(), st.integers(0, 5))
def test_on_the_global_clock_an_iteration_holds_the_same_samples_on_any_world(
    n, seed, shuffle, drop_last, epoch
):
    base = Order(
        samples=n,
        shuffle=shuffle,
        seed=seed,
        contiguous=True,
        world_size=1,
        micro_batch_size=8,
        drop_last=drop_last,
    )
    worlds = [
        evolve(base, world_size=world, micro_batch_size=micro, accumulation=8 // (world * micro))
        for world in (1, 2, 4) for micro in (1, 2)
    ]  # fmt: skip
    iterations = n // 8 if drop_last else -(-n // 8)
    assert base.micro_batches == iterations
    for iteration in range(iterations):
        expected = indices(base, epoch, iteration, 0)
        for other in worlds:
            assert other.micro_batches == iterations * other.accumulation
            got = [
                index
                for a in range(other.accumulation) for rank in range(other.world_size)
                for index in indices(other, epoch, iteration * other.accumulation + a, rank)
            ]  # fmt: skip
            assert got == expected


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_an_endless_stream_is_epoch_after_epoch(n, world, size, shuffle):
    order = Order(samples=n, shuffle=shuffle, seed=5, endless=True, world_size=world, micro_batch_size=size)
    laps = [
        list(map(Permutation.keyed(n, 5, lap), range(n))) if shuffle else list(range(n))
        for lap in range(6 * size * world // n + 1)
    ]
    stream = list(chain.from_iterable(laps))
    for rank in range(world):
        own = stream[rank::world]
        got = list(chain.from_iterable(indices(order, 77, i, rank) for i in range(6)))
        assert got == own[: 6 * size]
