"""FSDP's ranks and optimizers: every finding, whole, beside those of test_sharding."""

import pytest
from attrs import evolve

from flexcore import Supplied
from tests.flexcore.base import KNOWN, base, said

SIX = evolve(KNOWN, world_size=6, train_samples=96)


def shared(wrapper=None, **settings):
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, **(wrapper or {})}
    return base(strategy={"type": "FSDPStrategy", **settings}, optim_wrapper=wrapper)


CASES = {
    "uneven": (shared(shard_size=4), SIX, [
        "strategy.shard_size: 4 ranks cannot share a copy evenly in a world of 6. Use one of 1, 2, 3, 6. [FP020]",
    ]),
    "no copies": (shared(shard_size=0), SIX, [
        "strategy.shard_size: must be at least 1, got 0. Correct the value. [FK020]",
    ]),
    "fewer than none": (shared(shard_size=-3), SIX, [
        "strategy.shard_size: must be at least 1, got -3. Correct the value. [FK020]",
    ]),
    "a copy on each rank": (shared(shard_size=1), SIX, []),
    "a copy on each of three": (shared(shard_size=1), evolve(SIX, world_size=3), []),
    "one copy": (shared(shard_size=6), SIX, []),
    "in a world not known": (shared(shard_size=4), evolve(SIX, world_size=None, environment=(("RANK", "0"), ("WORLD_SIZE", "x"))), []),
    "resharded within a copy of three": (shared(shard_size=3, reshard_after_forward=6), SIX, [
        "strategy.reshard_after_forward: 6 is no part of a copy's ranks to reshard to. Use true, false or a divisor of shard_size. [FP020]",
    ]),
    "resharded within a copy of all": (shared(reshard_after_forward=3), SIX, []),
    "a supplied optimizer": (shared({"optimizer": Supplied()}), SIX, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sharding(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
