"""What deciding costs: import CPU against `import attrs, cattrs`, and plan() latency, side by side.

python benchmarks/planning.py
"""

import resource
import statistics
import subprocess
import sys
from time import perf_counter

import flexcore
from flexcore import Facts
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


if __name__ == "__main__":
    main()
