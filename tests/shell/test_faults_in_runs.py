"""A save of a run is struck at a request of rank 0: what had been saved stands, and the run ends with the same bits."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import pathlib
import signal
import time

import pytest

from shell import manifests
from shell.checkpoints import Store
from tests.ranks import run_alone, run_ranks, start_alone, start_ranks
from tests.shell import faulting, toys, tracing

NTH = 3  # of the saves: one that retires another
REQUESTS = (
    f"trace={','.join(tracing.CHANGING)},openat,read,pread64,lseek,newfstatat,getdents64,statfs,fcntl,ioctl"
)


def config(work_dir: pathlib.Path, nth: int | None = None) -> dict:
    """Dropout and noise; a checkpoint every third iteration, two kept."""
    hook = dict(type="CheckpointHook", by_epoch=False, interval=3, max_keep_ckpts=2)
    await_tracer = [] if nth is None else [dict(type="tests.shell.toys:AwaitTracer", nth=nth)]
    return toys.config(
        work_dir,
        model=dict(type="tests.shell.toys:Net", dropout=0.3),
        train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=34, noise=0.5), batch_size=4),
        default_hooks=dict(checkpoint=hook),
        custom_hooks=await_tracer,
    )  # fmt: skip


def finished(cfg: dict, ranks: int) -> dict[str, bytes]:
    """The weights a run ends with, carried to its end."""
    results = [run_alone(toys.trained, cfg)] if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)
    assert {result["reason"] for result in results} == {"done"}
    return toys.weights(pathlib.Path(cfg["work_dir"]))


def traced_run(work_dir: pathlib.Path, ranks: int, *options: str) -> tuple[list[int], list[tracing.Call], tuple[int, ...]]:  # fmt: skip
    """(exit codes, requests of rank 0 from its nth save on, iterations that stood as it began)."""
    cfg = config(work_dir, NTH)
    begun = start_alone(toys.exits, cfg) if ranks == 1 else start_ranks(ranks, toys.exits_rank, cfg)
    with begun as running:
        saving, deadline = work_dir / "saving", time.monotonic() + 60
        while not saving.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        stood = iterations(work_dir)
        with tracing.attached(running.pids[0], REQUESTS, *options, follow=False) as calls:
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


def save_requests(top: pathlib.Path, ranks: int) -> tuple[dict[str, bytes], list[tracing.Call]]:
    """(weights of a run left in peace, what its save asks of the directory of checkpoints retention too, up to the next)."""
    codes, calls, _ = traced_run(top / "whole", ranks)
    assert codes == [0] * ranks
    own = [call for call in calls if f"{top}/whole/checkpoints" in call.arguments]
    begun = [place for place, call in enumerate(own) if call.name == "mkdir"]
    own = own[: begun[1]]
    return toys.weights(top / "whole"), own


def struck(
    work_dir: pathlib.Path, ranks: int, expected: dict[str, bytes], call: tracing.Call, fault: str
) -> None:
    """One run with a fault at one request of its save; killed, it is run again to its end.

    What a failure leaves half deleted is out of sight and the next start's to clear.
    """
    codes, calls, stood = traced_run(work_dir, ranks, tracing.injection(call, fault))
    if fault == "kill":
        assert codes == [-signal.SIGKILL] * ranks
        assert max(iterations(work_dir)) >= max(stood)
        weights = finished(config(work_dir), ranks)
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
def peace(ranks: int):
    with faulting.scratch() as top:
        yield top, *save_requests(top, ranks)


def a_request(calls: list[tracing.Call], name: str, text: str) -> tracing.Call:
    return next(call for call in calls if call.name == name and text in call.arguments)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_struck_save_costs_nothing_that_was_saved(ranks):
    """Killed as it commits; or failing as the manifest is made durable, when training goes on. `make torture`: any request."""
    tracing.needs_strace()
    with peace(ranks) as (top, expected, calls):
        struck(top / "killed", ranks, expected, a_request(calls, "rename", ".tmp-iter_"), "kill")
        struck(top / "failing", ranks, expected, a_request(calls, "fsync", "manifest.json"), "EIO")
