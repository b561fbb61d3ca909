"""A save of a run is struck at a request of rank 0: what had been saved stands, and the run ends with the same bits."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import pathlib
import signal
import time

import pytest
from attrs import frozen

from shell import manifests
from shell.checkpoints import Store
from tests.ranks import run_alone, run_ranks, start_alone, start_ranks
from tests.shell import faulting, toys, tracing

NTH = 3  # of the saves: one that retires another
REQUESTS = (
    f"trace={','.join(tracing.CHANGING)},openat,read,pread64,lseek,newfstatat,getdents64,statfs,fcntl,ioctl"
)


@frozen
class Way:
    """background: training goes on while a checkpoint is written, by another thread."""

    ranks: int = 1
    background: bool = False

    def __str__(self) -> str:
        return f"{self.ranks}{'-background' * self.background}"


def config(work_dir: pathlib.Path, way: Way, nth: int | None = None) -> dict:
    """Dropout and noise; a checkpoint every third iteration, two kept."""
    hook = dict(
        type="CheckpointHook", by_epoch=False, interval=3, max_keep_ckpts=2, async_save=way.background
    )
    await_tracer = [] if nth is None else [dict(type="tests.shell.toys:AwaitTracer", nth=nth)]
    return toys.config(
        work_dir,
        model=dict(type="tests.shell.toys:Net", dropout=0.3),
        train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=34, noise=0.5), batch_size=4),
        default_hooks=dict(checkpoint=hook),
        custom_hooks=await_tracer,
    )  # fmt: skip


def finished(work_dir: pathlib.Path, way: Way) -> dict[str, bytes]:
    """The weights a run ends with, carried to its end."""
    cfg = config(work_dir, way)
    results = (
        [run_alone(toys.trained, cfg)] if way.ranks == 1 else run_ranks(way.ranks, toys.trained_rank, cfg)
    )
    assert {result["reason"] for result in results} == {"done"}
    return toys.weights(work_dir)


def traced_run(work_dir: pathlib.Path, way: Way, *options: str) -> tuple[list[int], list[tracing.Call], tuple[int, ...]]:  # fmt: skip
    """(exit codes, requests of rank 0 from its nth save on, iterations that stood as it began)."""
    cfg = config(work_dir, way, NTH)
    begun = start_alone(toys.exits, cfg) if way.ranks == 1 else start_ranks(way.ranks, toys.exits_rank, cfg)
    with begun as running:
        saving, deadline = work_dir / "saving", time.monotonic() + 60
        while not saving.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        stood = iterations(work_dir)
        with tracing.attached(running.pids[0], REQUESTS, *options, follow=way.background) as calls:
            (work_dir / "traced").touch()
            running.processes[0].join(60)
            if running.processes[0].exitcode == -signal.SIGKILL:
                running.kill(signal.SIGKILL)  # as a launcher ends the others
            codes = running.wait()
    return codes, calls, stood


def iterations(work_dir: pathlib.Path) -> tuple[int, ...]:
    """Of each checkpoint that stands, every byte as it was saved; nothing stands there that is not."""
    found = manifests.scan(work_dir / "checkpoints")
    assert found.damaged == ()
    assert [manifests.verify(one) for one in found.complete] == [()] * len(found.complete)
    return tuple(one.fields["iter"] for one in found.complete)


def save_requests(top: pathlib.Path, way: Way) -> tuple[dict[str, bytes], list[tracing.Call]]:
    """(weights of a run left in peace, what its save asks of the directory of checkpoints, up to the next)."""
    codes, calls, _ = traced_run(top / "whole", way)
    assert codes == [0] * way.ranks
    own = [call for call in calls if f"{top}/whole/checkpoints" in call.arguments]
    begun = [place for place, call in enumerate(own) if call.name == "mkdir"]
    own = own[: begun[1]]
    return toys.weights(top / "whole"), own


def struck(
    work_dir: pathlib.Path, way: Way, expected: dict[str, bytes], call: tracing.Call, fault: str
) -> None:
    """One run with a fault at one request of its save; killed, it is run again to its end.

    What a failure leaves half deleted is out of sight and the next start's to clear.
    """
    codes, calls, stood = traced_run(work_dir, way, tracing.injection(call, fault))
    if fault == "kill":
        assert codes == [-signal.SIGKILL] * way.ranks
        assert max(iterations(work_dir)) >= max(stood)
        weights = finished(work_dir, way)
    else:
        assert {(one.name, one.nth) for one in calls if one.injected} == {(call.name, call.nth)}
        assert set(codes) <= {0, 8}
        weights = toys.weights(work_dir)
    assert weights == expected
    stands = iterations(work_dir)
    Store(work_dir / "checkpoints", "next").sweep()
    assert iterations(work_dir) == stands
    left = [path.name for path in (work_dir / "checkpoints").iterdir() if path.name.startswith(".")]
    assert left == []


@contextlib.contextmanager
def peace(way: Way):
    with faulting.scratch() as top:
        yield top, *save_requests(top, way)


def a_request(calls: list[tracing.Call], name: str, text: str) -> tracing.Call:
    return next(call for call in calls if call.name == name and text in call.arguments)


@pytest.mark.parametrize("way", [Way(), Way(2)], ids=str)
def test_a_struck_save_costs_nothing_that_was_saved(way):
    """Killed as it commits; or failing as the manifest is made durable, when training goes on. `make torture`: any request."""
    tracing.needs_strace()
    with peace(way) as (top, expected, calls):
        struck(top / "killed", way, expected, a_request(calls, "rename", ".tmp-iter_"), "kill")
        struck(top / "failing", way, expected, a_request(calls, "fsync", "manifest.json"), "EIO")
