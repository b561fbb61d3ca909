"""Where the ranks of a run meet: a store, and in it a name that no start before this one has used."""

import json
import os
import time
import uuid
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from typing import Any

PAUSE = 0.01
"""Seconds between two looks at the store."""

Meetings = MutableMapping[tuple[str, str], list[Any]]
"""(address, port) -> [the store ranks meet in, groups started there]."""


def corner(meetings: Meetings, rank: int, world_size: int, timeout: timedelta) -> Any:
    """The part of the launch's store that the next group of this process has to itself.

    The port is the launcher's to give and taken once. A group's leavings in the store would send the ranks of the
    next one to addresses nobody listens at, which hangs them; so the nth group of a process meets the nth of others.
    An agent's store outlives its ranks as well (torch 2.13 keeps one over restarts), so there ranks agree on a name.
    """
    import torch.distributed as dist

    place = (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
    if place not in meetings:
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        meetings[place] = [store, 0]
    meeting = meetings[place]
    meeting[1] += 1
    own = dist.PrefixStore(f"flexcore/group_{meeting[1]}", meeting[0])
    if outlives_ranks(os.environ):
        own = dist.PrefixStore(agreed_name(own, rank, world_size, timeout.total_seconds()), own)
    return own


def outlives_ranks(environ: Mapping[str, str]) -> bool:
    """Whether the store is the elastic agent's, who starts ranks again."""
    return environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def agreed_name(store: Any, rank: int, world_size: int, timeout: float) -> str:
    """A name that only the ranks alive now have agreed on, whatever earlier starts left in the store.

    Each rank says hello with a word of its own. Rank 0 writes a roster of the words it sees under a new name, and
    again whenever a word changes; a rank that finds its word there confirms the name. The words of the dead never do.

    Raises:
        TimeoutError: not every rank came within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    if rank == 0:
        return _called(store, world_size, deadline)
    own = uuid.uuid4().hex
    store.set(f"hello/{rank}", own)
    confirmed = None
    while True:
        name, words = json.loads(_read(store, "roster") or '["", []]')
        if own in words:
            if confirmed != name:
                store.set(f"confirmed/{rank}", name)
                confirmed = name
            if _read(store, "meet") == name:
                return str(name)
        _pause(deadline, f"rank {rank} waited for rank 0")


def _called(store: Any, world_size: int, deadline: float) -> str:
    """Rank 0's part."""
    hellos = [f"hello/{rank}" for rank in range(1, world_size)]
    confirmations = [f"confirmed/{rank}" for rank in range(1, world_size)]
    name, told = uuid.uuid4().hex, None
    while True:
        words = _read_all(store, hellos)
        if words is not None and words != told:
            name, told = uuid.uuid4().hex, words
            store.set("roster", json.dumps([name, words]))
        if told is not None and _read_all(store, confirmations) == [name] * len(confirmations):
            store.set("meet", name)
            return name
        _pause(deadline, "rank 0 waited for the others")


def _read(store: Any, key: str) -> str | None:
    return store.get(key).decode() if store.check([key]) else None


def _read_all(store: Any, keys: list[str]) -> list[str] | None:
    """Their values, once all are there."""
    if not keys:
        return []
    return [value.decode() for value in store.multi_get(keys)] if store.check(keys) else None


def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"{what} longer than the timeout of the group. Look at what the other ranks say.")
    time.sleep(PAUSE)
