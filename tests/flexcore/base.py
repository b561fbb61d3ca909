"""One small valid config and the digits-like one, for tests that change a key."""

from typing import Any

import flexcore
from flexcore import Facts
from flexcore.sampling import Order, indices

KNOWN = Facts(
    world_size=1, train_samples=100, val_samples=(10,), test_samples=(10,), device_type="cpu", entropy=5,
    started_at="20260102_030405", checkpoints=(),
)  # fmt: skip


def base(**changes: Any) -> dict[str, Any]:
    """Trains for 3 epochs of 25 iterations with KNOWN; top-level keys are replaced, None removes one."""
    config = {
        "model": {"type": "pkg.models:Net", "width": 8},
        "work_dir": "runs/base",
        "experiment_name": "base",
        "train_dataloader": {"dataset": {"type": "pkg.data:Digits"}, "batch_size": 4},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        "randomness": {"seed": 1},
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not None}


def validating(**changes: Any) -> dict[str, Any]:
    return base(**{
        "val_dataloader": {"dataset": {"type": "pkg.data:Digits"}, "batch_size": 5},
        "val_evaluator": {"type": "pkg.metrics:TopAccuracy"},
        "val_cfg": {},
        **changes,
    })  # fmt: skip


def planned(facts: Facts = Facts(), **changes: Any) -> flexcore.Plan:
    return flexcore.plan(base(**changes), facts)


def epoch_indices(order: Order, epoch: int, rank: int) -> list[int]:
    """One rank's indices of a whole epoch."""
    return [i for micro_batch in range(order.micro_batches) for i in indices(order, epoch, micro_batch, rank)]


def told(config: Any, facts: Facts = KNOWN, **more: Any) -> list[str]:
    """Every error and warning as the reader sees it."""
    return [str(problem) for problem in flexcore.lint(config, facts, **more) if problem.severity != "info"]


def said(config: Any, facts: Facts = KNOWN) -> list[str]:
    """Every finding as the reader sees it, notes included."""
    return [str(problem) for problem in flexcore.lint(config, facts)]


DIGITS = {
    "model": {"type": "examples.digits:Net", "width": 32, "norm_cfg": {"type": "BN"}},
    "work_dir": "work_dirs/digits",
    "experiment_name": "digits",
    "loss": {"type": "torch.nn:CrossEntropyLoss"},
    "train_dataloader": {
        "dataset": {"type": "examples.digits:Digits", "split": "train"}, "batch_size": 64, "num_workers": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": True}, "drop_last": True,
    },
    "optim_wrapper": {
        "type": "AmpOptimWrapper", "dtype": "bfloat16", "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
        "accumulative_counts": 2, "clip_grad": {"max_norm": 1.0},
    },
    "auto_scale_lr": {"enable": True, "base_batch_size": 64},
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 10},
        {"type": "CosineAnnealingLR", "by_epoch": True, "begin": 1, "convert_to_iter_based": True, "eta_min": 1e-4},
    ],
    "train_cfg": {"by_epoch": True, "max_epochs": 5, "val_interval": 2, "max_time": 600},
    "val_dataloader": {
        "digits": {"dataset": {"type": "examples.digits:Digits", "split": "val"}, "batch_size": 128},
        "shifted": {"dataset": {"type": "examples.digits:Digits", "split": "val", "shift": (1, 2)}, "batch_size": 128},
    },
    "val_evaluator": {"acc": {"type": "examples.digits:Accuracy"}, "loss": {"type": "examples.digits:Loss"}},
    "val_cfg": {},
    "default_hooks": {
        "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2, "save_best": ["acc", "loss"]},
        "timer": None,
    },
    "custom_hooks": [{"type": "examples.digits:Hook", "priority": "LOW"}],
    "randomness": {"seed": 7},
}  # fmt: skip
