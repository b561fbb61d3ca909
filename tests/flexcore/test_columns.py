"""World sizes side by side, whole: counted by hand from 103 samples in micro-batches of 4."""

import re

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied
from flexcore.columns import side_by_side
from tests.flexcore.base import KNOWN, base, validating

SEEN = evolve(KNOWN, train_samples=103)
SIXTY = {"train_cfg": {"by_epoch": False, "max_iters": 60}}
SGD = {"type": "SGD", "lr": 0.1}


def loader(**more):
    return {"train_dataloader": {"dataset": "p:D", "batch_size": 4, **more}}


def rows(config, world_sizes, facts=SEEN, **more):
    """The table's cells by the names of the rows."""
    text = side_by_side(flexcore.plan(config, facts, **more), world_sizes)
    cells = (re.split(" {2,}", line) for line in text.splitlines())
    return {name: rest for name, *rest in cells}


def test_a_table_and_why_some_have_no_plan():
    """26 iterations on one rank, the last of 3 samples; two ranks with 2 accumulated fill 104 samples."""
    schedules = [
        {"type": "LinearLR", "by_epoch": False, "end": 10},
        {"type": "PolyLR", "by_epoch": False, "eta_min": 0.001},
    ]
    config = base(param_scheduler=schedules, train_cfg={"by_epoch": True, "max_epochs": 1000})
    assert side_by_side(flexcore.plan(config, SEEN), (1, 2)) == """\
world size                1        2
micro batch               4        4
accumulation              1        1
global batch              4        8
lr at start         0.03333  0.03333
lr at the end         0.001    0.001
iterations           26,000   13,000
optimizer steps      26,000   13,000
samples             103,000  104,000
dropped per epoch         0        0
repeated per epoch        0        1"""  # fmt: skip
    assert side_by_side(flexcore.plan(base(global_batch_size=16), KNOWN), (1, 3, 1500)) == """\
world size            1  3  1,500
micro batch           4  -      -
accumulation          4  -      -
global batch         16  -      -
lr at start         0.1  -      -
lr at the end       0.1  -      -
iterations           21  -      -
optimizer steps      21  -      -
samples             336  -      -
dropped per epoch     0  -      -
repeated per epoch   12  -      -
3 ranks: global_batch_size: 16 is not a multiple of micro_batch_size 4 x data_parallel_size 3 = 12. Nearest valid: 12 or 24. [FD002]
1,500 ranks: global_batch_size: 16 is not a multiple of micro_batch_size 4 x data_parallel_size 1500 = 6000. Nearest valid: 6000. [FD002]"""  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        (loader(drop_last=True), {}, ["300", "312"]),
        ({**SIXTY, **loader()}, {}, ["238", "480"]),
        ({**SIXTY, **loader(sampler="InfiniteSampler")}, {}, ["240", "480"]),
        ({**SIXTY, **loader(), "global_batch_size": 24}, {}, ["1,440", "1,440"]),
        ({**SIXTY, **loader(), "global_batch_size": 24}, {"train_samples": 120}, ["1,440", "1,440"]),
        ({"train_cfg": {"by_epoch": False, "max_iters": 3}, "global_batch_size": 24}, {}, ["72", "72"]),
        (loader(sampler="p:S"), {"train_batches": 7}, ["84", "168"]),
        ({"train_cfg": {"by_epoch": True, "max_epochs": 0}}, {}, ["0", "0"]),
    ],
)  # fmt: skip
def test_samples_of_all_ranks_in_the_whole_run(changes, facts, expected):
    """Short last batches count as they are, and what is repeated twice; a stream's batches are full."""
    assert rows(base(**changes), (1, 2), evolve(SEEN, **facts))["samples"] == expected


def test_several_optimizers_have_rows_of_their_own():
    several = {"one": {"optimizer": {**SGD, "lr": 1 / 3}}, "other": {"optimizer": SGD}}
    linear = [{"type": "LinearLR", "by_epoch": False, "begin": 25, "end": 27, "start_factor": 0.5}]
    config = base(
        optim_wrapper=several,
        param_scheduler={"one": [], "other": linear},
        train_cfg={"by_epoch": True, "max_epochs": 1},
    )
    assert rows(config, (1,), evolve(SEEN, train_step=True)) == {
        "world size": ["1"], "micro batch": ["4"], "accumulation": ["1"], "global batch": ["4"],
        "one lr at start": ["0.3333"], "one lr at the end": ["0.3333"], "other lr at start": ["0.1"],
        "other lr at the end": ["0.05"], "iterations": ["26"], "optimizer steps": ["?"], "samples": ["103"],
        "dropped per epoch": ["0"], "repeated per epoch": ["0"],
    }  # fmt: skip


def test_what_is_unknown_or_far_is_a_question_mark():
    """And an evaluation has nothing to lay side by side."""
    unseen = rows(base(train_dataloader=Supplied()), (1,), Facts())
    assert list(unseen.values()) == [["1"], ["?"], ["1"], ["?"], ["0.1"], *[["?"]] * 6]
    raised = {
        "type": "CosineAnnealingLR",
        "by_epoch": False,
        "eta_min": 0.01,
        "end": 5 * 10**5,
        "T_max": 10**5,
    }
    walked = {"param_scheduler": [raised, {"type": "LinearLR", "by_epoch": False, "end": 10**6}]}
    far = rows(base(**walked, train_cfg={"by_epoch": False, "max_iters": 10**6}), (1,))
    assert (far["lr at start"], far["lr at the end"], far["iterations"]) == (
        ["0.03333"],
        ["?"],
        ["1,000,000"],
    )
    nothing = rows(base(train_cfg={"by_epoch": True, "max_epochs": 0}), (1,))
    assert (nothing["lr at start"], nothing["lr at the end"]) == (["0.1"], ["?"])
    assert list(rows(validating(), (1, 2), mode="val").values()) == [["1", "2"], *[["-", "-"]] * 8]
