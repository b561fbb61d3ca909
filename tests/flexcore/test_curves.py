"""Random schedules at every kind of step: to 1e-12 of torch's closed forms, of its steppers, and of 50 digits.

FLEXCORE_CURVES says how many (`make nightly`: 10,000). Torch's chainable schedulers multiply step by step, so their
rounding grows with the run; where they part from the closed form, the 50 digits say who is right.
"""

import math
import os
from itertools import islice
from random import Random
from typing import Any

import pytest
import torch
from mpmath import mp, mpf

from flexcore.curves import value, values
from flexcore.forms import Constant
from tests.flexcore.test_schedules import made

COUNT = int(os.environ.get("FLEXCORE_CURVES", "200"))
T = torch.optim.lr_scheduler
KINDS = ("Constant", "Linear", "Exponential", "Step", "MultiStep", "Poly", "Cosine", "Restart", "OneCycle")


def drawn(index: int) -> tuple[dict[str, Any], Any, float, int]:
    """(our config, torch's scheduler of an optimizer, base LR, steps) number `index`."""
    draw = Random(f"curves:{index}")
    base, n, steps = 10 ** draw.uniform(-5, 1), draw.randint(2, 400), draw.randint(2, 500)
    a, b, power, floor = (
        draw.uniform(0.01, 1),
        draw.uniform(0.01, 1),
        draw.uniform(0.3, 4),
        base * draw.choice((0, draw.uniform(0, 0.9))),
    )
    marks, g = sorted(draw.sample(range(1, 500), draw.randint(0, 5))), draw.uniform(0.9, 1)
    match KINDS[index % len(KINDS)]:
        case "Constant":
            return (
                {"type": "ConstantLR", "factor": a, "end": n + 1},
                lambda o: T.ConstantLR(o, a, n),
                base,
                steps,
            )
        case "Linear":
            config = {"type": "LinearLR", "start_factor": a, "end_factor": b, "end": n + 1}
            return config, lambda o: T.LinearLR(o, a, b, n), base, steps
        case "Exponential":
            return (
                {"type": "ExponentialLR", "gamma": g, "end": steps + 1},
                lambda o: T.ExponentialLR(o, g),
                base,
                steps,
            )
        case "Step":
            return (
                {"type": "StepLR", "step_size": n, "gamma": a, "end": steps + 1},
                lambda o: T.StepLR(o, n, a),
                base,
                steps,
            )
        case "MultiStep":
            config = {"type": "MultiStepLR", "milestones": marks, "gamma": a, "end": steps + 1}
            return config, lambda o: T.MultiStepLR(o, marks, a), base, steps
        case "Poly":
            return (
                {"type": "PolyLR", "power": power, "end": n + 1},
                lambda o: T.PolynomialLR(o, n, power),
                base,
                steps,
            )
        case "Cosine":
            config = {"type": "CosineAnnealingLR", "T_max": n, "eta_min": floor, "end": steps + 1}
            return config, lambda o: T.CosineAnnealingLR(o, n, floor), base, steps
        case "Restart":
            laps = -(-steps // n) + 1
            config = {
                "type": "CosineRestartLR",
                "periods": [n] * laps,
                "restart_weights": [1.0] * laps,
                "eta_min": floor,
            }
            return config, lambda o: T.CosineAnnealingWarmRestarts(o, n, eta_min=floor), base, steps
    rise, div, final = draw.uniform(0.05, 0.95), draw.uniform(1.1, 50), 10 ** draw.uniform(0, 5)
    total, three, style = draw.randint(30, 500), draw.random() < 0.5, draw.choice(("cos", "linear"))
    rise = min(rise, 0.45) if three else rise
    config = {"type": "OneCycleLR", "eta_max": base, "total_steps": total, "pct_start": rise, "div_factor": div,
              "final_div_factor": final, "three_phase": three, "anneal_strategy": style}  # fmt: skip
    cycle = lambda o: T.OneCycleLR(o, base, total_steps=total, pct_start=rise, anneal_strategy=style, div_factor=div,
                                   final_div_factor=final, three_phase=three, cycle_momentum=False)  # fmt: skip
    return config, cycle, base, min(steps, total - 1)


def stepper(factory: Any, base: float) -> Any:
    return factory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base))


def torchs(scheduler: Any, step: int) -> float:
    """Torch's own value at a step, by the formula it has for one where it has one."""
    scheduler.last_epoch = step
    if isinstance(scheduler, T.CosineAnnealingWarmRestarts):
        scheduler.T_cur = step % scheduler.T_i
    closed = getattr(scheduler, "_get_closed_form_lr", None)
    with_steps = {"_get_lr_called_within_step": True}
    vars(scheduler).update(with_steps)
    return float((closed or scheduler.get_lr)()[0])


def apart(ours: float, theirs: float) -> float:
    """Their distance relative to the larger, or to a thousandth of the smallest normal number."""
    return abs(ours - theirs) / max(abs(ours), abs(theirs), 1e-300)


def test_random_schedules_are_torchs_closed_forms_to_1e_12():
    worst, at = 0.0, None
    for index in range(COUNT):
        config, factory, base, steps = drawn(index)
        (ours,) = made(config, total=steps + 1)
        scheduler, draw = stepper(factory, base), Random(index)
        for step in {0, 1, steps, *(draw.randint(0, steps) for _ in range(8))}:
            if isinstance(scheduler, T.MultiStepLR):
                scheduler.milestones = type(scheduler.milestones)(config["milestones"])
            found = apart(value((ours,), base, step, 1), torchs(scheduler, step))
            if found > worst:
                worst, at = found, (index, step, config)
    print(f"{COUNT:,} schedules: worst {worst:.2g} relative to torch's closed forms")
    assert worst <= 1e-12, at


def exact(config: dict[str, Any], base: float, step: int) -> Any:
    """The value to 50 digits, from the definition of each form in its documentation."""
    mp.dps = 50
    lr, t = mpf(base), step
    last = config.get("end", 1) - 1
    match config["type"]:
        case "ConstantLR":
            return lr * (mpf(config["factor"]) if t < last else 1)
        case "LinearLR":
            a, b = mpf(config["start_factor"]), mpf(config["end_factor"])
            return lr * (a + (b - a) * min(t, last) / last)
        case "ExponentialLR":
            return lr * mpf(config["gamma"]) ** t
        case "StepLR":
            return lr * mpf(config["gamma"]) ** (t // config["step_size"])
        case "MultiStepLR":
            return lr * mpf(config["gamma"]) ** sum(m <= t for m in config["milestones"])
        case "PolyLR":
            return lr * (1 - mpf(min(t, last)) / last) ** mpf(config["power"])
        case "CosineAnnealingLR":
            floor = mpf(config["eta_min"])
            return floor + (lr - floor) * (1 + mp.cos(mp.pi * t / config["T_max"])) / 2
    raise AssertionError(config)


def test_random_schedules_are_right_and_torchs_steppers_drift():
    """Ours keeps within 1e-12 of 50 digits (of the base value, where the curve is near 0) as far as one steps."""
    ours_worst = torch_worst = 0.0
    for index in range(0, COUNT * 9 // 7, 4):
        if KINDS[index % len(KINDS)] in ("Restart", "OneCycle"):
            continue
        config, factory, base, steps = drawn(index)
        (ours,) = made(config, total=steps + 1)
        scheduler = stepper(factory, base)
        for _ in range(steps):
            scheduler.optimizer.step()
            scheduler.step()
        right = exact(config, base, steps)
        size = max(abs(right), mpf(base) * mpf(10) ** -3)
        ours_worst = max(ours_worst, float(abs(mpf(value((ours,), base, steps, 1)) - right) / size))
        torch_worst = max(torch_worst, float(abs(mpf(scheduler.get_last_lr()[0]) - right) / size))
    print(f"against 50 digits: ours {ours_worst:.2g}, torch stepped {torch_worst:.2g}")
    assert ours_worst <= 1e-12
    assert math.isfinite(torch_worst)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind):
    assert drawn(KINDS.index(kind))[0]["type"].startswith(kind[:4] if kind != "Restart" else "CosineRestart")


def test_values_go_through_schedules_as_value_does_whatever_their_units():
    """In the order they begin, counted in iterations: 0.7 * 0.1 * 0.3 and 0.7 * 0.3 * 0.1 are two floats."""
    by_epoch = Constant(param="lr", factor_value=0.1, begin=2, end=9, by_epoch=True)
    by_iteration = Constant(param="lr", factor_value=0.3, begin=5, end=90, by_epoch=False)
    schedules = (by_epoch, by_iteration)
    walked = list(islice(values(schedules, 0.7, 10), 60))
    assert walked == [value(schedules, 0.7, iteration, 10) for iteration in range(60)]
    assert walked[30] == 0.7 * 0.3 * 0.1 != 0.7 * 0.1 * 0.3
