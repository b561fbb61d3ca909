"""The planned sample order, evaluated in blocks with numpy; equal to flexcore.sampling position for position."""

from collections.abc import Iterator

import numpy as np

from flexcore.sampling import ROUNDS, Order, Permutation

BLOCK = 8192
_U = np.uint64
_A, _B = _U(0xBF58476D1CE4E5B9), _U(0x94D049BB133111EB)
_S30, _S27, _S31 = _U(30), _U(27), _U(31)


def micro_batches(order: Order, epoch: int, start: int, stop: int, rank: int) -> Iterator[list[int]]:
    """Index lists of micro-batches start..stop-1 of one rank in one epoch (or of the endless stream)."""
    per_block = max(1, BLOCK // order.micro_batch_size)
    permutations: dict[int, Permutation] = {}
    for first in range(start, stop, per_block):
        spans = [order.positions(m, rank) for m in range(first, min(stop, first + per_block))]
        flat = _permuted(
            order, epoch, np.concatenate([np.arange(s.start, s.stop, s.step) for s in spans]), permutations
        )
        at = 0
        for span in spans:
            yield flat[at : at + len(span)]
            at += len(span)


def _permuted(order: Order, epoch: int, positions: np.ndarray, cache: dict[int, Permutation]) -> list[int]:
    n = order.samples
    within = (positions % n).astype(np.uint64)
    if not order.shuffle:
        return within.tolist()
    laps = positions // n if order.endless else np.full_like(positions, epoch)
    result = np.empty_like(within)
    for lap in np.unique(laps).tolist():
        if lap not in cache:
            cache.clear()
            cache[lap] = Permutation.keyed(n, order.seed, lap)
        chosen = laps == lap
        result[chosen] = permuted(cache[lap], within[chosen])
    return result.tolist()


def permuted(permutation: Permutation, positions: np.ndarray) -> np.ndarray:
    """`permutation(p)` for each p of a uint64 array; positions that leave range(n) walk on until they are back."""
    x = _round_trip(permutation, positions)
    outside = np.flatnonzero(x >= permutation.n)
    while outside.size:
        x[outside] = _round_trip(permutation, x[outside])
        outside = outside[x[outside] >= permutation.n]
    return x


def _round_trip(permutation: Permutation, x: np.ndarray) -> np.ndarray:
    left, right = _U(permutation.left), _U(permutation.right)
    high, low = x // right, x % right
    for r in range(0, ROUNDS, 2):
        high = (high + _mix(low ^ _U(permutation.keys[r])) % left) % left
        low = (low + _mix(high ^ _U(permutation.keys[r + 1])) % right) % right
    return high * right + low


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> _S30)) * _A
    x = (x ^ (x >> _S27)) * _B
    return x ^ (x >> _S31)
