"""Random runnable configs, and the running of them: what the plan says is compared with what is done."""

import os
import pathlib
import random
import shutil
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import flexcore
from flexcore import ConfigError, Facts
from shell.execute import execute
from shell.report import read_segments

HERE = "tests.shell.random_configs"


class Points(Dataset):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor([float(index), 1.0]) / self.n
        return x, x.sum().reshape(1)


class Counting(torch.optim.SGD):
    """SGD that counts its steps."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        Counting.steps += 1
        return super().step(closure)


class Error:
    """Mean absolute error, gathered exactly by counting here; one process's share under DDP."""

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.total += float((output - target).abs().sum())
        self.count += len(target)

    def compute(self) -> float:
        sums = torch.tensor([self.total, float(self.count)], dtype=torch.float64)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1])


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.2), nn.Linear(3, 1))


def config(rng: random.Random) -> dict[str, Any]:
    """One config; it may turn out to have no plan (a zero-step epoch, a schedule past the end)."""
    by_epoch = rng.random() < 0.5
    made: dict[str, Any] = {
        "model": {"type": f"{HERE}:model"},
        "loss": {"type": "torch.nn:MSELoss"},
        "train_dataloader": _loader(rng, train=True, by_epoch=by_epoch),
        "train_cfg": _loop(rng, by_epoch),
        "optim_wrapper": _wrapper(rng),
        "param_scheduler": [_schedule(rng) for _ in range(rng.choice((0, 0, 1, 1, 2)))],
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": rng.randint(1, 9)},
            "checkpoint": _checkpoint(rng, by_epoch),
        },
        "randomness": {"seed": rng.randint(0, 99)},
        "visualizer": {"vis_backends": []},
        "log_level": "ERROR",
    }
    if rng.random() < 0.4:
        made["global_batch_size"] = made["train_dataloader"]["batch_size"] * rng.choice((2, 4, 6))
        made["optim_wrapper"].pop("accumulative_counts", None)
    if rng.random() < 0.7:
        loaders = [_loader(rng, train=False, by_epoch=True) for _ in range(rng.choice((1, 1, 2)))]
        made |= {
            "val_dataloader": loaders,
            "val_cfg": {},
            "val_evaluator": {"loss": {"type": f"{HERE}:Error"}},
        }
    elif "save_best" in made["default_hooks"]["checkpoint"]:
        del made["default_hooks"]["checkpoint"]["save_best"]
    if len(made.get("val_dataloader", ())) == 2 and "save_best" in made["default_hooks"]["checkpoint"]:
        made["default_hooks"]["checkpoint"]["save_best"] = "0/loss"
    return made


def _loader(rng: random.Random, *, train: bool, by_epoch: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "dataset": {"type": f"{HERE}:Points", "n": rng.randint(1, 40)},
        "batch_size": rng.randint(1, 6),
    }
    if rng.random() < 0.3:
        made["drop_last"] = True
    if train and rng.random() < 0.5:
        made["sampler"] = {
            "type": rng.choice(("DefaultSampler", "InfiniteSampler")),
            "shuffle": rng.random() < 0.7,
        }
    if train and rng.random() < 0.15:
        made["num_batch_per_epoch"] = rng.randint(1, 5)
    return made


def _loop(rng: random.Random, by_epoch: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "by_epoch": by_epoch,
        "val_begin": rng.randint(0, 3),
        "val_interval": rng.randint(1, 4),
    }
    made["max_epochs" if by_epoch else "max_iters"] = rng.randint(1, 4) if by_epoch else rng.randint(1, 30)
    if rng.random() < 0.3:
        made["dynamic_intervals"] = [
            (rng.randint(2, 4), rng.randint(1, 3)),
            (rng.randint(5, 9), rng.randint(1, 2)),
        ]
    return made


def _wrapper(rng: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"optimizer": {"type": f"{HERE}:Counting", "lr": 0.05, "momentum": 0.9}}
    if rng.random() < 0.6:
        made |= {
            "accumulative_counts": rng.randint(1, 4),
            "accumulation_tail": rng.choice(("carry", "step", "drop")),
        }
    if rng.random() < 0.4:
        made["clip_grad"] = rng.choice(({"max_norm": 0.5}, {"type": "value", "clip_value": 0.1}))
    if rng.random() < 0.2:
        made |= {"type": "AmpOptimWrapper", "dtype": "bfloat16"}
    return made


def _schedule(rng: random.Random) -> dict[str, Any]:
    begin = rng.choice((0, 0, 1, 3))
    made: dict[str, Any] = rng.choice((
        {"type": "LinearLR", "start_factor": 0.1}, {"type": "ConstantLR", "factor": 0.5}, {"type": "ExponentialLR", "gamma": 0.9},
        {"type": "StepLR", "step_size": 2, "gamma": 0.5}, {"type": "MultiStepLR", "milestones": [1, 4], "gamma": 0.3},
        {"type": "CosineAnnealingLR"}, {"type": "PolyLR", "power": 2.0}, {"type": "StepMomentum", "step_size": 3, "gamma": 0.9},
    ))  # fmt: skip
    made = {**made, "begin": begin}
    if rng.random() < 0.5:
        made["end"] = begin + rng.randint(1, 8)
    return made


def _checkpoint(rng: random.Random, by_epoch: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "CheckpointHook",
        "interval": rng.randint(1, 5),
        "save_last": rng.random() < 0.7,
    }
    made["by_epoch"] = by_epoch and rng.random() < 0.5
    made["save_begin"] = rng.choice((0, 0, 2))
    made["max_keep_ckpts"] = rng.choice((-1, 1, 2))
    if rng.random() < 0.5:
        made["save_best"] = "loss"
    return made


def run_many(rank: int, seed: int, count: int, work_dir: str) -> list[str]:
    """Make configs until `count` have run; what was not as planned, and the config it was so with."""
    rng, wrong, ran = random.Random(seed), [], 0
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        torch.distributed.init_process_group("gloo")  # once for all runs: execute() uses a group it finds
    while ran < count:
        made = {**config(rng), "work_dir": f"{work_dir}/{seed}_{ran}"}
        data = made["train_dataloader"]["dataset"]["n"]
        try:
            flexcore.plan(
                made, Facts(world_size=world_size, train_samples=data, device_type="cpu", entropy=1)
            )
        except ConfigError:
            continue
        ran += 1
        wrong += [f"{made}: {text}" for text in differences(made, rank)]
    return wrong


def differences(made: dict[str, Any], rank: int) -> list[str]:
    """Run one config; every way in which it was not as planned."""
    Counting.steps = 0
    result = execute(flexcore.plan(made, Facts()))
    clock = result.plan.timeline
    found = []
    if clock.optimizer_steps != Counting.steps:
        found.append(f"{Counting.steps} optimizer steps, planned {clock.optimizer_steps}")
    if result.iter != clock.max_iters:
        found.append(f"{result.iter} iterations, planned {clock.max_iters}")
    if rank == 0:
        from flexcore.comparing import compared

        found += [str(d) for d in compared(read_segments(pathlib.Path(result.work_dir))).differences]
        names = {save.name for save in flexcore.saves(result.plan, best=False)}
        standing = {
            path.name
            for path in pathlib.Path(result.plan.names.checkpoint_dir).glob("*")
            if path.name in names
        }
        if standing != set(flexcore.kept(result.plan, after=result.iter)):
            found.append(f"{sorted(standing)} stand, planned {flexcore.kept(result.plan, after=result.iter)}")
        shutil.rmtree(result.work_dir)
    return found
