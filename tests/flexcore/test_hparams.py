"""A run as trackers lay it beside others: flat names, single values."""

import flexcore
from flexcore import Facts
from flexcore.hparams import hparams
from tests.flexcore.base import KNOWN, planned, validating

MADE = (
    ("plan.mode", "train"), ("plan.strategy", "SingleDeviceStrategy"), ("plan.world_size", 1), ("plan.seed", 1),
    ("plan.global_batch_size", 4), ("plan.max_iters", 75),
)  # fmt: skip


def test_what_was_asked_for_and_what_the_plan_made_of_it():
    """Lists of mappings go by place, other lists as JSON text; what is None has no value to show."""
    hook = {
        "type": "pkg:Hook", "at": [1, 2], "pair": (1, 2), "odd": {"x": True, "y": None, 3: {}},
        "parts": [{"a": 1}, {"a": None}, 5],
    }  # fmt: skip
    assert hparams(planned(KNOWN, custom_hooks=[hook])) == (
        ("model.type", "pkg.models:Net"), ("model.width", 8), ("work_dir", "runs/base"), ("experiment_name", "base"),
        ("train_dataloader.dataset.type", "pkg.data:Digits"), ("train_dataloader.batch_size", 4),
        ("optim_wrapper.type", "OptimWrapper"), ("optim_wrapper.optimizer.type", "SGD"), ("optim_wrapper.optimizer.lr", 0.1),
        ("train_cfg.type", "EpochBasedTrainLoop"), ("train_cfg.max_epochs", 3),
        ("custom_hooks.0.type", "pkg:Hook"), ("custom_hooks.0.at", "[1, 2]"), ("custom_hooks.0.pair.$tuple", "[1, 2]"),
        ("custom_hooks.0.odd.$entries", '[["x", true], ["y", null], [3, {}]]'),
        ("custom_hooks.0.parts.0.a", 1), ("custom_hooks.0.parts.2", 5), ("randomness.seed", 1), *MADE,
    )  # fmt: skip


def test_only_the_keys_asked_for():
    evaluation = flexcore.plan(validating(), Facts(world_size=1), mode="val")
    assert hparams(planned(KNOWN), ()) == MADE
    assert hparams(evaluation, ("model", "elsewhere")) == (
        ("model.type", "pkg.models:Net"), ("model.width", 8), ("plan.mode", "val"), *MADE[1:4],
    )  # fmt: skip
