"""Ranks that have more or fewer batches than each other: none waits, and the plan is what happens."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import os

import pytest
from torch.utils.data import IterableDataset

from tests.ranks import run_ranks
from tests.shell import toys

HERE = "tests.shell.test_uneven"
BY_ITERATIONS = dict(by_epoch=False, max_iters=11)
SIZES = [10, 7]  # samples of each rank: 5 and 4 batches of 2, the last one short
STOP = dict(type="tests.shell.toys:Wishes", stop=6)


class Stream(IterableDataset):
    """Noised points, so many on each rank."""

    def __init__(self, sizes):
        self.rank = int(os.environ["RANK"])
        self.size, self.points = sizes[self.rank], toys.Points(32, noise=0.5)

    def __iter__(self):
        return (self.points[16 * self.rank + i] for i in range(self.size))


class Sized(Stream):
    """The same, with a length."""

    def __len__(self):
        return self.size


class Batches:
    """A batch sampler that makes a batch of two less on rank 1."""

    def __init__(self, sampler, batch_size):
        self.sampler, self.size = sampler, batch_size

    def __len__(self):
        return len(self.sampler) // self.size - int(os.environ["RANK"])

    def __iter__(self):
        indices = iter(self.sampler)
        return ([next(indices) for _ in range(self.size)] for _ in range(len(self)))


class Read:
    """Writes how many samples each batch of this rank has."""

    def before_train_iter(self, run, data_batch, **_):
        with (run.work_dir / f"read.{run.rank}").open("a") as file:
            file.write(f"{len(data_batch[0])} ")


def config(work_dir, dataset, *hooks, **changes):
    work_dir.mkdir(parents=True, exist_ok=True)
    loader = dict(dataset=dataset, batch_size=2, **changes.pop("loader", {}))
    return toys.config(work_dir, **(dict(
        train_dataloader=loader, strategy=dict(type="DDPStrategy"), custom_hooks=[toys.LOSSES, dict(type=f"{HERE}:Read"), *hooks],
        val_dataloader=None, val_evaluator=None, val_cfg=None, train_cfg=dict(by_epoch=True, max_epochs=3),
    ) | changes))  # fmt: skip


def streamed(kind, sizes=SIZES):
    return dict(type=f"{HERE}:{kind}", sizes=sizes)


POINTS = dict(type="tests.shell.toys:Points", n=20, noise=0.5)
WAYS = {
    "streams, by iterations": (streamed("Stream"), dict(train_cfg=BY_ITERATIONS)),
    "streams, by epochs": (streamed("Stream"), dict(loader=dict(num_batch_per_epoch=4))),
    "streams, an epoch longer than a pass": (streamed("Stream"), dict(loader=dict(num_batch_per_epoch=6))),
    "lengths, by iterations": (streamed("Sized"), dict(train_cfg=BY_ITERATIONS)),
    "lengths, by epochs": (streamed("Sized"), dict()),
    "batch samplers": (POINTS, dict(loader=dict(batch_sampler=dict(type=f"{HERE}:Batches")))),
}
READ = {
    "streams, by iterations": ("2 2 2 2 2 2 2 2 2 2 2", "2 2 2 1 2 2 2 1 2 2 2"),
    "streams, by epochs": ("2 2 2 2 2 2 2 2 2 2 2 2", "2 2 2 1 2 2 2 1 2 2 2 1"),
    "streams, an epoch longer than a pass": ("2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2", "2 2 2 1 2 2 2 1 2 2 2 1 2 2 2 1 2 2"),
    "lengths, by iterations": ("2 2 2 2 2 2 2 2 2 2 2", "2 2 2 1 2 2 2 1 2 2 2"),
    "lengths, by epochs": ("2 2 2 2 2 2 2 2 2 2 2 2", "2 2 2 1 2 2 2 1 2 2 2 1"),
    "batch samplers": ("2 2 2 2 2 2 2 2 2 2 2 2", "2 2 2 2 2 2 2 2 2 2 2 2"),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each way whole, and stopped and gone on with: (work_dir of the one, of the other), and what the runs said."""
    root, cfgs = tmp_path_factory.mktemp("uneven"), {}
    for way, (dataset, changes) in WAYS.items():
        cfgs[way, "whole"] = config(root / way / "whole", dataset, **changes)
        cfgs[way, "stopped"] = config(root / way / "part", dataset, STOP, **changes)
        cfgs[way, "part"] = config(root / way / "part", dataset, **changes)
    return root, toys.together(cfgs)


@pytest.mark.parametrize("way", WAYS)
def test_no_rank_waits_and_all_end_where_planned(trained, way):
    """A rank that runs out begins its next pass; known lengths end every pass with the shortest."""
    root, results = trained
    result = results[way, "whole"]
    assert result["reason"] == "done", result
    folder = root / way / "whole"
    assert toys.differences(folder) == []
    assert tuple((folder / f"read.{rank}").read_text().strip() for rank in range(2)) == READ[way]


@pytest.mark.parametrize("way", WAYS)
def test_each_rank_goes_on_where_it_was(trained, way):
    """Ranks stand at different places of different passes, and come back to them, noise and all."""
    root, results = trained
    assert [results[way, name]["reason"] for name in ("stopped", "part")] == ["requested", "done"]
    assert toys.weights(root / way / "part") == toys.weights(root / way / "whole")
    assert toys.losses(root / way / "part", 2) == toys.losses(root / way / "whole", 2)
    assert toys.differences(root / way / "part") == []


@pytest.mark.parametrize("strategy", ["DDPStrategy", "FSDPStrategy"])
def test_uneven_evaluations_end_together_and_count_each_sample_once(strategy, tmp_path):
    """Ranks that share parameters run as many forwards: who runs out repeats a batch, and does not count it."""
    loader = dict(
        dataset=dict(type="tests.shell.toys:Points", n=14),
        batch_size=2,
        batch_sampler=dict(type=f"{HERE}:Batches"),
    )
    cfg = toys.config(
        tmp_path, strategy=dict(type=strategy), train_cfg=dict(by_epoch=True, max_epochs=1), val_dataloader=loader,
        val_evaluator=dict(hits=dict(type="tests.shell.toys:Hits")),
    )  # fmt: skip
    for result in run_ranks(2, toys.trained_rank, cfg):
        assert result["reason"] == "done"
    assert [event["samples"] for event in toys.recorded(tmp_path, "validate")] == [[6 + 4]]
    assert toys.differences(tmp_path) == []


def noticed(rank, cfg):
    return [notice for notice in toys.noticed(cfg) if "FD012" in notice]


def test_the_plan_says_what_is_left_out(tmp_path):
    text = (
        "train_dataloader: has 4 to 5 micro-batches on a rank; a pass is 4 on each, so that none waits for another, and what a "
        "rank has besides is left out. Give each rank as many. [FD012]"
    )
    assert run_ranks(2, noticed, config(tmp_path, streamed("Sized"))) == [[text]] * 2


def test_a_rank_without_a_batch_ends_all_of_them_at_once(tmp_path):
    """The others are told, and do not wait for its gradients."""
    cfg = config(tmp_path, streamed("Stream", sizes=[4, 0]), train_cfg=BY_ITERATIONS)
    text = "train_dataloader: yielded no batch. Give it data. [FD003]"
    assert run_ranks(2, toys.several, [cfg]) == [
        [{"reason": f"PeerFailed: rank 1 failed: {text}"}],
        [{"reason": f"ConfigError: {text}"}],
    ]
