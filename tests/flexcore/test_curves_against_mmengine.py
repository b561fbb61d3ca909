"""Random lists of schedules, overlapping too, against mmengine 0.10.7's own schedulers; where it is not installed, skipped.

`make nightly` installs it in an environment of its own. FLEXCORE_CURVES says how many.
"""

import os
from itertools import islice
from random import Random
from typing import Any

import pytest

mmengine = pytest.importorskip(
    "mmengine.optim", reason="mmengine 0.10.7 is installed for `make nightly` alone"
)

import torch  # noqa: E402 - what follows is of use beside mmengine only

from flexcore.config import Config  # noqa: E402
from flexcore.converting import structure  # noqa: E402
from flexcore.curves import lost, resolved, values  # noqa: E402

COUNT = int(os.environ.get("FLEXCORE_CURVES", "200"))
TOTAL = 60


def drawn(index: int) -> tuple[list[dict[str, Any]], float, int]:
    """(schedules, base LR, epoch length) number `index`: forms with a closed form and without, in any overlap."""
    draw = Random(f"mmengine:{index}")
    length = draw.randint(1, 6)
    forms: dict[str, Any] = {
        "ConstantLR": lambda: {"factor": draw.uniform(0.05, 1)},
        "LinearLR": lambda: {"start_factor": draw.uniform(0.05, 1), "end_factor": draw.uniform(0.05, 1)},
        "ExponentialLR": lambda: {"gamma": draw.uniform(0.8, 1)},
        "StepLR": lambda: {"step_size": draw.randint(1, 9), "gamma": draw.uniform(0.2, 1)},
        "MultiStepLR": lambda: {
            "milestones": sorted(draw.sample(range(1, 40), 3)),
            "gamma": draw.uniform(0.2, 1),
        },
        "CosineAnnealingLR": lambda: {"eta_min": draw.uniform(0, 0.05)},
        "PolyLR": lambda: {"power": draw.uniform(0.5, 3), "eta_min": draw.uniform(0, 0.05)},
    }
    found = []
    for _ in range(draw.randint(1, 3)):
        kind, by_epoch = draw.choice(sorted(forms)), draw.random() < 0.3
        last = TOTAL // length if by_epoch else TOTAL
        begin = draw.randint(0, max(0, last - 3))
        end = draw.randint(begin + 2, last + 3)
        found.append({"type": kind, "begin": begin, "end": end, "by_epoch": by_epoch, **forms[kind]()})
    return found, 10 ** draw.uniform(-3, 0), length


def theirs(schedules: list[dict[str, Any]], base: float, length: int) -> list[float]:
    """The LR of each iteration, schedulers stepped as mmengine's ParamSchedulerHook steps them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    own = [(dict(s), getattr(mmengine, s["type"])) for s in schedules]
    made = [(s["by_epoch"], cls(optimizer, **{k: v for k, v in s.items() if k != "type"})) for s, cls in own]
    found = []
    for done in range(1, TOTAL + 1):
        found.append(optimizer.param_groups[0]["lr"])
        for by_epoch, scheduler in made:
            if not by_epoch:
                scheduler.step()
        if done % length == 0:
            for by_epoch, scheduler in made:
                if by_epoch:
                    scheduler.step()
    return found


def test_random_schedules_are_mmengines_to_1e_12():
    worst, at, compared = 0.0, None, 0
    for index in range(COUNT):
        schedules, base, length = drawn(index)
        config = structure({"param_scheduler": schedules}, Config)
        own = tuple(
            resolved(s, by_epoch=False, epoch_length=length, total_epochs=TOTAL, total=TOTAL)
            for s in config.param_scheduler
        )
        if lost(own, length):
            continue  # refused: no factor leads up from 0
        compared += 1
        for step, (a, b) in enumerate(
            zip(islice(values(own, base, length), TOTAL), theirs(schedules, base, length), strict=True)
        ):
            found = abs(a - b) / max(abs(a), abs(b), 1e-3 * base)
            if found > worst:
                worst, at = found, (index, step, a, b, schedules)
    print(f"{compared:,} lists of schedules: worst {worst:.2g} relative to mmengine {mmengine.__name__}")
    assert compared > 0.9 * COUNT
    assert worst <= 1e-12, at
