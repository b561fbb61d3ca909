"""Models, data, metrics and hooks for the tests of built-in hooks; a config names them "tests.shell.hook_toys:Name"."""

import json
from typing import Any

import torch
from torch import nn

from tests.shell import toys
from tests.shell.toys import CLASSES, FEATURES, Points

HERE = "tests.shell.hook_toys"


class Normed(nn.Sequential):
    """Has floating-point buffers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))


class Spoiled(Points):
    """One sample is not a number."""

    def __init__(self, n: int, bad: int) -> None:
        super().__init__(n)
        self.inputs[bad] = float("nan")


class Mean:
    """The mean output: tells any two sets of weights apart."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total = torch.zeros(2, dtype=torch.float64)

    def update(self, outputs: torch.Tensor, target: torch.Tensor) -> None:
        self.total += torch.tensor([outputs.double().sum(), outputs.numel()], dtype=torch.float64)

    def compute(self) -> float:
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.total)
        return float(self.total[0] / self.total[1])


class ByHand:
    """Averages as written down in words, one tensor at a time; notes what an evaluation ran with."""

    trail: list["ByHand"] = []

    def __init__(self, kind: str, momentum: float, interval: int = 1, gamma: int = 0, begin: int = 0) -> None:
        self.kind, self.momentum, self.interval, self.gamma, self.begin = (
            kind,
            momentum,
            interval,
            gamma,
            begin,
        )
        self.steps, self.averages, self.seen = 0, {}, []
        ByHand.trail.append(self)

    def after_train_iter(self, run: Any, **_: Any) -> None:
        if run.iter < self.begin:
            return
        for name, source in run.model.named_parameters():
            if self.steps == 0:
                self.averages[name] = source.detach().clone()
            elif self.steps % self.interval == 0:
                average = self.averages[name]
                if self.kind == "StochasticWeightAverage":
                    average += (source.detach() - average) * (1 / (self.steps // self.interval + 1))
                else:
                    annealed = self.gamma / (self.gamma + self.steps)
                    momentum = max(self.momentum, annealed) if self.gamma else self.momentum
                    average.lerp_(source.detach(), momentum)
        self.steps += 1

    def before_val(self, run: Any) -> None:
        self.before = {name: p.detach().clone() for name, p in run.model.named_parameters()}

    def before_val_iter(self, run: Any, **_: Any) -> None:
        expected = self.averages or self.before
        self.seen.append(all(torch.equal(p, expected[name]) for name, p in run.model.named_parameters()))

    def after_val(self, run: Any) -> None:
        self.seen.append(all(torch.equal(p, self.before[name]) for name, p in run.model.named_parameters()))


def averaged_by_hand(cfg: dict[str, Any]) -> list[bool]:
    """Whether each evaluation ran with the averages and gave the weights back, to the bit."""
    ByHand.trail.clear()
    toys.trained(cfg)
    (hook,) = ByHand.trail
    return hook.seen


class Buffers:
    """Notes a buffer of each rank at each epoch's end."""

    def __init__(self, name: str) -> None:
        self.name, self.noted = name, []

    def after_train_epoch(self, run: Any) -> None:
        self.noted.append(run.model[1].running_mean.double().tolist())

    def after_train(self, run: Any) -> None:
        (run.work_dir / f"{self.name}.{run.rank}").write_text(json.dumps(self.noted))


def hook_tensors(work_dir: Any, name: str) -> dict[str, bytes]:
    """The tensors of hooks' state in one checkpoint, to the bit."""
    from shell.checkpoints import Store

    loaded = Store(work_dir / "checkpoints", "test").load(work_dir / "checkpoints" / name)
    return {key: tensor.numpy().tobytes() for key, tensor in loaded.tensors("hooks").items()}


def finite(work_dir: Any) -> bool:
    """Whether every checkpoint standing holds finite weights only."""
    from shell import manifests
    from shell.checkpoints import Loaded

    found = [Loaded(m).tensors("model") for m in manifests.scan(work_dir / "checkpoints").complete]
    return all(bool(t.isfinite().all()) for tensors in found for t in tensors.values())
