"""Checkpoints written behind the training are those written in front of it, and no stop, kill or full disk loses one."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import errno
import json
import os
import pathlib
import time

import pytest

from shell import manifests
from shell.checkpoints import Store
from tests.ranks import run_alone, run_ranks, start_alone
from tests.shell import toys

ADAMW = dict(optimizer=dict(type="AdamW", lr=0.01))


def config(work_dir, behind=True, hooks=(), strategy=None, **settings):
    saves = dict(type="CheckpointHook", async_save=behind) | (
        settings or dict(save_best="hits", rule="greater")
    )
    return toys.config(
        work_dir, optim_wrapper=ADAMW, strategy=strategy, custom_hooks=[dict(type="EMAHook"), *hooks],
        default_hooks=dict(logger=dict(type="LoggerHook", interval=1), checkpoint=saves),
    )  # fmt: skip


def slowly(cfg, seconds=0.05, full=None):
    """Train on a disk that takes its time for every fsync, and that has no room for what is named `full`."""
    sync = os.fsync

    def late(descriptor):
        time.sleep(seconds)
        if full is not None and f"/.tmp-{full}-" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    os.fsync = late
    return toys.trained(cfg)


def slow_rank(rank, cfg):
    return slowly(cfg)


def standing(work_dir):
    """Everything that a resume takes, of each checkpoint: its tensors to the bit, its state, where it stands."""
    found = {}
    for manifest in manifests.scan(work_dir / "checkpoints").complete:
        loaded = Store(work_dir, "test").load(manifest.path)
        tensors = {
            (stem, key): t.numpy().tobytes()
            for stem in loaded.stems
            for key, t in loaded.tensors(stem).items()
        }
        found[manifest.name] = tensors, {
            key: manifest.fields[key] for key in ("state", "iter", "epoch", "validated", "best", "retire", "resumable")
        }  # fmt: skip
    return found


LAYOUTS = {
    "single": (1, None),
    "ddp": (2, dict(type="DDPStrategy")),
    "fsdp": (2, dict(type="FSDPStrategy")),
}


@pytest.mark.parametrize(("ranks", "strategy"), LAYOUTS.values(), ids=LAYOUTS)
def test_what_is_written_behind_is_what_is_written_in_front(ranks, strategy, tmp_path):
    """On a slow disk, weights and state have moved on long before the first byte of them is written."""
    front, behind = tmp_path / "front", tmp_path / "behind"
    for place, rank, alone in ((front, toys.trained_rank, toys.trained), (behind, slow_rank, slowly)):
        cfg = config(place, place == behind, strategy=strategy)
        result = run_alone(alone, cfg) if ranks == 1 else run_ranks(ranks, rank, cfg)[0]
        assert result["reason"] == "done"
    assert standing(behind) == standing(front)
    assert toys.differences(behind) == []
    events = [json.loads(line) for file in behind.glob("*/events.jsonl") for line in file.open()]
    told = [(e["event"], e["iter"]) for e in events if e["event"] in ("log", "save")]
    assert any(("log", at + 2) in told[:i] for i, (event, at) in enumerate(told) if event == "save")


def test_a_kill_while_one_is_on_its_way_costs_that_one_alone(tmp_path):
    """The run goes on from the one before, and ends with the bits and the record of one that nothing befell."""
    hook = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=19)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert start_alone(slowly, config(killed, hooks=[hook], interval=1), 0.3).wait() == [-9]
    assert [m.name for m in manifests.scan(killed / "checkpoints").complete] == ["epoch_1"]
    run_alone(toys.trained, config(killed, hooks=[hook], interval=1))
    run_alone(toys.trained, config(whole, interval=1))
    assert toys.weights(killed) == toys.weights(whole)
    assert toys.differences(killed) == []


def test_a_signal_waits_for_the_one_on_its_way(tmp_path):
    hook = dict(type="tests.shell.toys:SignalAt", at=[[10, 15]])
    result = run_alone(slowly, config(tmp_path, hooks=[hook]))
    assert (result["reason"], result["code"]) == ("preempted", 75)
    assert result["checkpoints"] == ["epoch_1", "best_hits_epoch_1", "stopped_iter_11"]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == sorted(result["checkpoints"])


def test_a_run_that_fails_leaves_the_one_on_its_way_whole(tmp_path):
    hook = dict(type="tests.shell.toys:Breaks", at=10)
    with pytest.raises(RuntimeError, match="breaks"):
        run_alone(slowly, config(tmp_path, hooks=[hook], interval=1))
    assert os.listdir(tmp_path / "checkpoints") == ["epoch_1"]


def test_one_that_does_not_get_there_never_was(tmp_path):
    """What the disk had no room for is told, retires nothing, and stands in no later checkpoint's account."""
    result = run_alone(slowly, config(tmp_path, max_keep_ckpts=1), 0.01, "epoch_2")
    assert result["code"] == 0  # of one that is kept, epoch_3 stands
    failed = toys.recorded(tmp_path, "save_failed")[0]
    assert failed["name"] == "epoch_2"
    assert "No space left" in failed["reason"]
    hooks = manifests.scan(tmp_path / "checkpoints").complete[-1].fields["state"]["hooks"]
    assert hooks["CheckpointHook"]["standing"] == ["epoch_3"]
    assert [e["name"] for e in toys.recorded(tmp_path, "remove")] == ["epoch_1"]
    assert sorted(p.name for p in pathlib.Path(tmp_path, "checkpoints").iterdir()) == ["epoch_3"]
