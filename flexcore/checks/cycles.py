"""Rules of the schedules with values of their own: cosine restarts, one cycle, plateaus."""

import math
from collections.abc import Callable, Iterator, Mapping

from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem
from flexcore.schedules import CosineRestart, OneCycle, ReduceOnPlateau, Schedule

Range = tuple[str, Callable[[float], bool]]
# key: (the rule in words, what keeps it)
POSITIVE: Range = ("must be a finite number above 0", lambda value: 0 < value < math.inf)
WHOLE: Range = ("must be at least 0", lambda value: 0 <= value < math.inf)
RANGES: Mapping[type, Mapping[str, Range]] = {
    OneCycle: {
        "eta_max": POSITIVE, "div_factor": POSITIVE, "final_div_factor": POSITIVE,
        "pct_start": ("must be between 0 and 1", lambda value: 0 <= value <= 1),
        "total_steps": ("must be at least 1", lambda value: value >= 1),
    },
    ReduceOnPlateau: {
        "factor": ("must be below 1, or nothing is reduced", lambda value: value < 1),
        "patience": WHOLE, "threshold": WHOLE, "cooldown": WHOLE, "min_value": WHOLE, "eps": WHOLE,
    },
}  # fmt: skip


def cycles(schedule: Schedule, path: Path, *, validates: bool) -> Iterator[Problem]:
    for key, (rule, holds) in RANGES.get(type(schedule), {}).items():
        value = getattr(schedule, "factor_value" if key == "factor" else key)
        if value is not None and not holds(value):
            yield problem("FK020", (*path, key), f"{rule}, got {shown(value)}.", "Correct the value.")
    if isinstance(schedule, CosineRestart):
        yield from _restarts(schedule, path)
    if isinstance(schedule, ReduceOnPlateau):
        yield from _plateau(schedule, path, validates=validates)


def _restarts(schedule: CosineRestart, path: Path) -> Iterator[Problem]:
    if not schedule.periods or min(schedule.periods) < 1:
        text = f"must be whole numbers of at least 1, got {shown(schedule.periods)}."
        yield problem("FK020", (*path, "periods"), text, "Correct the value.")
    if len(schedule.restart_weights) != len(schedule.periods):
        text = f"are {len(schedule.restart_weights)} for {len(schedule.periods)} periods."
        yield problem("FK020", (*path, "restart_weights"), text, "Give one a period.")
    if not all(0 <= weight < math.inf for weight in schedule.restart_weights):
        text = f"must be finite numbers >= 0, got {shown(schedule.restart_weights)}."
        yield problem("FK020", (*path, "restart_weights"), text, "Correct the value.")


def _plateau(schedule: ReduceOnPlateau, path: Path, *, validates: bool) -> Iterator[Problem]:
    if not validates:
        text = f"watches {schedule.monitor}, and nothing is validated."
        yield problem("FS009", (*path, "monitor"), text, "Add val_dataloader, val_evaluator and val_cfg.")
    if schedule.convert_to_iter_based:
        text = "converts epochs to iterations, but a plateau moves at validations only."
        yield problem("FK019", (*path, "convert_to_iter_based"), text, "Remove it.")
