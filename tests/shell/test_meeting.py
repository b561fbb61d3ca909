"""Ranks that meet in a store full of what earlier ranks left there."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from shell.meeting import agreed_name, outlives_ranks


def met(store, ranks, world_size, delays=None, timeout=20.0):
    """The name each rank of one start comes back with; None for one whose time was up."""

    def come(rank):
        time.sleep((delays or {}).get(rank, 0.0))
        try:
            return agreed_name(store, rank, world_size, timeout)
        except TimeoutError:
            return None

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(come, ranks))


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_starts_in_one_store_meet_under_names_of_their_own(world_size):
    """Whoever comes first, and although every key of the start before is still there."""
    store, draw, names = HashStore(), random.Random(0), []
    for _ in range(6):
        delays = {rank: draw.random() * 0.05 for rank in range(world_size)}
        told = met(store, range(world_size), world_size, delays)
        assert len(set(told)) == 1
        names.append(told[0])
    assert None not in names
    assert len(set(names)) == len(names)


def test_a_start_that_broke_off_misleads_no_later_one():
    """Ranks that said hello and were killed, and a rank 0 that wrote its roster and was killed."""
    store = HashStore()
    assert met(store, [1], 3, timeout=0.1) == [None]
    assert met(store, [0, 2], 3, timeout=0.1) == [None, None]
    first = met(store, range(3), 3, {0: 0.1})
    assert met(store, [0], 3, timeout=0.1) == [None]
    second = met(store, range(3), 3, {1: 0.1, 2: 0.2})
    assert len(set(first)) == len(set(second)) == 1
    assert len({None, first[0], second[0]}) == 3


def test_rank_0_does_not_take_the_word_of_a_dead_rank():
    """It may write a roster with a stale word; the living rank's own word makes it write another."""
    store = HashStore()
    store.set("hello/1", "of the dead")
    told = []
    waiting = threading.Thread(target=lambda: told.extend(met(store, [0], 2)))
    waiting.start()
    while not store.check(["roster"]):
        time.sleep(0.01)
    assert json.loads(store.get("roster"))[1] == ["of the dead"]
    time.sleep(0.05)
    assert told == []
    (name,) = met(store, [1], 2)
    waiting.join()
    assert told == [name]


def test_a_rank_that_never_comes_is_told():
    with pytest.raises(TimeoutError, match="rank 0 waited for the others longer than the timeout"):
        agreed_name(HashStore(), 0, 2, 0.05)
    with pytest.raises(TimeoutError, match="rank 1 waited for rank 0 longer"):
        agreed_name(HashStore(), 1, 2, 0.05)


@pytest.mark.parametrize(("told", "does"), [("True", True), ("False", False), (None, False)])
def test_only_an_agents_store_outlives_its_ranks(told, does):
    assert outlives_ranks({} if told is None else {"TORCHELASTIC_USE_AGENT_STORE": told}) is does
