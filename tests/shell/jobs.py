"""One job with everything stateful on, carried out by ranks that die, and all that its end is judged by.

Seventeen iterations an epoch, updates of three carried over epochs' ends, a checkpoint every fourth iteration (planned at
the closing update), two kept and the best besides. Samples and forwards draw from torch's, numpy's and Python's streams;
validations draw too;
there are batch statistics, an average of the weights, a loss scale that moves, a plateau, an early stop that is counted
towards and never comes, a hook and a metric with states of their own, and a hook that looks at the last metrics.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

from tests.ranks import Ranks, start_alone, start_ranks
from tests.shell import toys
from tests.shell.test_fsdp import Deep

HERE = "tests.shell.jobs"
EPOCHS, SAMPLES, MICRO, WINDOW = 3, 66, 4, 3
TOTAL = EPOCHS * -(-SAMPLES // MICRO)


class Drawn(toys.Points):
    """Points with noise from every global stream there is."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point, label = super().__getitem__(index)
        drawn = torch.from_numpy(np.random.standard_normal(toys.FEATURES))  # noqa: NPY002
        return point + 0.3 * drawn.float() + 0.1 * random.random() + 0.3 * torch.randn(toys.FEATURES), label


class Normed(Deep):
    """Blocks with dropout, then batch statistics."""

    def __init__(self, width: int = 5, dropout: float = 0.2) -> None:
        super().__init__(width, dropout)
        self.norm = nn.BatchNorm1d(toys.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


class Following:
    """Makes weights depend on the last validation's metrics: whoever resumes must know them."""

    def before_train_iter(self, run: Any, **_: Any) -> None:
        if "hits" in run.metrics and run.iter % WINDOW == 0:
            with torch.no_grad():
                bias = next(p for name, p in run.model.named_parameters() if name == "norm.bias")
                bias.mul_(1 - 0.01 * run.metrics["hits"])


class Best(toys.Hits):
    """A metric that keeps the best of its values over evaluations, and tells its lead."""

    def __init__(self) -> None:
        super().__init__()
        self.best = torch.zeros(1, dtype=torch.float64)

    def compute(self) -> float:
        value = super().compute()
        self.best = self.best.clamp(min=value)
        return value - 0.5 * float(self.best)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state["best"]


HOOKS = (
    dict(type="tests.shell.toys:Counting"),
    dict(type="tests.shell.toys:Tallying", priority="LOWEST"),
    dict(type=f"{HERE}:Following"),
    dict(type="EMAHook", momentum=0.3, update_buffers=True),
    dict(type="EarlyStoppingHook", monitor="hits", rule="greater", min_delta=1.0, patience=50),
)
PLATEAU = dict(
    type="ReduceOnPlateauLR", monitor="best", rule="greater", patience=0, factor=0.5, threshold=0.6
)
SCALE = dict(init_scale=2.0**19, growth_interval=2)
"""Around where gradients of the job overflow in float16: updates are left out now and then, and the scale goes up and down."""


@attrs.frozen
class Way:
    """How a job is carried out. scaled: in float16, its loss scaled. window: iterations to an update.

    background: it goes on while its checkpoints are written.
    """

    ranks: int = 1
    strategy: str = "SingleDeviceStrategy"
    workers: int = 0
    scaled: bool = False
    window: int = WINDOW
    by_epoch: bool = True
    background: bool = False

    def __str__(self) -> str:
        marks = {
            f"+{self.workers}workers": self.workers,
            f"+windows of {self.window}": self.window != WINDOW,
            "+scaled": self.scaled,
            "+iterations": not self.by_epoch,
            "+background": self.background,
        }
        return f"{self.strategy.removesuffix('Strategy')}{self.ranks}" + "".join(
            k for k, on in marks.items() if on
        )

    def config(self, work_dir: pathlib.Path, keep: int = 2, every: int = 4, **changes: Any) -> dict[str, Any]:
        amp = dict(type="AmpOptimWrapper", dtype="float16", loss_scale=SCALE) if self.scaled else {}
        epochs, iterations = (
            dict(by_epoch=True, max_epochs=EPOCHS),
            dict(by_epoch=False, max_iters=TOTAL, val_interval=17),
        )
        workers = dict(num_workers=self.workers, persistent_workers=True) if self.workers else {}
        base = dict(
            model=dict(type=f"{HERE}:Normed"), strategy=dict(type=self.strategy),
            train_dataloader=dict(
                dataset=dict(type=f"{HERE}:Drawn", n=SAMPLES * self.ranks), batch_size=MICRO,
                sampler=dict(type="DefaultSampler", shuffle=True), **workers,
            ),
            train_cfg=epochs if self.by_epoch else iterations,
            val_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=22, seed=1, noise=0.5), batch_size=4),
            val_evaluator=dict(hits=dict(type="tests.shell.toys:Hits"), best=dict(type=f"{HERE}:Best")),
            optim_wrapper=dict(
                optimizer=dict(type="AdamW", lr=0.02), accumulative_counts=self.window, clip_grad=dict(max_norm=0.5), **amp
            ),
            param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False), PLATEAU],
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=5),
                checkpoint=dict(
                    type="CheckpointHook", by_epoch=False, interval=every, max_keep_ckpts=keep,
                    save_best="hits", rule="greater", async_save=self.background,
                ),
            ),
            custom_hooks=list(HOOKS),
        )  # fmt: skip
        return toys.config(work_dir, **(base | changes))

    def start(self, cfg: dict[str, Any], doom: "Doom | None" = None) -> Ranks:
        if self.ranks == 1:
            return start_alone(carried_out, 0, [cfg], doom)
        return start_ranks(self.ranks, carried_out, [cfg], doom)


@attrs.frozen
class Doom:
    """kill -9 from within, `delay` seconds after a file operation of the run.

    nth: which one (0-based), of all in the work_dir, or of those whose event and path have each of `words` in them;
    saving: of those from the beginning of the first save on. rank: None, every rank, each by its own count.
    """

    nth: int
    delay: float = 0.0
    saving: bool = False
    words: tuple[str, ...] = ()
    rank: int | None = None


def carried_out(rank: int, cfgs: list[dict[str, Any]], doom: Doom | None = None) -> list[str]:
    """The runs in this process, one after the other, until all have ended or its doom comes; the reasons they ended for."""
    import flexcore
    from shell.execute import run

    if doom is not None and doom.rank in (None, rank):
        sys.addaudithook(Reaper(doom, cfgs[0]["work_dir"]))
    return [run(cfg, facts=flexcore.Facts(supports_fp16=True)).reason for cfg in cfgs]


class Reaper:
    """An audit hook: it is told of files before they are opened, renamed, made or removed."""

    EVENTS = (
        "open",
        "os.rename",
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.truncate",
        "os.listdir",
        "os.scandir",
    )

    def __init__(self, doom: Doom, work_dir: str) -> None:
        self.doom, self.work_dir, self.seen, self.begun = doom, work_dir, 0, not doom.saving

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in self.EVENTS or self.seen > self.doom.nth:
            return
        told = f"{event} {' '.join(str(arg) for arg in args[:2])}"
        if self.work_dir not in told or not all(word in told for word in self.doom.words):
            return
        self.begun = self.begun or ("os.mkdir" in told and "/checkpoints/.tmp-" in told)
        self.seen += self.begun
        if self.seen > self.doom.nth:
            _die_after(self.doom.delay)


def _die_after(delay: float) -> None:
    if delay == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(
        target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL)), daemon=True
    ).start()


def finish(way: Way, *cfgs: dict[str, Any]) -> float:
    """Carry runs out to their ends, in peace, in one start; the seconds that took."""
    began = time.monotonic()
    if way.ranks == 1:
        running = start_alone(carried_out, 0, list(cfgs))
    else:
        running = start_ranks(way.ranks, carried_out, list(cfgs))
    with running:
        results = running.results(toys.PATIENCE * len(cfgs))
    assert results == [["done"] * len(cfgs)] * way.ranks
    return time.monotonic() - began


@attrs.frozen
class End:
    """What two runs that ended alike have alike: every tensor and state to the bit, and what stands."""

    tensors: dict[str, dict[str, bytes]]
    state: list[dict[str, Any]]
    standing: list[str]
    counted: list[str]
    differences: list[str]


TOLD = ("epoch", "iter", "validated", "resumable", "best", "state")


def end(work_dir: pathlib.Path) -> End:
    """How a finished run ended."""
    from shell import manifests
    from shell.checkpoints import Store

    root = work_dir / "checkpoints"
    loaded = [Store(root, "test").load(one.path) for one in manifests.scan(root).complete]
    return End(
        tensors={
            f"{pathlib.Path(one.manifest.path).name}/{stem}": {
                key: tensor.numpy().tobytes() for key, tensor in one.tensors(stem).items()
            }
            for one in loaded for stem in one.stems
        },
        state=[{key: one.manifest.fields[key] for key in TOLD} for one in loaded],
        standing=sorted(path.name for path in root.iterdir()),
        counted=[path.read_text() for path in sorted(work_dir.glob("*ed.[0-9]*"))],
        differences=toys.differences(work_dir),
    )  # fmt: skip


def same(found: End, expected: End) -> None:
    """Nothing differs, and nothing was not as planned."""
    for field in attrs.fields(End):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert one == other, f"{field.name}: {', '.join(sorted(unlike(one, other)))}"
    assert found.differences == []


def unlike(one: Any, other: Any, place: str = "") -> list[str]:
    """The places at which two trees differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in one.keys() | other.keys()
            for found in unlike(one.get(key), other.get(key), f"{place}/{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found
            for at, (a, b) in enumerate(zip(one, other, strict=True))
            for found in unlike(a, b, f"{place}/{at}")
        ]
    return [] if one == other else [place or f"{one} != {other}"]


def begun_at(whole: pathlib.Path, work_dir: pathlib.Path, iteration: int) -> None:
    """In `work_dir` all that a run, killed once its checkpoint of this iteration stood, would have left of `whole`.

    whole: a finished run that kept all its checkpoints.
    """
    from shell import manifests

    for one in manifests.scan(whole / "checkpoints").complete:
        if one.fields["iter"] < iteration or (one.fields["iter"] == iteration and one.fields["resumable"]):
            shutil.copytree(one.path, work_dir / "checkpoints" / pathlib.Path(one.path).name)
    for events in whole.glob("*/events.jsonl"):
        shutil.copytree(events.parent, work_dir / events.parent.name)
