"""What the loop costs over a raw PyTorch loop: same process, interleaved blocks, all default hooks on.

    python benchmarks/overhead.py [--steps N] [--rounds N]

Prints the ratio of medians with its spread, and the extra Python and C calls per step (sys.setprofile).
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import nn

import flexcore
from flexcore import Facts, Supplied
from shell.execute import execute

BATCH = 4


def model_and_data() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    data = [(torch.randn(BATCH, 8), torch.randn(BATCH, 8)) for _ in range(100)]
    return nn.Linear(8, 8), data


class Blocks:
    """Alternates blocks of steps: a hook of ours lets the raw loop run between blocks of the planned one."""

    def __init__(self, block: int, rounds: int, raw: Callable[[int], float]) -> None:
        self.block, self.rounds, self.raw = block, rounds, raw
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.started = 0.0

    def between(self) -> None:
        """Called at each block's end."""
        self.ours.append((perf_counter() - self.started) / self.block)
        self.theirs.append(self.raw(self.block))
        self.started = perf_counter()


def raw_loop() -> Callable[[int], float]:
    model, data = model_and_data()
    optimizer, criterion, at = torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss(), 0

    def run(steps: int) -> float:
        nonlocal at
        start = perf_counter()
        for _ in range(steps):
            inputs, target = data[at % len(data)]
            at += 1
            loss = criterion(model(inputs), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return (perf_counter() - start) / steps

    return run


def config(work_dir: str, steps: int) -> dict[str, Any]:
    return dict(
        model=Supplied(), loss=Supplied(), train_dataloader=Supplied(), work_dir=work_dir,
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False)],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=10**9)),
        randomness=dict(seed=0), log_level="WARNING",
    )  # fmt: skip


class Interleaved:
    """An in-memory loader that hands control to the raw loop after every `block` batches."""

    batch_size = BATCH

    def __init__(self, data: list[Any], blocks: Blocks) -> None:
        self.data, self.blocks = data, blocks

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            self.blocks.count = getattr(self.blocks, "count", -1) + 1
            if self.blocks.count and self.blocks.count % self.blocks.block == 0:
                self.blocks.between()
            yield batch


def timed(block: int, rounds: int) -> Blocks:
    raw = raw_loop()
    blocks = Blocks(block, rounds, raw)
    raw(block)
    model, data = model_and_data()
    with tempfile.TemporaryDirectory() as work_dir:
        plan = flexcore.plan(config(work_dir, block * (rounds + 1) + 1), Facts())
        blocks.started = perf_counter()
        execute(plan, model=model, loss=nn.MSELoss(), train_dataloader=Interleaved(data, blocks))
    return blocks


def calls_per_step(run: Callable[[int], Any], few: int = 200, many: int = 1200) -> float:
    """Python and C calls of one step: the difference of two runs' totals, so that set-up cancels."""

    def count(steps: int) -> int:
        total = 0

        def profile(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal total
            total += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            run(steps)
        finally:
            sys.setprofile(None)
        return total

    return (count(many) - count(few)) / (many - few)


def planned_run(steps: int) -> None:
    model, data = model_and_data()
    with tempfile.TemporaryDirectory() as work_dir:
        execute(
            flexcore.plan(config(work_dir, steps), Facts()),
            model=model,
            loss=nn.MSELoss(),
            train_dataloader=data,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    blocks = timed(arguments.block, arguments.rounds)
    ours, raw = blocks.ours[2:], blocks.theirs[2:]
    ratios = sorted(a / b for a, b in zip(ours, raw, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    print(f"raw loop      {statistics.median(raw) * 1e6:7.1f} us/step")
    print(f"flexcore      {statistics.median(ours) * 1e6:7.1f} us/step, all default hooks on")
    print(
        f"ratio         {statistics.median(ratios):7.3f}  (10th to 90th percentile {low:.3f} to {high:.3f})"
    )
    raw_calls, our_calls = calls_per_step(raw_loop()), calls_per_step(planned_run)
    print(f"calls/step    {our_calls:7.1f} against {raw_calls:.1f}: {our_calls - raw_calls:+.1f}")


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    main()
