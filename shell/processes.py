"""How a rank's process group starts and ends; what ranks say to each other is not decided here.

Torch is imported only inside the functions that need it. A group of one never imports torch.distributed.
"""

import ctypes
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from attrs import field, frozen

from shell.meeting import Meetings, corner
from shell.ranks import Rank, read_rank, rendezvous, whole_number

logger = logging.getLogger(__name__)

PARENT = "FLEXCORE_LAUNCHER_PID"
"""Set by our launcher for its workers: the process they must not outlive."""

ORDERLY = frozenset({0, 8, 75, 130})
"""Exit codes every rank reaches together, so that ranks wait for each other before leaving."""


@frozen(kw_only=True)
class Group:
    """The ranks of one run, and the few things they say to each other. This one is a group of one.

    Values go round as JSON: tuples arrive as lists, and keys of mappings as text.
    """

    rank: Rank = field(factory=Rank)

    def broadcast(self, obj: Any) -> Any:
        """Rank 0's `obj`, on every rank."""
        return json.loads(json.dumps(obj))

    def gather(self, obj: Any) -> list[Any]:
        """Every rank's `obj` in rank order, on every rank."""
        return [json.loads(json.dumps(obj))]

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest over the ranks, place by place."""
        return [float(value) for value in values]

    def barrier(self) -> None:
        """Wait for the other ranks."""


@frozen(kw_only=True)
class TorchGroup(Group):
    """A group over torch.distributed; `device` is where its collectives want their tensors."""

    device: str = "cpu"

    def broadcast(self, obj: Any) -> Any:
        import torch
        import torch.distributed as dist

        payload = _encoded(obj) if self.rank.rank == 0 else b""
        size = torch.tensor([-1 if payload is None else len(payload)], device=self.device)
        dist.broadcast(size, src=0)
        _refuse_unsendable("broadcast", size.tolist())
        data = self._bytes(payload or b"", int(size.item()))
        dist.broadcast(data, src=0)
        return json.loads(bytes(data.tolist()))

    def gather(self, obj: Any) -> list[Any]:
        import torch
        import torch.distributed as dist

        payload = _encoded(obj)
        size = torch.tensor([-1 if payload is None else len(payload)], device=self.device)
        sizes = [torch.zeros_like(size) for _ in range(self.rank.world_size)]
        dist.all_gather(sizes, size)
        lengths = [int(one.item()) for one in sizes]
        _refuse_unsendable("gather", lengths)
        data = self._bytes(payload or b"", max(lengths))
        parts = [torch.zeros_like(data) for _ in lengths]
        dist.all_gather(parts, data)
        return [
            json.loads(bytes(part[:length].tolist())) for part, length in zip(parts, lengths, strict=True)
        ]

    def max(self, values: Sequence[float]) -> list[float]:
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [float(value) for value in tensor.tolist()]

    def barrier(self) -> None:
        import torch.distributed as dist

        dist.barrier(device_ids=None if self.device == "cpu" else [int(self.device.partition(":")[2] or 0)])

    def _bytes(self, payload: bytes, size: int) -> Any:
        """`payload` as a byte tensor of `size`, padded with zeros."""
        import torch

        return torch.tensor(list(payload.ljust(size, b"\0")), dtype=torch.uint8, device=self.device)


def _encoded(obj: Any) -> bytes | None:
    """JSON, or None: a rank that cannot send must still take part, or the others would wait for it."""
    try:
        return json.dumps(obj).encode()
    except (TypeError, ValueError, RecursionError):
        logger.exception("a value for the other ranks is not JSON")
        return None


def _refuse_unsendable(verb: str, sizes: Sequence[int]) -> None:
    ranks = [str(rank) for rank, size in enumerate(sizes) if size < 0]
    if ranks:
        raise TypeError(
            f"{verb}: the value on rank {', '.join(ranks)} is not JSON. Ranks exchange plain data: text, "
            f"numbers, booleans, None, lists and mappings with text keys."
        )


@contextmanager
def joined(
    launcher: str,
    backend: str,
    timeout_seconds: float,
    environ: Mapping[str, str] = os.environ,
    *,
    leaves: bool = False,
) -> Iterator[Group]:
    """The group of this run: started here and ended here, unless someone else had started it already.

    Models and optimizers that reference the group must be gone before the block ends (gloo aborts or hangs
    otherwise, now and then). With `leaves` the group stays up, since the process is about to end through
    `leave`, as the command line does.
    """
    if _initialised():
        yield _found_group(environ)
    elif launcher == "none":
        yield Group()
    else:
        rank = read_rank(launcher, environ)
        with exported(rendezvous(launcher, rank, environ), os.environ):
            yield from _started(rank, backend, timeout_seconds, leaves=leaves)


def _initialised() -> bool:
    """Asked without importing torch: a group cannot exist before torch.distributed does."""
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and bool(dist.is_initialized())


def _found_group(environ: Mapping[str, str]) -> TorchGroup:
    """A group started by Ray or a notebook: its own word on rank and size, the environment's on the host."""
    import torch.distributed as dist

    size = dist.get_world_size()
    local_rank = whole_number(environ, "LOCAL_RANK", default=0)
    local_size = whole_number(environ, "LOCAL_WORLD_SIZE", default=size if "LOCAL_RANK" in environ else 1)
    rank = Rank(
        rank=dist.get_rank(), local_rank=local_rank, world_size=size, local_world_size=max(local_size, 1)
    )
    return TorchGroup(rank=rank, device=_device(dist.get_backend(), local_rank))


def _started(rank: Rank, backend: str, timeout_seconds: float, *, leaves: bool) -> Iterator[Group]:
    from datetime import timedelta

    import torch.distributed as dist

    device, timeout = _device(backend, rank.local_rank), timedelta(seconds=timeout_seconds)
    store = corner(_meetings, rank.rank, rank.world_size, timeout)
    dist.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world_size, timeout=timeout)
    group = TorchGroup(rank=rank, device=device)
    if leaves:
        yield group
        return
    succeeded = False
    try:
        yield group
        succeeded = True
    finally:
        gc.collect()
        if succeeded and _initialised():
            _barrier_if_possible(group)
        if _initialised():
            dist.destroy_process_group()


_meetings: Meetings = {}
"""Lives as long as this process, as the launch does."""


def _device(backend: str, local_rank: int) -> str:
    """Where collectives run; with nccl this also makes the rank's own GPU the current one."""
    if "gloo" in backend or "nccl" not in backend:
        return "cpu"
    import torch

    index = local_rank % max(torch.cuda.device_count(), 1)
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def _barrier_if_possible(group: Group) -> None:
    try:
        group.barrier()
    except Exception as error:
        logger.warning("the ranks did not end together: %s", error)


@contextmanager
def exported(values: Mapping[str, str], environ: MutableMapping[str, str]) -> Iterator[None]:
    """`values` in `environ` for the length of the block: torch, and what builds on it, reads them there."""
    before = {name: environ.get(name) for name in values}
    environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value


def leave(code: int, flush: Sequence[Callable[[], None]] = (), patience: float = 60.0) -> NoReturn:
    """End this process with `code`, now: no interpreter teardown, in which gloo aborts now and then.

    Args:
        code: the exit code. With an orderly one the ranks wait for each other first.
        flush: what atexit would have done (close a writer, save coverage); called before the streams' turn.
        patience: seconds to wait for the other ranks, who may have died.
    """
    _deafen()
    if code in ORDERLY and _initialised():
        _wait_for_others(patience)
    for step in flush:
        _attempt(step)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _deafen() -> None:
    """From here on a signal would only change the exit code."""
    with suppress(ValueError):  # off the main thread handlers cannot be set
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_IGN)


def _wait_for_others(patience: float) -> None:
    """A barrier in a thread of its own, so that a rank that never comes cannot keep this one."""
    group = _found_group(os.environ)
    waiting = threading.Thread(target=_barrier_if_possible, args=(group,), daemon=True)
    waiting.start()
    waiting.join(patience)


def _attempt(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:
        logger.exception("a last step before leaving failed")


PR_SET_PDEATHSIG = 1


def die_with_parent(environ: Mapping[str, str] = os.environ) -> bool:
    """Have the kernel kill this worker when its launcher dies, even by SIGKILL; True if arranged.

    Only for workers of an elastic agent (ours or torchrun), and only on Linux: a run started from a shell
    must outlive it. To be called early, from the worker's main thread.
    """
    told = environ.get(PARENT)
    if sys.platform != "linux" or (told is None and "TORCHELASTIC_RUN_ID" not in environ):
        return False
    before = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    orphaned = os.getppid() != before or (told is not None and not _alive(int(told)))
    if orphaned:  # the launcher was gone before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
