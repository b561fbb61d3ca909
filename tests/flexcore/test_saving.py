"""From CheckpointHook's settings to what is written, named, best and kept; every rule by hand."""

import math

import pytest

from flexcore.hooks import Checkpoint
from flexcore.loops import EpochLoop, IterLoop
from flexcore.run_plan import Best, Saving
from flexcore.saving import (
    GREATER_KEYS,
    LESS_KEYS,
    as_tuple,
    best_name,
    best_rules,
    inferred_rule,
    is_better,
    last_part,
    out_dir,
    published,
    saving,
    timed_name,
)
from flexcore.timeline import SavePoints

EPOCHS, ITERATIONS = EpochLoop(max_epochs=3, val_interval=7), IterLoop(max_iters=30, val_interval=20)


def test_one_name_is_a_list_of_one():
    assert [as_tuple(value) for value in (None, "acc", (), ("acc", "loss"))] == [
        (),
        ("acc",),
        (),
        ("acc", "loss"),
    ]


@pytest.mark.parametrize(("key", "rule"), [
    ("acc", "greater"), ("ACC", "greater"), ("loss", "less"), ("Loss", "less"), ("val_accuracy", "greater"),
    ("my_loss_2", "less"), ("coco/bbox_mAP", "greater"), ("accumulated_loss", "greater"), ("size", None), ("", None),
])  # fmt: skip
def test_which_way_is_better_is_told_by_the_name(key, rule):
    assert inferred_rule(key, GREATER_KEYS, LESS_KEYS) == rule


def test_a_name_given_whole_wins_over_a_part_of_it():
    assert inferred_rule("bad_acc", ("acc",), ("bad_acc",)) == "less"
    assert inferred_rule("loss_kept", ("loss_kept",), ("loss",)) == "greater"
    assert inferred_rule("Both", ("BOTH",), ("both",)) == "greater"
    assert inferred_rule("a_B_c", ("x",), ("B",)) == "less"


@pytest.mark.parametrize(("hook", "expected"), [
    ({}, ()),
    ({"save_best": "acc"}, (Best(key="acc", rule="greater"),)),
    ({"save_best": "auto"}, (Best(key=None, rule=None),)),
    ({"save_best": "auto", "rule": "less"}, (Best(key=None, rule="less"),)),
    ({"save_best": ("acc", "loss")}, (Best(key="acc", rule="greater"), Best(key="loss", rule="less"))),
    ({"save_best": ("acc", "loss"), "rule": "less"}, (Best(key="acc", rule="less"), Best(key="loss", rule="less"))),
    ({"save_best": ("acc", "loss"), "rule": ("less", "greater")},
     (Best(key="acc", rule="less"), Best(key="loss", rule="greater"))),
    ({"save_best": "size"}, (Best(key="size", rule=None),)),
    ({"save_best": "size", "greater_keys": "size"}, (Best(key="size", rule="greater"),)),
    ({"save_best": "acc", "greater_keys": "size"}, (Best(key="acc", rule=None),)),
    ({"save_best": "size", "less_keys": ("size",)}, (Best(key="size", rule="less"),)),
    ({"save_best": "loss", "less_keys": ("size",)}, (Best(key="loss", rule=None),)),
])  # fmt: skip
def test_the_best_of_each_metric_by_its_rule(hook, expected):
    assert best_rules(Checkpoint(**hook)) == expected


@pytest.mark.parametrize(("hook", "loop", "points", "template"), [
    ({}, EPOCHS, (1, True, 0, True), "epoch_{}"),
    ({}, ITERATIONS, (20, False, 0, True), "iter_{}"),
    ({"by_epoch": False}, EPOCHS, (1000, False, 0, True), "iter_{}"),
    ({"by_epoch": True}, ITERATIONS, (1, True, 0, True), "epoch_{}"),
    ({"interval": 5, "save_begin": 2, "save_last": False}, EPOCHS, (5, True, 2, False), "epoch_{}"),
    ({"interval": -1}, EPOCHS, (-1, True, 0, True), "epoch_{}"),
    ({"filename_tmpl": "mine_{}.pth"}, EPOCHS, (1, True, 0, True), "mine_{}"),
    ({"filename_tmpl": ".pth_{}"}, EPOCHS, (1, True, 0, True), ".pth_{}"),
])  # fmt: skip
def test_when_and_under_what_name_a_checkpoint_is_due(hook, loop, points, template):
    names = ("interval", "by_epoch", "save_begin", "save_last")
    found = saving(Checkpoint(**hook), loop)
    assert found.points == SavePoints(**dict(zip(names, points, strict=True)))
    assert found.template == template


def test_the_rest_is_as_it_is_set():
    assert saving(Checkpoint(), EPOCHS) == Saving(
        points=SavePoints(interval=1, by_epoch=True), max_keep=-1, template="epoch_{}", best=(),
        greater_keys=GREATER_KEYS, less_keys=LESS_KEYS, weights_only=False, published=(), every_seconds=None,
        retry_seconds=30.0,
    )  # fmt: skip
    hook = Checkpoint(max_keep_ckpts=3, save_best="x", greater_keys="x", less_keys=("y",), save_optimizer=False,
                      published_keys=("meta", "state_dict"), interval_minutes=1.5, retry_minutes=None)  # fmt: skip
    assert saving(hook, EPOCHS) == Saving(
        points=SavePoints(interval=1, by_epoch=True), max_keep=3, template="epoch_{}",
        best=(Best(key="x", rule="greater"),), greater_keys=("x",), less_keys=("y",), weights_only=True,
        published=("meta", "model"), every_seconds=90.0,
    )  # fmt: skip


def test_what_is_published_is_named_once():
    keys = ("hooks", "state_dict", "model", "nonsense", "optimizer", "meta")
    assert published(Checkpoint(published_keys=keys)) == ("hooks", "model", "optimizer", "meta")
    assert published(Checkpoint(published_keys="state_dict")) == ("model",)
    assert published(Checkpoint()) == ()


@pytest.mark.parametrize(("given", "work_dir", "expected"), [
    (None, "runs/a", None), ("store", "runs/a", "store/a"), ("store/", "runs/a/", "store/a"), ("runs/a", "runs/a", None),
    ("runs/a/", "./runs/a", None), ("./runs/a", "runs/a", None), ("/store", "a", "/store/a"), ("runs", "runs/a", "runs/a"), ("storeX", "runs/aX", "storeX/aX"),
])  # fmt: skip
def test_where_checkpoints_go(given, work_dir, expected):
    assert out_dir(Checkpoint(out_dir=given), work_dir) == expected
    assert out_dir(None, work_dir) is None


def test_the_last_part_of_a_path():
    assert [last_part(path) for path in ("a", "a/b", "/a/b/c/", "./a", "./a/")] == ["a", "b", "c", "a", "a"]


def test_names_of_checkpoints_hold_what_a_file_name_may():
    assert best_name("acc", by_epoch=True, units=5) == "best_acc_epoch_5"
    assert (
        best_name("coco/bbox mAP_50-a.b@1", by_epoch=False, units=7) == "best_coco_bbox_mAP_50-a.b@1_iter_7"
    )
    assert timed_name(12) == "timed_iter_12"


@pytest.mark.parametrize(("rule", "score", "best", "expected"), [
    ("greater", 0.5, None, True), ("less", 0.5, None, True), ("greater", math.nan, None, False),
    ("less", math.nan, 0.5, False), ("greater", 0.6, 0.5, True), ("greater", 0.5, 0.5, False),
    ("greater", 0.4, 0.5, False), ("less", 0.4, 0.5, True), ("less", 0.5, 0.5, False), ("less", 0.6, 0.5, False),
])  # fmt: skip
def test_a_score_is_better_by_its_rule_alone(rule, score, best, expected):
    assert is_better(rule, score, best) is expected
