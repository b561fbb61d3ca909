"""What deciding costs: import CPU against `import attrs, cattrs`, and plan() latency, side by side.

python benchmarks/planning.py
"""

import resource
import statistics
import subprocess
import sys
from time import perf_counter

import flexcore
from flexcore import Facts, HookFact
from flexcore.facts import ParameterFact
from shell import files

DIGITS = "examples/digits.py"
FACTS = Facts(
    world_size=2,
    train_samples=1437,
    val_samples=(360,),
    device_type="cpu",
    entropy=1,
    started_at="20260101_000000",
)


def cpu_seconds(statement: str) -> float:
    """User and system CPU of one fresh interpreter that runs the statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def paired(ours: str, theirs: str, rounds: int = 15) -> tuple[float, float, float]:
    """Median CPU of both, run in turn, and the median of the pairs' ratios."""
    pairs = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(rounds)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return a, b, statistics.median(x / y for x, y in pairs)


def latency(call: object, rounds: int = 300) -> float:
    """Median seconds of a warm call."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        call()  # type: ignore[operator]
        times.append(perf_counter() - start)
    return statistics.median(times)


HOOKS = [
    {"type": "EMAHook", "begin_iter": 3}, {"type": "EarlyStoppingHook", "monitor": "acc"}, {"type": "NaNGuardHook"},
    {"type": "SyncBuffersHook"}, {"type": "EmptyCacheHook"}, {"type": "ThroughputHook"}, {"type": "ProfilerHook"},
    *({"type": f"pkg.hooks:Own{i}", "priority": 10 * i, "width": i} for i in range(7)),
]  # fmt: skip
SCHEDULES = [
    {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 100},
    {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 100, "end": 5000, "eta_min": 1e-4},
    {"type": "ExponentialLR", "by_epoch": False, "begin": 5000, "end": 6000, "gamma": 0.999},
    {"type": "PolyLR", "by_epoch": False, "begin": 6000, "power": 0.9},
    {"type": "LinearMomentum", "start_factor": 0.9, "by_epoch": False, "end": 100},
    {"type": "StepParamScheduler", "param_name": "weight_decay", "step_size": 5, "gamma": 0.5},
]
FULL = {
    "model": {"type": "pkg.models:Net", "width": 8, "norm_cfg": {"type": "BN"}},
    "work_dir": "runs/full", "experiment_name": "full", "loss": "torch.nn:CrossEntropyLoss",
    "train_dataloader": {"dataset": {"type": "pkg.data:Set", "split": "train"}, "batch_size": 16, "num_workers": 2,
                         "sampler": {"type": "DefaultSampler", "shuffle": True}},
    "optim_wrapper": {"type": "AmpOptimWrapper", "dtype": "bfloat16", "accumulative_counts": 2, "clip_grad": {"max_norm": 1.0},
                      "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
                      "paramwise_cfg": {"norm_decay_mult": 0.0, "custom_keys": {"head": {"lr_mult": 10.0}}}},
    "param_scheduler": SCHEDULES,
    "train_cfg": {"by_epoch": True, "max_epochs": 300, "val_interval": 5},
    "val_dataloader": {"dataset": {"type": "pkg.data:Set", "split": "val"}, "batch_size": 64},
    "val_evaluator": {"acc": {"type": "pkg.metrics:Acc"}}, "val_cfg": {},
    "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 5, "max_keep_ckpts": 3, "save_best": "acc"}},
    "custom_hooks": HOOKS, "randomness": {"seed": 1},
}  # fmt: skip
OBSERVED = Facts(
    world_size=1, train_samples=1437, val_samples=(360,), device_type="cpu", entropy=1, started_at="20260101_000000",
    parameters=tuple(ParameterFact(name=f"{part}.{own}", shape=(8, 8) if own == "weight" else (8,))
                     for part in ("backbone", "head") for own in ("weight", "bias")),
    hooks=tuple(HookFact(place=i, stages=("after_train_iter",)) for i in range(7, 14)),
)  # fmt: skip


def full() -> None:
    """A config of 20 hooks, 6 schedules and 4 parameter groups: plan, one value, and the size of a longer run's plan."""
    made = flexcore.plan(FULL, OBSERVED)
    assert (len(made.hooks), len(FULL["param_scheduler"]), len(made.optimizers[0].groups)) == (20, 6, 4)
    print(
        f"plan(20 hooks, 6 schedules, 4 groups) {latency(lambda: flexcore.plan(FULL, OBSERVED)) * 1e6:6.0f} us (at most 1,000)"
    )
    for at in (50, 2000, 5500):
        print(
            f"value_at(iteration={at}) {latency(lambda at=at: flexcore.value_at(made, iteration=at), 3000) * 1e6:7.2f} us (at most 5)"
        )
    for epochs in (3, 300, 10**9):
        longer = flexcore.plan(
            {**FULL, "train_cfg": {"by_epoch": True, "max_epochs": epochs}, "param_scheduler": SCHEDULES[:1]},
            OBSERVED,
        )
        print(f"plan of {epochs:>13,} epochs {len(longer.to_json()):8,} bytes of JSON")


def main() -> None:
    ours, theirs, ratio = paired("import flexcore", "import attrs, cattrs")
    print(
        f"import flexcore        {ours * 1e3:7.1f} ms CPU against {theirs * 1e3:.1f} for attrs, cattrs: {ratio:.2f}x"
    )
    ours, theirs, ratio = paired("import flexcore; flexcore.plan", "import attrs, cattrs")
    print(f"  and every type used  {ours * 1e3:7.1f} ms CPU against {theirs * 1e3:.1f}: {ratio:.2f}x")
    data = files.read(DIGITS).data
    print(
        f"plan(digits)           {latency(lambda: flexcore.plan(data, FACTS)) * 1e6:7.0f} us, from the mapping"
    )
    config = flexcore.parse(data)
    print(
        f"plan(digits)           {latency(lambda: flexcore.plan(config, FACTS)) * 1e6:7.0f} us, from a Config"
    )
    long = {**data, "train_cfg": {"by_epoch": False, "max_iters": 10**9}}
    for entry in long["param_scheduler"]:
        entry["by_epoch"] = False
    print(
        f"plan(10^9 iterations)  {latency(lambda: flexcore.plan(long, FACTS)) * 1e6:7.0f} us, from the mapping"
    )
    made = flexcore.plan(data, FACTS)
    print(f"value_at               {latency(lambda: flexcore.value_at(made, iteration=300)) * 1e6:7.1f} us")
    full()


if __name__ == "__main__":
    main()
