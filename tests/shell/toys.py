"""Tiny models, data, hooks and metrics for end-to-end tests, and the few verbs that run a config and look at it.

A config names them as "tests.shell.toys:Name". What runs in a rank is a function of this file, so that a
forked process finds it.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import io
import json
import os
import pathlib
import resource
import signal
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from tests.ranks import run_alone, run_ranks

EVERY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
FEATURES, CLASSES = 6, 3
HERE = "tests.shell.toys"
LOSSES = dict(type=f"{HERE}:Losses")
PATIENCE = 500  # seconds for one start of ranks that carries out several runs, on a busy machine


def sampled(cases, *, without):
    """All cases in the nightly run; else those left once the ones at these places are taken out, to save time."""
    return [case for place, case in enumerate(cases) if EVERY or place not in without]


class Points(Dataset):
    """n points in three classes. noise: drawn anew at each reading. slow: seconds a reading takes."""

    def __init__(self, n: int, seed: int = 0, noise: float = 0.0, slow: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(n, FEATURES, generator=generator)
        self.labels = self.inputs[:, :CLASSES].argmax(1)
        self.noise, self.slow = noise, slow

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.slow:
            time.sleep(self.slow)
        point = self.inputs[index]
        return (point + self.noise * torch.randn(FEATURES) if self.noise else point), self.labels[index]


class Net(nn.Sequential):
    """Points to logits."""

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(FEATURES, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, CLASSES)
        )


class Pixels(nn.Sequential):
    """Digits to logits, linearly."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))


class HalfFrozen(Net):
    """A part that its owner keeps in evaluation mode, as frozen batch norms are kept."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)
        self[2].eval()

    def train(self, mode: bool = True) -> "HalfFrozen":
        super().train(mode)
        self[2].eval()
        return self


class Pretrained(Net):
    """Comes in evaluation mode, as models from hubs do."""

    def __init__(self) -> None:
        super().__init__()
        self.eval()


class Accuracy:
    """mmengine's metric shape: process and evaluate; counts on this rank alone, so for one rank."""

    def __init__(self) -> None:
        self.hits: list[bool] = []

    def process(self, data_batch: Any, data_samples: torch.Tensor) -> None:
        self.hits += (data_samples.argmax(1) == data_batch[1]).tolist()

    def evaluate(self, size: int) -> dict[str, float]:
        hits, self.hits = self.hits, []
        assert len(hits) == size
        return {"mine/accuracy": sum(hits) / size, "mine/size": size}


class Hits:
    """The share of right answers over all ranks, in torchmetrics' shape and without its second of imports."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.counts = torch.zeros(2, dtype=torch.float64)

    def update(self, outputs: torch.Tensor, target: torch.Tensor) -> None:
        self.counts += torch.tensor([(outputs.argmax(1) == target).sum(), len(target)], dtype=torch.float64)

    def compute(self) -> float:
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.counts)
        return float(self.counts[0] / self.counts[1])


class Updates:
    """Notes the 1-based iterations after which rank 0's weights are others than before."""

    def before_train(self, run: Any) -> None:
        self.last, self.noted = self.first(run), []

    def first(self, run: Any) -> list[float]:
        return next(iter(run.model.parameters())).flatten().tolist()

    def after_train_iter(self, run: Any, **_: Any) -> None:
        now = self.first(run)
        if now != self.last:
            self.last = now
            self.noted.append(run.iter + 1)

    def after_train(self, run: Any) -> None:
        if run.rank == 0:
            (run.work_dir / "updates").write_text(json.dumps(self.noted))


class Counting:
    """A hook with state: how many iterations it has seen, and a running tensor of them."""

    def __init__(self) -> None:
        self.seen, self.total = 0, torch.zeros(1, dtype=torch.float64)

    def after_train_iter(self, run: Any, **_: Any) -> None:
        self.seen += 1
        self.total += run.iter

    def after_run(self, run: Any) -> None:
        (run.work_dir / f"counted.{run.rank}").write_text(json.dumps([self.seen, float(self.total)]))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen, self.total = state["seen"], state["total"]


class Tallying(Counting):
    """Another hook with state: ten times what Counting sees."""

    def after_train_iter(self, run: Any, **_: Any) -> None:
        self.seen += 10
        self.total += 10 * run.iter

    def after_run(self, run: Any) -> None:
        (run.work_dir / f"tallied.{run.rank}").write_text(json.dumps([self.seen, float(self.total)]))


class Breaks:
    """Fails before one iteration, 0-based, on every rank."""

    def __init__(self, at: int = 1) -> None:
        self.at = at

    def before_train_iter(self, run: Any, **_: Any) -> None:
        if run.iter == self.at:
            raise RuntimeError("breaks")


class Losses:
    """Writes every step's exact loss of rank 0, one a line."""

    def after_train_iter(self, run: Any, outputs: Any, **_: Any) -> None:
        with (run.work_dir / f"losses.{run.rank}").open("a") as file:
            file.write(f"{float(outputs['loss'])!r}\n")


class SignalAt:
    """Sends this process (or one rank of several) signals: [[iteration, signal number], ...]."""

    def __init__(self, at: list[list[int]], rank: int = 0) -> None:
        self.at, self.rank = dict(at), rank

    def before_train_iter(self, run: Any, **_: Any) -> None:
        if run.rank == self.rank and run.iter in self.at:
            os.kill(os.getpid(), self.at[run.iter])


class SleepAt:
    """Stands still for so many seconds before a 0-based iteration, on one rank."""

    def __init__(self, at: int, seconds: float, rank: int = 0) -> None:
        self.at, self.seconds, self.rank = at, seconds, rank

    def before_train_iter(self, run: Any, **_: Any) -> None:
        if (run.rank, run.iter) == (self.rank, self.at):
            time.sleep(self.seconds)


class Started:
    """Leaves a file as training starts, with the time in it, and another as it ends."""

    def before_train(self, run: Any) -> None:
        (run.work_dir / f"started.{run.rank}").write_text(str(time.monotonic()))

    def after_train(self, run: Any) -> None:
        (run.work_dir / f"ended.{run.rank}").write_text(str(time.monotonic()))


class Pids:
    """Leaves each rank's process number in a file once it has done two iterations of this start."""

    def __init__(self) -> None:
        self.seen = 0

    def after_train_iter(self, run: Any, **_: Any) -> None:
        self.seen += 1
        if self.seen == 2:
            (run.work_dir / f"pid.{run.rank}").write_text(str(os.getpid()))


class FullDisk:
    """No file of rank 0 may grow from a 0-based iteration on, until so many saves have been tried; None: to the end.

    slow: seconds an iteration takes. room: how: "limit" on the size of files, or a "ballast" that fills a file system.
    """

    def __init__(self, at: int, saves: int | None = None, slow: float = 0.0, how: str = "limit") -> None:
        self.at, self.saves, self.slow, self.how = at, saves, slow, how
        self.tried, self.on = 0, False

    def before_train_iter(self, run: Any, **_: Any) -> None:
        time.sleep(self.slow)
        if run.rank == 0 and run.iter == self.at:
            self._turn(run, on=True)

    def before_save_checkpoint(self, run: Any, checkpoint: Any) -> None:
        self.tried += self.on
        if self.on and self.saves is not None and self.tried > self.saves:
            self._turn(run, on=False)

    def _turn(self, run: Any, *, on: bool) -> None:
        self.on = on
        if self.how == "limit":
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 if on else hard, hard))
            return
        ballast = run.work_dir / "ballast"
        if not on:
            ballast.unlink()
            return
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass


class KillIn:
    """kill -9 at the nth call (0-based) of one stage, the first time round."""

    def __init__(self, stage: str, nth: int = 0) -> None:
        self.calls = 0
        self.stage, self.nth = stage, nth

    def _called(self, stage: str, run: Any) -> None:
        mark = run.work_dir / "killed"
        self.calls += stage == self.stage
        if self.calls > self.nth and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def before_val_epoch(self, run: Any) -> None:
        self._called("before_val_epoch", run)

    def before_val_iter(self, run: Any, **_: Any) -> None:
        self._called("before_val_iter", run)

    def after_val_epoch(self, run: Any, **_: Any) -> None:
        self._called("after_val_epoch", run)

    def before_train_iter(self, run: Any, **_: Any) -> None:
        self._called("before_train_iter", run)

    def after_train_epoch(self, run: Any, **_: Any) -> None:
        self._called("after_train_epoch", run)

    def after_run(self, run: Any, **_: Any) -> None:
        self._called("after_run", run)


class AwaitTracer:
    """On rank 0, at the nth save (0-based), leaves its process number in "saving" and goes on once "traced" is there.

    It looks with access(2), which no save asks for, so that a count of requests is the same each time.
    """

    def __init__(self, nth: int) -> None:
        self.left = nth

    def before_save_checkpoint(self, run: Any, **_: Any) -> None:
        if run.rank == 0 and self.left == 0:
            (run.work_dir / "saving.new").write_text(str(os.getpid()))
            (run.work_dir / "saving.new").rename(run.work_dir / "saving")
            while not os.access(run.work_dir / "traced", os.F_OK):
                time.sleep(0.002)
        self.left -= 1


class Groups:
    """Notes the optimizer's groups as they stand in the last iteration."""

    def after_train(self, run: Any) -> None:
        names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        told = [
            {"params": [names[id(p)] for p in group["params"]], "lr": group["lr"],
             "weight_decay": group["weight_decay"], "beta": group["betas"][0]}
            for group in run.optim_wrapper.param_groups
        ]  # fmt: skip
        if run.rank == 0:
            (run.work_dir / "groups").write_text(json.dumps(told))


class Seeds:
    """Tells what each rank's stream was seeded with once a checkpoint is loaded."""

    def after_load_checkpoint(self, run: Any, **_: Any) -> None:
        (run.work_dir / f"seed{run.rank}").write_text(str(torch.initial_seed()))


class Wishes:
    """Asks for a checkpoint and for a stop at these 0-based iterations."""

    def __init__(self, checkpoint: int | None = None, stop: int | None = None) -> None:
        self.checkpoint, self.stop = checkpoint, stop

    def after_train_iter(self, run: Any, **_: Any) -> None:
        if run.iter == self.checkpoint:
            run.request_checkpoint("wished")
        if run.iter == self.stop:
            run.request_stop("enough", alike=True)


def config(work_dir: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """Nine iterations an epoch (the last batch is short), three epochs, one validation loader; changed as told."""
    made = dict(
        model=dict(type=f"{HERE}:Net"),
        loss=dict(type="torch.nn:CrossEntropyLoss"),
        work_dir=str(work_dir),
        train_dataloader=dict(dataset=dict(type=f"{HERE}:Points", n=34), batch_size=4),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)),
        param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False)],
        val_dataloader=dict(dataset=dict(type=f"{HERE}:Points", n=11, seed=1), batch_size=4),
        val_evaluator=dict(hits=dict(type=f"{HERE}:Hits")),
        val_cfg=dict(),
        default_hooks=dict(logger=dict(type="LoggerHook", interval=4)),
        visualizer=dict(vis_backends=[]),
        randomness=dict(seed=7),
        log_level="WARNING",
        resume=True,
    )
    return {key: value for key, value in (made | changes).items() if value is not None}


ACCURACY = dict(type="torchmetrics:Accuracy", task="multiclass", num_classes=CLASSES)


def trained(cfg: dict[str, Any], mode: str = "train") -> dict[str, Any]:
    """Run the config in this process; what its result says."""
    from shell.execute import run

    result = run(cfg, mode=mode)
    return {"reason": result.reason, "iter": result.iter, "epoch": result.epoch, "code": result.exit_code,
            "metrics": dict(result.metrics), "checkpoints": [pathlib.Path(p).name for p in result.checkpoints]}  # fmt: skip


def noticed(cfg: dict[str, Any]) -> list[str]:
    """Run the config in this process; what its final plan notes."""
    from shell.execute import run

    return [str(notice) for notice in run(cfg).plan.notices]


def trained_rank(rank: int, cfg: dict[str, Any], mode: str = "train") -> dict[str, Any]:
    """The same on one rank of several."""
    return trained(cfg, mode)


def run(ranks: int, cfg: dict[str, Any]) -> dict[str, Any]:
    """A training in processes of its own; what rank 0 says."""
    return run_alone(trained, cfg) if ranks == 1 else run_ranks(ranks, trained_rank, cfg)[0]


def several(rank: int, cfgs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Carry out one run after another in this rank; what each says, or the error it ends with."""
    warnings.simplefilter("ignore", FutureWarning)
    return [attempted(cfg) for cfg in cfgs]


def attempted(cfg: dict[str, Any]) -> dict[str, Any]:
    """A run in the mode that `cfg` names besides, or the error it ends with."""
    try:
        return trained({key: value for key, value in cfg.items() if key != "mode"}, cfg.get("mode", "train"))
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}"}


def together(cfgs: Mapping[Any, dict[str, Any]], ranks: int = 2) -> dict[Any, dict[str, Any]]:
    """Rank 0's results of runs by name, all in one start of ranks."""
    made = run_ranks(ranks, several, list(cfgs.values()), timeout=PATIENCE)[0]
    return dict(zip(cfgs, made, strict=True))


def told(cfg: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The same, and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        return trained(cfg), out.getvalue()


def exits(cfg: dict[str, Any]) -> None:
    """Run the config and leave with its exit code, as the command does."""
    raise SystemExit(trained(cfg)["code"])


def exits_rank(rank: int, cfg: dict[str, Any]) -> None:
    exits(cfg)


def ends(cfg: dict[str, Any]) -> None:
    """The same, also with the code of what ends a run otherwise."""
    from shell.settling import code_of

    try:
        exits(cfg)
    except Exception as error:
        raise SystemExit(code_of(error)) from error


def ends_rank(rank: int, cfg: dict[str, Any]) -> None:
    ends(cfg)


def supplied(cfg: dict[str, Any], loader: dict[str, Any], n: int = 34) -> dict[str, Any]:
    """Run the config with a DataLoader of the user's own: drawn orders, noise and workers as `loader` says."""
    from flexcore import Supplied
    from shell.execute import run

    own = dict(loader)
    if "generator" in own:
        own["generator"] = torch.Generator().manual_seed(own["generator"])
    live = torch.utils.data.DataLoader(Points(n, noise=0.3), batch_size=4, **own)
    result = run(cfg | dict(train_dataloader=Supplied()), train_dataloader=live)
    return {"reason": result.reason, "iter": result.iter}


def losses(work_dir: pathlib.Path | str, ranks: int) -> list[float]:
    """Each step's loss, the mean over ranks, as the hook Losses wrote them."""
    files = [pathlib.Path(work_dir, f"losses.{rank}").read_text().split() for rank in range(ranks)]
    return [sum(map(float, step)) / ranks for step in zip(*files, strict=True)]


def weights(work_dir: pathlib.Path) -> dict[str, bytes]:
    """The model in the newest checkpoint, parameter by parameter, to the bit."""
    from shell import manifests
    from shell.checkpoints import Store

    newest = manifests.scan(work_dir / "checkpoints").complete[-1]
    tensors = Store(work_dir / "checkpoints", "test").load(newest.path).tensors("model")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def recorded(work_dir: pathlib.Path, kind: str) -> list[dict[str, Any]]:
    """Every event of one kind, over all starts in order."""
    files = sorted(work_dir.glob("*/events.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def steps(work_dir: pathlib.Path) -> list[tuple[int, float, int]]:
    """(iteration, LR, samples of rank 0) of every step recorded, over all starts in order."""
    from shell.events import unpacked

    return [
        (event["first"] + i, lr, samples)
        for event in recorded(work_dir, "steps")
        for i, (lr, samples) in enumerate(zip(unpacked(event["lr"]), unpacked(event["samples"]), strict=True))
    ]


def differences(work_dir: pathlib.Path) -> list[str]:
    """What `flexcore report` finds; the run must have finished."""
    from flexcore.comparing import compared
    from shell.report import read_segments

    comparison = compared(read_segments(work_dir))
    assert comparison.finished
    return [str(difference) for difference in comparison.differences]


def anonymous() -> int:
    """Bytes of this process in memory that no file backs."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
