"""One training, as mmengine's runners do it and as ours does: the model, the data and the configs of both.

Run with an environment that has mmengine 0.10.7, it trains and writes tests/shell/mmengine/: a checkpoint from the middle
of each training, and in ends.json the weights each came to without ours. `make .venv-mmengine/.installed` makes one:

    .venv-mmengine/bin/python -m tests.shell.twins tests/shell/mmengine
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import os
import pathlib
import shutil
import sys
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

HERE = "tests.shell.twins"
BATCHES, EPOCHS = 3, 4


class Points(Dataset):
    """Twelve points and the sums of their features."""

    def __init__(self) -> None:
        self.inputs = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.inputs[index].sum()


def layers(model: nn.Module, width: int = 4) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.backbone = nn.Sequential(nn.Linear(4, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        model.head = nn.Linear(width, 1)
        model.frozen = nn.Parameter(torch.ones(1), requires_grad=False)


def computed(model: Any, inputs: torch.Tensor, targets: torch.Tensor, mode: str) -> Any:
    found = (model.head(model.backbone(inputs)) * model.frozen).squeeze(1)
    return {"loss": ((found - targets) ** 2).mean()} if mode == "loss" else list(found)


class Twin(nn.Module):
    """Ours."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        layers(self, width)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, mode: str = "tensor") -> Any:
        return computed(self, inputs, targets, mode)


class Least:
    """The smallest absolute prediction: a score without much meaning, the same in both."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.found += [abs(float(one)) for one in data_samples]

    def evaluate(self, size: int) -> dict[str, float]:
        found, self.found = self.found, []
        assert len(found) == size
        return {"twin/least": min(found)}


ADAMW = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.05, weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_lr_mult=2.0),
    clip_grad=dict(max_norm=1.0),
)
SGD = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
EPOCHED = dict(
    train_cfg=dict(by_epoch=True, max_epochs=EPOCHS, val_interval=1),
    optim_wrapper=ADAMW,
    param_scheduler=dict(type="CosineAnnealingLR", T_max=EPOCHS * BATCHES, by_epoch=False),
    custom_hooks=[dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.1)],
)
ITERATED = dict(
    train_cfg=dict(by_epoch=False, max_iters=12, val_interval=4),
    optim_wrapper=SGD,
    param_scheduler=dict(type="MultiStepLR", milestones=[5, 9], gamma=0.5, by_epoch=False),
)
TRAININGS = {
    "Runner": (EPOCHED, "epoch_2.pth"),
    "FlexibleRunner": (EPOCHED, "epoch_2.pth"),
    "iterations": (ITERATED, "iter_8.pth"),
}
"""By the name of their files: the config, and which checkpoint is kept."""


def saving(by_epoch: bool) -> dict[str, Any]:
    return dict(
        type="CheckpointHook",
        interval=1 if by_epoch else 4,
        by_epoch=by_epoch,
        save_best="twin/least",
        rule="greater",
    )


def shared(name: str, work_dir: str, dataset: Any, collate: dict[str, Any]) -> dict[str, Any]:
    """What both are given."""
    given = TRAININGS[name][0]
    train = dict(batch_size=4, sampler=dict(type="DefaultSampler", shuffle=False), **collate)
    return dict(
        given,
        work_dir=work_dir,
        train_dataloader=dict(dataset=dataset, **train),
        val_dataloader=dict(dataset=dataset, **train),
        val_cfg=dict(),
        default_hooks=dict(checkpoint=saving("max_epochs" in given["train_cfg"])),
    )


def ours(name: str, work_dir: str, **more: Any) -> dict[str, Any]:
    """The config of flexcore's run."""
    cfg = shared(
        name,
        work_dir,
        dict(type=f"{HERE}:Points"),
        dict(collate_fn=dict(type="torch.utils.data:default_collate")),
    )
    own = dict(
        model=dict(type=f"{HERE}:Twin"), val_evaluator=dict(type=f"{HERE}:Least"), randomness=dict(seed=0)
    )
    return {**cfg, **own, **more}


def train_theirs(name: str, work_dir: str) -> pathlib.Path:
    """mmengine's own run; returns its work_dir."""
    from mmengine.evaluator import BaseMetric
    from mmengine.model import BaseModel
    from mmengine.runner import FlexibleRunner, Runner

    class Theirs(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            layers(self)

        def forward(self, inputs: Any, targets: Any, mode: str = "tensor") -> Any:
            return computed(self, inputs, targets, mode)

    class TheirLeast(BaseMetric):
        default_prefix = "twin"

        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.results += [abs(float(one)) for one in data_samples]

        def compute_metrics(self, results: list[float]) -> dict[str, float]:
            import numpy as np

            return {"least": np.float64(min(results))}

    cfg = shared(name, work_dir, Points(), dict(collate_fn=dict(type="default_collate")))
    runner = Runner if name == "Runner" else FlexibleRunner
    runner(
        model=Theirs(), val_evaluator=[TheirLeast()], launcher="none", randomness=dict(seed=0), **cfg
    ).train()
    return pathlib.Path(work_dir)


def plain(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in state.items()}


def main(target: str) -> None:
    place = pathlib.Path(target).absolute()
    place.mkdir(parents=True, exist_ok=True)
    ends = {}
    for name, (given, kept) in TRAININGS.items():
        made = pathlib.Path("/tmp/twins", name)  # mmengine writes it into its checkpoints
        shutil.rmtree(made, ignore_errors=True)
        train_theirs(name, str(made))
        shutil.copy(made / kept, place / f"{name}.pth")
        last = torch.load(made / ("epoch_4.pth" if given is EPOCHED else "iter_12.pth"), weights_only=False)
        ends[name] = {
            "state_dict": plain(last["state_dict"]),
            "ema_state_dict": plain(last.get("ema_state_dict", {})),
            "best": float(last["message_hub"]["runtime_info"]["best_score"]),
        }
    (place / "ends.json").write_text(json.dumps(ends, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main(sys.argv[1])
