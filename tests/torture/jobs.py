"""One job with everything stateful on, carried out by ranks that die, and all that its end is judged by.

Seventeen iterations an epoch, updates of three carried over epochs' ends, a checkpoint every fourth iteration (planned at
the closing update), two kept and the best besides; dropout, noise in every sample, an average of the weights, a loss
scale that moves, a plateau, early stopping that counts and never comes, a hook with a tensor of its own.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import functools
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from typing import Any

import attrs

from tests.ranks import Ranks, start_alone, start_ranks
from tests.shell import toys

TRAINED, SAMPLES, MICRO = 3, 66, 4
HOOKS = (
    dict(type="tests.shell.toys:Counting"),
    dict(type="EMAHook", momentum=0.3),
    dict(type="EarlyStoppingHook", monitor="hits", rule="greater", min_delta=1.0, patience=50),
)
PLATEAU = dict(
    type="ReduceOnPlateauLR", monitor="hits", rule="greater", patience=0, factor=0.5, threshold=0.2
)


@attrs.frozen
class Way:
    """How a job is carried out."""

    ranks: int = 1
    strategy: str = "SingleDeviceStrategy"
    workers: int = 0
    scaled: bool = False

    def __str__(self) -> str:
        workers = f"+{self.workers}workers" if self.workers else ""
        return f"{self.strategy.removesuffix('Strategy')}{self.ranks}{workers}{'+scaled' * self.scaled}"

    def config(self, work_dir: pathlib.Path, **changes: Any) -> dict[str, Any]:
        data = dict(type="tests.shell.toys:Points", n=SAMPLES * self.ranks, noise=0.5)
        amp = dict(type="AmpOptimWrapper", dtype="bfloat16", loss_scale=SCALE) if self.scaled else {}
        base = dict(
            model=dict(type="tests.shell.test_fsdp:Deep", dropout=0.2), strategy=dict(type=self.strategy),
            train_dataloader=dict(
                dataset=data, batch_size=MICRO, num_workers=self.workers,
                sampler=dict(type="DefaultSampler", shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=TRAINED),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.02), accumulative_counts=3, clip_grad=dict(max_norm=0.5), **amp),
            param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False), PLATEAU],
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=5),
                checkpoint=dict(
                    type="CheckpointHook", by_epoch=False, interval=4, max_keep_ckpts=2, save_best="hits", rule="greater",
                ),
            ),
            custom_hooks=list(HOOKS),
        )  # fmt: skip
        return toys.config(work_dir, **(base | changes))

    def start(self, cfg: dict[str, Any], doom: "Doom | None" = None) -> Ranks:
        if self.ranks == 1:
            return start_alone(carried_out, 0, cfg, doom)
        return start_ranks(self.ranks, carried_out, cfg, doom)


SCALE = dict(init_scale=2.0**126, growth_interval=4)
"""So large that the first updates overflow and are left out; it halves and grows again as the run goes on."""


@attrs.frozen
class Doom:
    """kill -9 of one rank from within: `delay` seconds after its nth file operation of one kind of moment.

    saving: operations count once a checkpoint is begun. rank: None, all of them, each by its own count.
    """

    nth: int
    delay: float
    saving: bool
    rank: int | None = None


def carried_out(rank: int, cfg: dict[str, Any], doom: Doom | None) -> dict[str, Any]:
    """The run, in this process, until it ends or its doom comes."""
    if doom is not None and doom.rank in (None, rank):
        sys.addaudithook(_Reaper(doom, cfg["work_dir"]))
    return toys.trained(cfg)


class _Reaper:
    """An audit hook: it sees every opening, renaming, making and removing of files in the work_dir."""

    KINDS = (
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

    def __call__(self, event: str, args: tuple) -> None:
        if event not in self.KINDS or not args or self.seen > self.doom.nth:
            return
        path = os.fspath(args[0]) if isinstance(args[0], str | os.PathLike) else ""
        if not path.startswith(self.work_dir):
            return
        self.begun = self.begun or (event == "os.mkdir" and "/checkpoints/.tmp-" in path)
        self.seen += self.begun
        if self.begun and self.seen > self.doom.nth:
            _die_after(self.doom.delay)


def _die_after(delay: float) -> None:
    if delay == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(
        target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL)), daemon=True
    ).start()


def finish(way: Way, cfg: dict[str, Any]) -> float:
    """Carry it out to its end, in peace; the seconds that took."""
    began = time.monotonic()
    with way.start(cfg) as running:
        results = running.results(120)
    assert {result["reason"] for result in results} == {"done"}, results
    return time.monotonic() - began


@attrs.frozen
class End:
    """What two runs that ended alike have alike: every tensor and state to the bit, and what stands."""

    tensors: dict[str, dict[str, bytes]]
    state: Any
    standing: list[str]
    counted: list[str]
    differences: list[str]


def end(work_dir: pathlib.Path) -> End:
    """How a finished run ended."""
    from shell import manifests
    from shell.checkpoints import Store

    found = manifests.scan(work_dir / "checkpoints").complete
    store = Store(work_dir / "checkpoints", "test")
    loaded = [store.load(one.path) for one in found]
    return End(
        tensors={
            f"{pathlib.Path(one.manifest.path).name}/{stem}": {
                key: tensor.numpy().tobytes() for key, tensor in one.tensors(stem).items()
            }
            for one in loaded for stem in one.stems
        },
        state=[_told(one.manifest.fields) for one in loaded],
        standing=sorted(path.name for path in (work_dir / "checkpoints").iterdir()),
        counted=[path.read_text() for path in sorted(work_dir.glob("counted.*"))],
        differences=toys.differences(work_dir),
    )  # fmt: skip


def _told(fields: Any) -> dict[str, Any]:
    return {key: fields[key] for key in ("epoch", "iter", "validated", "resumable", "best", "state")}


@functools.cache
def whole(root: pathlib.Path, way: Way) -> tuple[End, float]:
    """The run left in peace, once for each way: how it ended, and the seconds it took."""
    finish(way, way.config(root / "first"))  # loads what is loaded once
    seconds = finish(way, way.config(root / str(way)))
    assert end(root / str(way)) == end(root / "first")
    shutil.rmtree(root / "first")
    return end(root / str(way)), seconds
