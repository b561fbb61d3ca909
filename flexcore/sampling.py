"""Which sample stands at which position: the global order as a function of (seed, epoch, position), O(1).

A shuffled order is a keyed permutation: a Feistel network that adds modulo two near-square-root factors
(Black & Rogaway 2002, generalised Feistel with cycle walking) with splitmix64's finaliser as round function.
"""

import math

from attrs import frozen

MASK = 2**64 - 1
ROUNDS = 16  # with 8, orders of five or six samples were far from equally likely


def mix(x: int) -> int:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): a bijection on 64-bit integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def derived_seed(*parts: int) -> int:
    """One 63-bit seed from several integers; different parts give unrelated seeds."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = mix((state ^ (part & MASK)) + 0x9E3779B97F4A7C15 & MASK)
    return state >> 1


@frozen
class Permutation:
    """A pseudo-random bijection of range(n), picked by (seed, epoch), evaluated one position at a time."""

    n: int
    left: int
    right: int
    keys: tuple[int, ...]

    @classmethod
    def keyed(cls, n: int, seed: int, epoch: int) -> "Permutation":
        """`left * right` is the smallest near-square domain holding range(n)."""
        left = math.isqrt(max(0, n - 1)) + 1
        right = max(1, -(-n // left))
        keys = tuple(derived_seed(seed, epoch, r) for r in range(ROUNDS))
        return cls(n, left, right, keys)

    def __call__(self, position: int) -> int:
        """The index at `position`, 0 <= position < n. Expected walks: at most n / (n - sqrt n)."""
        x = position
        while True:
            x = self._round_trip(x)
            if x < self.n:
                return x

    def _round_trip(self, x: int) -> int:
        high, low = divmod(x, self.right)
        for r in range(0, ROUNDS, 2):
            high = (high + mix(low ^ self.keys[r])) % self.left
            low = (low + mix(high ^ self.keys[r + 1])) % self.right
        return high * self.right + low


@frozen(kw_only=True)
class Order:
    """How samples are dealt to ranks and micro-batches.

    Attributes:
        samples: dataset length n. shuffle, seed: the order within an epoch.
        endless: one stream of back-to-back epochs (InfiniteSampler) rather than padded epochs.
        padded: wrap round so that every rank gets the same number (training always; evaluation never).
        contiguous: blocks of the global batch per rank (global clock), else the strided order of o13.
        world_size, micro_batch_size, accumulation: the dealing. drop_last: leave a short batch out.
    """

    samples: int
    shuffle: bool
    seed: int
    endless: bool = False
    padded: bool = True
    contiguous: bool = False
    world_size: int
    micro_batch_size: int
    accumulation: int = 1
    drop_last: bool = False

    @property
    def micro_batches(self) -> int:
        """Micro-batches per rank and epoch, the most any rank has: a step in evaluation needs them all."""
        if self.contiguous:
            size = self.micro_batch_size * self.world_size * self.accumulation
            return (self.samples // size if self.drop_last else -(-self.samples // size)) * self.accumulation
        per_rank = -(-self.samples // self.world_size)
        size = self.micro_batch_size
        return per_rank // size if self.drop_last else -(-per_rank // size)

    def positions(self, micro_batch: int, rank: int) -> range:
        """Global positions of one micro-batch of one rank, within its epoch (or the endless stream)."""
        size = self.micro_batch_size
        if self.contiguous:
            start = (micro_batch * self.world_size + rank) * size
            return range(start, start + size)
        first, world = micro_batch * size, self.world_size
        last = first + size
        if not self.endless:
            last = min(last, -(-self.samples // world))
        stop = (last - 1) * world + rank + 1
        if not self.padded and not self.endless:
            stop = min(stop, self.samples)
        return range(first * world + rank, stop, world)


def indices(order: Order, epoch: int, micro_batch: int, rank: int) -> list[int]:
    """Dataset indices of one micro-batch. For an endless order `epoch` is ignored and micro_batch counts on."""
    n = order.samples
    positions = order.positions(micro_batch, rank)
    if not order.shuffle:
        return [p % n for p in positions]
    if not order.endless:
        permuted = Permutation.keyed(n, order.seed, epoch)
        return [permuted(p % n) for p in positions]
    by_epoch = {lap: Permutation.keyed(n, order.seed, lap) for lap in {p // n for p in positions}}
    return [by_epoch[p // n](p % n) for p in positions]
