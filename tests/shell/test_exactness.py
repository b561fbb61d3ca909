"""The numbers are those of a loop anyone would write: over ranks, over repeats, and against raw PyTorch."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
import torch
from torch import nn

import flexcore
from benchmarks.overhead import calls_per_step, planned_run, raw_loop
from flexcore.questions import value_at
from shell.report import read_segments
from tests.ranks import run_alone, run_ranks
from tests.shell import toys


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 0)])
def test_the_same_seed_gives_the_same_bits(ranks, workers, tmp_path):
    """Twice, with dropout and noise in every sample; and another seed gives others."""
    found = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        data = dict(type="tests.shell.toys:Points", n=34, noise=0.5)
        cfg = toys.config(
            tmp_path / name,
            model=dict(type="tests.shell.toys:Net", dropout=0.3),
            train_dataloader=dict(dataset=data, batch_size=4, num_workers=workers),
            randomness=dict(seed=seed),
        )
        if ranks == 1:
            run_alone(toys.trained, cfg)
        else:
            run_ranks(ranks, toys.trained_rank, cfg)
        found.append(toys.weights(tmp_path / name))
    assert found[0] == found[1]
    assert found[0] != found[2]


ORACLES = {
    "plain": dict(),
    "clipped": dict(clip_grad=dict(max_norm=0.05)),
    "carry": dict(accumulative_counts=4),
    "carry, clipped": dict(accumulative_counts=4, clip_grad=dict(max_norm=0.05)),
    "step": dict(accumulative_counts=4, accumulation_tail="step"),
    "drop": dict(accumulative_counts=4, accumulation_tail="drop"),
    "values clipped": dict(clip_grad=dict(type="value", clip_value=0.01)),
}


@pytest.mark.parametrize("wrapper", ORACLES.values(), ids=ORACLES)
def test_weights_are_those_of_a_raw_loop_to_the_bit(wrapper, tmp_path):
    """The loop below asks the plan which samples and which LR, and nothing else of this project."""
    run_alone(
        toys.trained,
        toys.config(tmp_path, optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01), **wrapper)),
    )
    plan = read_segments(tmp_path)[0].plan
    assert run_alone(raw, plan.to_json(), wrapper) == toys.weights(tmp_path)


def raw(text, wrapper):
    """The final weights, by hand; windows are counted here."""
    plan = flexcore.Plan.from_json(text)
    data, order = toys.Points(34), []
    for epoch in range(3):
        indices = list(flexcore.sample_indices(plan, epoch=epoch))
        order.append([indices[i : i + 4] for i in range(0, len(indices), 4)])
    torch.manual_seed(7)
    model = toys.Net()
    optimizer, criterion = torch.optim.AdamW(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    i = 0
    for window in windows(
        order, wrapper.get("accumulative_counts", 1), wrapper.get("accumulation_tail", "carry")
    ):
        for batch in window:
            for group in optimizer.param_groups:
                group["lr"] = value_at(plan, "lr", i).value
            i += 1
            items = [data[index] for index in batch]
            inputs, target = torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])
            loss = criterion(model(inputs), target)
            (loss / len(window)).backward()
        clip = wrapper.get("clip_grad", {})
        if "max_norm" in clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip["max_norm"])
        if "clip_value" in clip:
            nn.utils.clip_grad_value_(model.parameters(), clip["clip_value"])
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def windows(epochs, size, tail):
    """Batches grouped by update: over all epochs, or epoch by epoch with the rest flushed or dropped."""
    if tail == "carry":
        epochs = [[batch for epoch in epochs for batch in epoch]]
    for epoch in epochs:
        for first in range(0, len(epoch), size):
            if tail != "drop" or first + size <= len(epoch):
                yield epoch[first : first + size]


def test_nothing_waits_for_the_device_between_log_points(tmp_path):
    """Reading a tensor's value would: item, tolist, float, int, bool and numpy, counted on every training step."""
    counts = run_alone(counted_reads, toys.config(
        tmp_path, train_cfg=dict(by_epoch=False, max_iters=40, val_interval=1000), val_cfg=None, val_dataloader=None,
        val_evaluator=None, optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.1, momentum=0.9), accumulative_counts=2, clip_grad=dict(max_norm=1.0),
        ),
        default_hooks=dict(logger=dict(type="LoggerHook", interval=10), checkpoint=dict(type="CheckpointHook", interval=20)),
        custom_hooks=[dict(type="tests.shell.test_exactness:Reads")],
    ))  # fmt: skip
    assert [i for i, count in counts if count] == [10, 20, 30, 40]


class Reads:
    """Counts the reads of tensors' values since the last iteration began."""

    made: list = []
    seen: list = []

    def before_train_iter(self, run, **_):
        if run.iter:
            Reads.seen.append((run.iter, len(Reads.made)))
        Reads.made.clear()

    def after_train(self, run):
        Reads.seen.append((run.completed, len(Reads.made)))


def counted_reads(cfg):
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "numpy", "cpu"):
        patch(torch.Tensor, name)
    patch(torch.cuda, "synchronize")
    toys.trained(cfg)
    return Reads.seen


def patch(owner, name):
    real = getattr(owner, name)

    def counted(*args, **kwargs):
        Reads.made.append(name)
        return real(*args, **kwargs)

    setattr(owner, name, counted)


def test_a_step_costs_at_most_sixty_calls_more_than_a_raw_one():
    """Python and C calls of our code and torch's, all default hooks on."""
    ours, theirs = run_alone(calls)
    assert 0 < ours - theirs <= 60


def calls():
    raw_loop()(10)  # what is imported at the first step is not the step's
    planned_run(10)
    return calls_per_step(planned_run, 50, 250), calls_per_step(raw_loop(), 50, 250)
