"""Training moved from one layout to another: what a checkpoint saved under any of them comes to under any other.

A layout is a strategy on a number of ranks. `save` trains six iterations under some layouts and saves; `resume` goes on
from each of these under one layout, saves at once what it has loaded, and does the ten iterations that are left.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import attrs
import pytest
import torch
from torch import nn

from shell.hooks.checkpoint import CheckpointHook
from shell.run import Run
from tests.ranks import run_ranks
from tests.shell import toys
from tests.shell.test_fsdp import Deep

HERE = "tests.shell.moves"
SAVED_AT, TOTAL, CLOSE = 6, 16, 1e-5
PATIENCE = 1800


@attrs.frozen
class Layout:
    """A strategy's settings, as JSON, on a number of ranks."""

    name: str
    ranks: int
    settings: str

    def __str__(self) -> str:
        return f"{self.name}@{self.ranks}"


Move: TypeAlias = tuple[Layout, Layout]
"""From here to there."""


def _layout(name: str, ranks: int, type: str, **settings: Any) -> Layout:
    return Layout(name, ranks, json.dumps({"type": f"{type}Strategy", **settings}))


SINGLE = _layout("Single", 1, "SingleDevice")
LAYOUTS: Mapping[str, Layout] = {
    str(layout): layout
    for layout in (
        SINGLE,
        *(_layout("DDP", ranks, "DDP") for ranks in (1, 2, 4)),
        *(_layout("FSDP2", ranks, "FSDP") for ranks in (1, 2, 4)),
        _layout("HSDP", 2, "FSDP", shard_size=1),
        _layout("HSDP", 4, "FSDP", shard_size=2),
        *(
            _layout(f"ZeRO{stage}", ranks, "DeepSpeed", zero_optimization=dict(stage=stage))
            for stage in range(4) for ranks in (1, 2, 4)
        ),
    )
}  # fmt: skip


class Parts(Deep):
    """Blocks of odd width, a layer that does not train, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(toys.FEATURES, toys.FEATURES).requires_grad_(False)
        self.register_buffer("offset", torch.linspace(0, 1, toys.FEATURES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.before(x + self.offset))


class Samples:
    """Writes which samples each iteration's micro-batches had, one a line: the rank, the iteration, first features."""

    def before_train(self, run: Run) -> None:
        path = run.work_dir / f"samples.{run.rank}"

        def seen(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if run.called.training:
                with path.open("a") as file:
                    file.write(json.dumps([run.completed, inputs[0][:, 0].tolist()]) + "\n")

        run.model.register_forward_pre_hook(seen)


class SavedAgain:
    """Saves what was loaded, before the first step, as the run itself would."""

    def before_train(self, run: Run) -> None:
        for hook in run.stages.hooks:
            if isinstance(hook, CheckpointHook):
                hook.save(run, "loaded", run.completed, undo=lambda: None, planned=False)


def config(work_dir: pathlib.Path, layout: Layout, **changes: Any) -> dict[str, Any]:
    """Five iterations of 8 samples an epoch, the last one filled up; two groups of parameters, a clipped AMSGrad."""
    work_dir.mkdir(parents=True, exist_ok=True)
    base = dict(
        model=dict(type=f"{HERE}:Parts"), strategy=json.loads(layout.settings), global_batch_size=8,
        train_dataloader=dict(
            dataset=dict(type=f"{toys.HERE}:Points", n=36), batch_size=2,
            sampler=dict(type="DefaultSampler", shuffle=True),
        ),
        train_cfg=dict(by_epoch=False, max_iters=TOTAL, val_interval=1000),
        val_dataloader=None, val_evaluator=None, val_cfg=None,
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=0.02, weight_decay=0.1, amsgrad=True), clip_grad=dict(max_norm=0.3),
            paramwise_cfg=dict(bias_lr_mult=0.5, bias_decay_mult=0.0),
        ),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1000, save_last=False)),
        custom_hooks=[toys.LOSSES, dict(type=f"{HERE}:Samples")], log_level="ERROR",
    )  # fmt: skip
    return toys.config(work_dir, **(base | changes))


def carried_out(cfgs: Mapping[Any, tuple[int, dict[str, Any]]]) -> None:
    """Runs by name on so many ranks, those on equally many in one start; AssertionError for any that ends otherwise."""
    for ranks in sorted({ranks for ranks, _ in cfgs.values()}):
        own = {name: cfg for name, (number, cfg) in cfgs.items() if number == ranks}
        results = run_ranks(ranks, toys.several, list(own.values()), timeout=PATIENCE)[0]
        reasons = {name: result["reason"] for name, result in zip(own, results, strict=True)}
        assert {name: told for name, told in reasons.items() if told not in ("done", "requested")} == {}


def save(root: pathlib.Path, layouts: Iterable[Layout]) -> dict[Layout, pathlib.Path]:
    """The checkpoint of the sixth iteration by layout; and in `root / "whole"` one process's run without a stop."""
    stop = dict(type=f"{toys.HERE}:Wishes", stop=SAVED_AT - 1)
    layouts = list(layouts)
    cfgs = {one: (one.ranks, config(root / str(one), one, custom_hooks=[stop])) for one in layouts}
    carried_out({"whole": (1, config(root / "whole", SINGLE)), **cfgs})
    return {one: root / str(one) / "checkpoints" / f"stopped_iter_{SAVED_AT}" for one in layouts}


def resume(
    root: pathlib.Path, saved: Mapping[Layout, pathlib.Path], moves: Iterable[Move]
) -> dict[Move, pathlib.Path]:
    """The work_dirs of the runs that went on elsewhere."""
    hooks = [toys.LOSSES, dict(type=f"{HERE}:Samples"), dict(type=f"{HERE}:SavedAgain")]
    places = {move: root / f"{move[0]} to {move[1]}" for move in moves}
    carried_out({
        (here, there): (there.ranks, config(place, there, resume=str(saved[here]), custom_hooks=hooks))
        for (here, there), place in places.items()
    })  # fmt: skip
    return places


def kept(checkpoint: pathlib.Path) -> dict[str, Any]:
    """The SHA-256 of each tensor of model and optimizer by name, and the optimizer's state besides."""
    from shell.checkpoints import Store

    loaded = Store(checkpoint.parent, "test").load(checkpoint)
    hashes = {
        f"{stem}/{name}": hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for stem in loaded.stems for name, tensor in loaded.tensors(stem).items()
    }  # fmt: skip
    return {**hashes, "optimizer": loaded.manifest.fields["state"]["optimizer"]}


def samples(work_dir: pathlib.Path, ranks: int) -> dict[int, list[float]]:
    """First features of all that each iteration was trained on, sorted."""
    found: dict[int, list[float]] = {}
    for rank in range(ranks):
        for line in (work_dir / f"samples.{rank}").read_text().splitlines():
            iteration, features = json.loads(line)
            found.setdefault(iteration, []).extend(features)
    return {iteration: sorted(features) for iteration, features in found.items()}


def check(root: pathlib.Path, saved: Mapping[Layout, pathlib.Path], move: Move, moved: pathlib.Path) -> float:
    """Hold one move to everything asked of it; the worst difference of its ten losses from one process's."""
    (here, there), whole = move, root / "whole"
    assert kept(moved / "checkpoints" / "loaded") == kept(saved[here])
    expected = samples(whole, 1)
    assert samples(moved, there.ranks) == {i: expected[i] for i in range(SAVED_AT, TOTAL)}
    assert toys.differences(moved) == []
    undisturbed, found = toys.losses(whole, 1)[SAVED_AT:], toys.losses(moved, there.ranks)
    assert found == pytest.approx(undisturbed, abs=CLOSE)
    return max(abs(one - other) for one, other in zip(found, undisturbed, strict=True))
