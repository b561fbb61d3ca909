"""Ranges of plain numbers, loops, wrappers and names: every finding, whole, and the values just inside."""

from math import inf

import pytest

from flexcore import Supplied
from tests.flexcore.base import KNOWN, base, said

AMP = {"type": "AmpOptimWrapper", "dtype": "float16", "optimizer": {"type": "SGD", "lr": 0.1}}


def scaled(**settings):
    return base(optim_wrapper={**AMP, "loss_scale": settings})


def rated(lr):
    return base(optim_wrapper={"optimizer": {"type": "SGD", "lr": lr}})


def iterations(**more):
    return base(train_cfg={"by_epoch": False, "max_iters": 9, **more})


def named(name):
    return base(visualizer={"name": name})


def own(**kwargs):
    return base(train_cfg={"type": "pkg:Loop", **kwargs})


CASES = {
    "an older format": (base(format_version=0), KNOWN, [
        "format_version: must be at least 1, got 0. Correct the value. [FK020]",
    ]),
    "the largest seed": (base(randomness={"seed": 2**32 - 1}), KNOWN, []),
    "any text is a pattern": (base(log_processor={"mean_pattern": ""}), KNOWN, []),
    "iterations": (iterations(max_iters=-1, dynamic_intervals=[[1, 1], [1, 2], [2, 0]]), KNOWN, [
        "train_cfg.max_iters: must be at least 0, got -1. Correct the value. [FK020]",
        "train_cfg.dynamic_intervals.1: starts at iteration 1, not after the one before (1). List milestones in rising order, from 1. [FK020]",
        "train_cfg.dynamic_intervals.2.1: must be at least 1, got 0. Correct the value. [FK020]",
    ]),
    "milestones from 1": (iterations(dynamic_intervals=[[0, 1]]), KNOWN, [
        "train_cfg.dynamic_intervals.0: starts at iteration 0, not after the one before (0). List milestones in rising order, from 1. [FK020]",
    ]),
    "a loop of one's own": (own(max_epochs=0, max_iters=1), KNOWN, [
        "train_cfg.max_epochs: is the length that schedules are planned for, so it must be at least 1, got 0. Correct the value, or rename the argument. [FK020]",
        "train_cfg.max_iters: is given with max_epochs, and schedules can be planned for one length. Keep one of them. [FK019]",
    ]),
    "the greatest component's norm": (
        base(optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}, "clip_grad": {"max_norm": 1, "norm_type": inf}}), KNOWN, []
    ),
    "a fixed loss scale": (base(optim_wrapper={**AMP, "loss_scale": -1.0}), KNOWN, [
        "optim_wrapper.loss_scale: must be a finite number > 0, got -1.0. Correct the value. [FK020]",
    ]),
    "a loss scale at its bounds": (scaled(init_scale=0, growth_factor=1, backoff_factor=1), KNOWN, [
        "optim_wrapper.loss_scale.init_scale: must be a number above 0, got 0. Correct the value. [FK020]",
        "optim_wrapper.loss_scale.growth_factor: must be a number above 1, got 1. Correct the value. [FK020]",
        "optim_wrapper.loss_scale.backoff_factor: must be a number between 0 and 1, got 1. Correct the value. [FK020]",
    ]),
    "a loss scale within": (scaled(init_scale=0.5, growth_factor=1.5, backoff_factor=0.5, growth_interval=1), KNOWN, []),
    "an LR of 0": (rated(0), KNOWN, []),
    "an LR in words": (rated("fast"), KNOWN, [
        "optim_wrapper.optimizer.lr: must be a finite number >= 0, got 'fast'. Correct the LR. [FK020]",
    ]),
    "no end of an LR": (rated(inf), KNOWN, [
        "optim_wrapper.optimizer.lr: must be a finite number >= 0, got inf. Correct the LR. [FK020]",
    ]),
    "a supplied optimizer": (base(optim_wrapper={"optimizer": Supplied()}), KNOWN, []),
    "the directory itself": (named("."), KNOWN, [
        "visualizer.name: is not a usable directory name: '.'. Write a plain name. [FC010]",
    ]),
    "the one above": (named(".."), KNOWN, [
        "visualizer.name: is not a usable directory name: '..'. Write a plain name. [FC010]",
    ]),
    "nothing": (named(" "), KNOWN, [
        "visualizer.name: is not a usable directory name: ' '. Write a plain name. [FC010]",
    ]),
    "a plain name": (named("board"), KNOWN, []),
    "the other separator": (base(experiment_name="a\\b"), KNOWN, [
        "experiment_name: holds a path separator: 'a\\\\b'. Use work_dir for that. [FC010]",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sections(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
