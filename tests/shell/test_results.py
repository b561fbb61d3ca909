"""Every ending has its exit code, DESIGN's table."""

import pytest

import flexcore
from flexcore.problems import ConfigError
from shell import results, settling
from shell.building import BuildError
from shell.holders import Holder
from shell.locking import LockUnavailable, WorkDirLocked
from shell.ranks import LauncherError

PLAN = flexcore.plan(
    {
        "model": {"type": "a:B"},
        "train_dataloader": {"dataset": {"type": "a:C"}, "batch_size": 1},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
    }
)

ENDINGS = {
    ("done", False): 0,
    ("done", True): 8,
    ("time_limit", False): 0,
    ("requested", False): 0,
    ("loss is flat", False): 0,
    ("loss is flat", True): 8,
    ("preempted", False): 75,
    ("preempted", True): 75,
    ("interrupted", False): 130,
    ("interrupted", True): 130,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_exit_code_of_a_result(ending):
    reason, save_failed = ending
    made = results.RunResult(
        reason=reason, metrics={}, epoch=0, iter=0, checkpoints=(), work_dir="w", log_dir=None, save_failed=save_failed, plan=PLAN,
    )  # fmt: skip
    assert made.exit_code == ENDINGS[ending]


def test_the_table_is_designs():
    assert dict(results.EXIT_CODES) == {
        "done": 0, "early_stopping": 0, "time_limit": 0, "requested": 0, "usage": 2, "stale": 3, "checkpoint": 4,
        "hang": 5, "nonfinite": 6,
        "locked": 7, "save_failed": 8, "preempted": 75, "interrupted": 130,
    }  # fmt: skip


ERRORS = [
    (ConfigError([]), 2),
    (BuildError(("model",), PLAN.model, ValueError("x")), 2),
    (LauncherError("x"), 2),
    (LockUnavailable("w", "read-only"), 2),
    (results.StalePlan([("world_size", 1, 2)]), 3),
    (results.CheckpointRefused("x"), 4),
    (WorkDirLocked("w", Holder()), 7),
    (settling.PeerFailed(1, "x", 4), 4),
    (RuntimeError("x"), 1),
    (KeyError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_exit_code_of_an_error(error, code):
    assert settling.code_of(error) == code


def test_a_stale_plan_says_each_difference():
    assert str(results.StalePlan([("world_size", 2, 1), ("train_samples", 10, 12)])) == (
        "The plan does not fit this run:\n"
        "world_size: the plan rests on 2, and here it is 1.\n"
        "train_samples: the plan rests on 10, and here it is 12.\n"
        "Plan again, or restore what changed."
    )
