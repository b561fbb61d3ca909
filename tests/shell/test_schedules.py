"""Schedules in real runs: the LR of every step is the plan's, plateaus follow their metrics, resumes change nothing."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json

import pytest

import flexcore
from flexcore.problems import ConfigError
from shell import report
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

PLATEAU = dict(
    type="ReduceOnPlateauLR", monitor="hits", rule="greater", patience=0, factor=0.5, threshold=0.2
)


def recorded(work_dir):
    """(the last plan, every LR of group 0 that counts)."""
    segments = report.read_segments(work_dir)
    lrs = {i: lr for segment in segments for i, lr, _ in segment.steps}
    return segments[-1].plan, [lrs[i] for i in range(len(lrs))]


def config(work_dir, *schedules, **changes):
    return toys.config(work_dir, param_scheduler=list(schedules), **changes)


@pytest.mark.parametrize("ranks", [1, 2])
def test_overlapping_schedules_are_set_step_by_step(tmp_path, ranks):
    cfg = config(
        tmp_path,
        dict(type="OneCycleLR", eta_max=0.2, by_epoch=False),
        dict(type="StepLR", step_size=5, gamma=0.5, by_epoch=False),
        dict(
            type="CosineRestartMomentum",
            periods=[4, 9],
            restart_weights=[1.0, 0.5],
            eta_min=0.1,
            by_epoch=False,
        ),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)),
    )
    _finished(cfg, ranks)
    plan, lrs = recorded(tmp_path)
    assert lrs == [flexcore.value_at(plan, "lr", i).value for i in range(len(lrs))]
    assert flexcore.value_at(plan, "momentum", 4).value == pytest.approx(0.45)
    assert toys.differences(tmp_path) == []


def _finished(cfg, ranks):
    results = [run_alone(toys.trained, cfg)] if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)
    assert {result["reason"] for result in results} == {"done"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_plateau_follows_its_metric_and_the_report_agrees(tmp_path, ranks):
    _finished(config(tmp_path, PLATEAU), ranks)
    plan, lrs = recorded(tmp_path)
    assert flexcore.value_at(plan).value is None
    assert len(set(lrs)) > 1
    assert toys.differences(tmp_path) == []


def test_a_metric_nobody_reports_is_told(tmp_path):
    with pytest.raises(
        ConfigError, match=r"param_scheduler.0.monitor: is nothing, and the validation reports hits"
    ):
        flexcore_run(config(tmp_path, {**PLATEAU, "monitor": "nothing"}))


def flexcore_run(cfg):
    from shell.execute import run

    return run(cfg)


@pytest.mark.parametrize("stop", [3, 8, 9, 13, 17])
def test_resumed_anywhere_the_values_and_the_weights_are_those_of_one_run(tmp_path, stop):
    """Plateau state, an overlap without a closed form and Adam's momentum, stopped once."""
    schedules = (
        PLATEAU,
        dict(type="CosineAnnealingLR", eta_min=1e-3, by_epoch=False),
        dict(type="StepLR", step_size=1, gamma=0.7),
        dict(type="LinearMomentum", end=20, by_epoch=False),
    )
    _finished(config(tmp_path / "whole", *schedules), 1)
    wish = dict(type="tests.shell.toys:Wishes", stop=stop)
    assert (
        run_alone(toys.trained, config(tmp_path / "cut", *schedules, custom_hooks=[wish]))["reason"] != "done"
    )
    _finished(config(tmp_path / "cut", *schedules), 1)
    assert recorded(tmp_path / "cut")[1] == recorded(tmp_path / "whole")[1]
    assert toys.weights(tmp_path / "cut") == toys.weights(tmp_path / "whole")
    assert toys.differences(tmp_path / "cut") == []


PARAMWISE = dict(
    norm_decay_mult=0.0, bias_lr_mult=2.0, custom_keys={"0": dict(lr_mult=0.1, betas=(0.8, 0.99))}
)


@pytest.mark.parametrize("ranks", [1, 2])
def test_planned_groups_are_the_optimizers_groups(tmp_path, ranks):
    """Each of its own base, moved at each step; the second start restores them by name."""
    cfg = config(
        tmp_path,
        dict(type="LinearLR", by_epoch=False, end=20),
        dict(type="StepMomentum", step_size=1, gamma=0.5),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.05), paramwise_cfg=PARAMWISE),
        custom_hooks=[dict(type="tests.shell.toys:Groups")],
    )
    _finished({**cfg, "train_cfg": dict(by_epoch=True, max_epochs=2)}, ranks)
    _finished(cfg, ranks)
    plan, _ = recorded(tmp_path)
    assert [group.params for group in plan.optimizer.groups] == [
        ("0.weight",),
        ("0.bias",),
        ("3.weight",),
        ("3.bias",),
    ]
    told = json.loads((tmp_path / "groups").read_text())
    assert [group["params"] for group in told] == [["0.weight"], ["0.bias"], ["3.weight"], ["3.bias"]]
    last = plan.timeline.max_iters - 1
    for i, group in enumerate(told):
        assert group["lr"] == flexcore.value_at(plan, "lr", last, i).value
        assert group["weight_decay"] == 0.05
        assert (
            group["beta"]
            == flexcore.value_at(plan, "momentum", last, i).value
            == pytest.approx([0.2, 0.225][i > 1])
        )
    assert toys.differences(tmp_path) == []
