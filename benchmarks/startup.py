"""How long until the first optimizer step: `flexcore run` against a script written by hand for the same job.

    python benchmarks/startup.py [--rounds N] [--nproc N]

Both train the digits example on N ranks: the script under torchrun, flexcore under its own launcher (one process
each for 1). The two take turns, so a busy machine is busy for both; printed are medians and their ratio.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent

RAW = """
import os, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics import Accuracy

from examples.digits_model import Digits, Net

torch.manual_seed(0)
world = int(os.environ.get("WORLD_SIZE", "1"))
if world > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if world > 1 else 0
model = Net(width=32)
data, held_out = Digits(split="train"), Digits(split="val")
sampler = DistributedSampler(data, world, rank, shuffle=True)
loader = DataLoader(data, batch_size=16, sampler=sampler)
called = DistributedDataParallel(model) if world > 1 else model
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=50)
criterion = nn.CrossEntropyLoss()
accuracy = Accuracy(task="multiclass", num_classes=10)
for inputs, labels in loader:
    loss = criterion(called(inputs), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    break
if rank == 0:
    open(os.environ["OUT"] + "/first_step", "w").write(str(time.time()))
os._exit(0)
"""

HOOK = """
import os, time


class FirstStep:
    def after_train_iter(self, run, **_):
        if run.rank == 0:
            open(os.environ["OUT"] + "/first_step", "w").write(str(time.time()))
        run.group.barrier()
        os._exit(0)
"""


def seconds(command: list[str], out: pathlib.Path) -> tuple[float, float]:
    """(wall time to rank 0's word that its first step is done, CPU time of all processes until they left then)."""
    environ = os.environ | {"OUT": str(out), "PYTHONPATH": f"{ROOT}:{out}", "OMP_NUM_THREADS": "1"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(
        command, env=environ, cwd=out, capture_output=True, text=True, check=False, timeout=300
    )
    if not (out / "first_step").exists():
        sys.exit(
            f"{' '.join(command)} ended with {done.returncode} before its first step:\n{done.stderr[-3000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float((out / "first_step").read_text()) - started, used


def ours(out: pathlib.Path, nproc: int) -> list[str]:
    (out / "first_step_hook.py").write_text(HOOK)
    overrides = [
        'custom_hooks=[{"type": "first_step_hook:FirstStep"}]',
        f"work_dir={json.dumps(str(out / 'run'))}",
    ]
    ranks = ["--nproc", str(nproc)] if nproc > 1 else []
    return [str(BIN / "flexcore"), "run", str(ROOT / "examples/digits.py"), *overrides, *ranks, "--quiet"]


def raw(out: pathlib.Path, nproc: int) -> list[str]:
    (out / "raw.py").write_text(RAW)
    if nproc == 1:
        return [sys.executable, "raw.py"]
    return [str(BIN / "torchrun"), "--standalone", f"--nproc-per-node={nproc}", "raw.py"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nproc", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    for nproc in arguments.nproc:
        taken: dict[str, list[tuple[float, float]]] = {"raw": [], "flexcore": []}
        for _ in range(arguments.rounds + 1):
            for name, command in (("raw", raw), ("flexcore", ours)):
                with tempfile.TemporaryDirectory() as folder:
                    taken[name].append(seconds(command(pathlib.Path(folder), nproc), pathlib.Path(folder)))
        for at, what in enumerate(("wall", "CPU")):
            told(
                nproc,
                what,
                [pair[at] for pair in taken["raw"][1:]],
                [pair[at] for pair in taken["flexcore"][1:]],
            )


def told(nproc: int, what: str, theirs: list[float], mine: list[float]) -> None:
    by_hand, planned = statistics.median(theirs), statistics.median(mine)
    spread = sorted(b / a for a, b in zip(theirs, mine, strict=True))
    print(
        f"{nproc} rank{'s' if nproc > 1 else ''}, {what} time to the first step: {by_hand:.2f} s by hand, "
        f"{planned:.2f} s planned; ratio {planned / by_hand:.2f} (pairs {spread[0]:.2f} to {spread[-1]:.2f}, "
        f"{len(mine)} rounds)"
    )


if __name__ == "__main__":
    main()
