"""Small adversarial models that step themselves, and the same training written out by hand, as an oracle."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import pathlib
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as crossed
from torch.utils.data import Dataset

from tests.shell.toys import CLASSES, FEATURES, config

HERE = "tests.shell.gans"
LATENT = 2


class Gan(nn.Module):
    """A generator and a discriminator in turn; the generator's loss leaves gradients in the discriminator.

    critic: discriminator updates an iteration. every: the generator is updated in each `every`-th iteration.
    """

    def __init__(self, critic: int = 1, every: int = 1, spoil: int | None = None) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(LATENT, 8), nn.Tanh(), nn.Linear(8, FEATURES))
        self.discriminator = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))
        self.critic, self.every, self.spoil = critic, every, spoil
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def losses(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the discriminator's, the generator's) of one batch; the latents are part of the points."""
        made = self.generator(points[:, :LATENT])
        real, false = self.discriminator(points), self.discriminator(made.detach())
        told = crossed(real, torch.ones_like(real)) + crossed(false, torch.zeros_like(false))
        fooled = self.discriminator(made)
        return told, crossed(fooled, torch.ones_like(fooled))

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        points = torch.stack(data[0])
        for _ in range(self.critic):
            with optim_wrapper["discriminator"].optim_context(self.discriminator):
                told, _ = self.losses(points)
            if self.spoil is not None and int(self.seen) == self.spoil:
                told = told * torch.nan
            optim_wrapper["discriminator"].update_params(told)
        with optim_wrapper["generator"].optim_context(self.generator):
            _, fooled = self.losses(points)
        self.seen += 1
        if int(self.seen) % self.every == 0:
            optim_wrapper["generator"].update_params(fooled)
        return {"loss_discriminator": told, "loss": fooled}


class ByHand(Gan):
    """Calls backward and step itself, as mmengine lets a model do."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        points = torch.stack(data[0])
        told, _ = self.losses(points)
        optim_wrapper["discriminator"].backward(told)
        optim_wrapper["discriminator"].step()
        _, fooled = self.losses(points)
        optim_wrapper["generator"].backward(fooled)
        optim_wrapper["generator"].step()
        optim_wrapper.zero_grad()
        return {"loss_discriminator": told, "loss": fooled}


class Owing(Gan):
    """Leaves the generator's gradients without a step."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        told, fooled = self.losses(torch.stack(data[0]))
        optim_wrapper["discriminator"].update_params(told)
        optim_wrapper["generator"].backward(self.losses(torch.stack(data[0]))[1])
        return {"loss": fooled}


class Unnamed(Gan):
    """Does not say which optimizer."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        told, _ = self.losses(torch.stack(data[0]))
        optim_wrapper.update_params(told)
        return {"loss": told}


class Weights:
    """Notes every parameter after each iteration, to the bit."""

    def after_train_iter(self, run: Any, **_: Any) -> None:
        line = " ".join(
            value.hex() for p in run.model.parameters() for value in p.detach().flatten().tolist()
        )
        with (run.work_dir / f"weights.{run.rank}").open("a") as file:
            file.write(line + "\n")


def gan_config(work_dir: pathlib.Path, model: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Two optimizers of two kinds, each with a schedule of its own."""
    own = dict(
        model=dict(type=f"{HERE}:Gan", **(model or {})),
        loss=None,
        val_dataloader=None, val_evaluator=None, val_cfg=None,
        optim_wrapper=dict(
            generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=0.02)),
            discriminator=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9), clip_grad=dict(max_norm=0.5)),
        ),
        param_scheduler=dict(
            generator=[dict(type="CosineAnnealingLR", by_epoch=False)],
            discriminator=dict(type="StepLR", step_size=1, gamma=0.5),
        ),
        custom_hooks=[dict(type=f"{HERE}:Weights")],
        default_hooks=dict(logger=dict(type="LoggerHook", interval=4)),
    )  # fmt: skip
    return config(work_dir, **(own | changes))


def weights_of(work_dir: pathlib.Path, rank: int = 0) -> list[list[float]]:
    """Every parameter after each iteration."""
    lines = (work_dir / f"weights.{rank}").read_text().splitlines()
    return [[float.fromhex(value) for value in line.split()] for line in lines]


class Twice(Gan):
    """Updates the discriminator twice an iteration, whatever it was told."""

    def __init__(self) -> None:
        super().__init__(critic=2)


class Asking:
    """Notes what the optimizer wrapper answers at the first iteration."""

    def before_train_iter(self, run: Any, **_: Any) -> None:
        if run.iter:
            return
        several = run.optim_wrapper
        told = {
            "keys": list(several.keys()), "len": len(several), "has": ["generator" in several, "other" in several],
            "lr": several.get_lr(), "momentum": several.get_momentum(),
            "groups": {name: len(groups) for name, groups in several.param_groups.items()},
            "should": several.should_update(),
        }  # fmt: skip
        (run.work_dir / "told").write_text(json.dumps(told))


class Matrices(nn.Sequential):
    """Points to logits by matrices alone, as Muon takes them."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, 8, bias=False), nn.Tanh(), nn.Linear(8, CLASSES, bias=False))


class Texts(Dataset):
    """Three words of ten each, and which of them is the largest; most words are in no batch."""

    def __init__(self, n: int = 34) -> None:
        self.words = torch.randint(10, (n, 3), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"words": self.words[index], "labels": self.words[index].argmax()}


class Words(nn.Module):
    """Sparse gradients: a score for each word; its own loss."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.scores = nn.Embedding(10, 1, sparse=sparse)

    def forward(self, words: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": nn.functional.cross_entropy(self.scores(words).squeeze(-1), labels)}


class Idle(Gan):
    """Has a part that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.generator.add_module("idle", nn.Identity())
        self.generator[-1].register_parameter("weight", nn.Parameter(torch.ones(3)))
