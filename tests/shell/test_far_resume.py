"""A resume after 10^6 iterations finds its samples by arithmetic: not one that was skipped is read."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import os
import time

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from flexcore.questions import window_samples
from shell.checkpoints import Store
from tests.ranks import run_alone
from tests.shell import toys

FAR, BATCH, SAMPLES = 10**6, 4, 10_007
HERE = "tests.shell.test_far_resume"


class Counted(Dataset):
    """Appends the index of each sample that is read to a file, whichever process reads it."""

    def __init__(self, log):
        self.log = log

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        noted(self.log, index)
        return torch.full((toys.FEATURES,), index / SAMPLES), index % toys.CLASSES


class Counting(IterableDataset):
    def __init__(self, log):
        self.log = log

    def __iter__(self):
        for index in range(10**9):
            noted(self.log, index)
            yield torch.full((toys.FEATURES,), 0.5), index % toys.CLASSES


def noted(log, index):
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"%d\n" % index)
    os.close(descriptor)


class FirstBatch:
    """Notes how long after the process began to train its first batch was there."""

    def before_run(self, run):
        self.began = time.perf_counter()

    def before_train_iter(self, run, **_):
        if not (run.work_dir / "first").exists():
            (run.work_dir / "first").write_text(str(time.perf_counter() - self.began))


def config(work_dir, stop, dataset="Counted", **loader):
    log = str(work_dir / "reads")
    return toys.config(
        work_dir,
        train_dataloader=dict(dataset=dict(type=f"{HERE}:{dataset}", log=log), batch_size=BATCH, **loader),
        train_cfg=dict(by_epoch=False, max_iters=2 * FAR, val_interval=10 * FAR),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=FAR)),
        custom_hooks=[dict(type="tests.shell.toys:Wishes", stop=stop), dict(type=f"{HERE}:FirstBatch")],
    )


def moved(work_dir, to):
    """The stopped run's checkpoint as one of after so many iterations."""
    Store(work_dir / "checkpoints", "run").amend("stopped_iter_2", lambda fields: {**fields, "iter": to})


def plan_of(cfg):
    from shell.execute import run

    return run(cfg).plan


def resumed(work_dir, to, **more):
    """(the samples read in order, the plan) of a start that goes on after `to` iterations and stops after three."""
    assert run_alone(toys.trained, config(work_dir, 1, **more))["iter"] == 2
    run_alone(moved, work_dir, to)
    for left in ("reads", "first"):
        (work_dir / left).unlink()
    plan = run_alone(plan_of, config(work_dir, to + 2, **more))
    return [int(line) for line in (work_dir / "reads").read_text().split()], plan


EPOCH = -(-SAMPLES // BATCH)
FIRST = {"DefaultSampler": FAR % EPOCH * BATCH, "InfiniteSampler": FAR * BATCH % SAMPLES}
"""Where in the dataset an unshuffled order stands after FAR batches: in padded epochs, and in one endless stream."""


@pytest.mark.parametrize(
    ("sampler", "shuffle", "workers"),
    [
        ("DefaultSampler", True, 2), ("DefaultSampler", False, 0),
        ("InfiniteSampler", True, 0), ("InfiniteSampler", False, 2),
    ],
)  # fmt: skip
def test_no_skipped_sample_is_read(sampler, shuffle, workers, tmp_path):
    """Each one read is of the three batches that follow, or of those that workers fetch ahead of them."""
    read, plan = resumed(tmp_path, FAR, sampler=dict(type=sampler, shuffle=shuffle), num_workers=workers)
    assert plan.start.iter == FAR
    ahead = 2 * workers
    planned = [window_samples(plan, FAR + i) for i in range(3 + ahead)]
    if not shuffle:
        assert planned[0] == tuple(range(FIRST[sampler], FIRST[sampler] + BATCH))
    due = [index for batch in planned for index in batch]
    assert set(due[: 3 * BATCH]) <= set(read) <= set(due)
    assert len(read) <= len(due)
    if workers == 0:
        assert read == due
    assert [event["iter"] for event in toys.recorded(tmp_path, "start")] == [0, FAR]
    print(
        f"{sampler}, shuffle {shuffle}, {workers} workers: first batch after {(tmp_path / 'first').read_text()} s"
    )


def test_what_only_iterates_is_read_again_and_the_plan_says_so(tmp_path):
    assert run_alone(toys.trained, config(tmp_path, 49, dataset="Counting"))["iter"] == 50
    (tmp_path / "reads").unlink()
    plan = run_alone(plan_of, config(tmp_path, 52, dataset="Counting"))
    assert [int(line) for line in (tmp_path / "reads").read_text().split()] == list(range(53 * BATCH))
    assert any("replay" in str(notice) for notice in plan.notices), [str(notice) for notice in plan.notices]
