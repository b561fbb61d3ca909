"""Restarts, cycles and plateaus: every finding, whole, and the values just inside."""

from math import inf

import pytest

from tests.flexcore.base import KNOWN, base, said


def restarting(*weights, periods=(2, 1)):
    return base(
        param_scheduler={
            "type": "CosineRestartLR",
            "periods": list(periods),
            "restart_weights": list(weights),
        }
    )


CASES = {
    "a weight of 0": (restarting(1, 0), KNOWN, []),
    "no end of weight": (restarting(1, inf), KNOWN, [
        "param_scheduler.0.restart_weights: must be finite numbers >= 0, got (1.0, inf). Correct the value. [FK020]",
    ]),
    "no periods": (restarting(periods=()), KNOWN, [
        "param_scheduler.0.periods: must be whole numbers of at least 1, got (). Correct the value. [FK020]",
    ]),
    "one cycle in one step": (
        base(param_scheduler={"type": "OneCycleLR", "eta_max": 1, "total_steps": 1, "pct_start": 1, "div_factor": 0.5}), KNOWN, []
    ),
    "one cycle of none": (
        base(param_scheduler={"type": "OneCycleLR", "eta_max": inf, "total_steps": 1, "pct_start": 0, "final_div_factor": 0}), KNOWN, [
        "param_scheduler.0.eta_max: must be a finite number above 0, got inf. Correct the value. [FK020]",
        "param_scheduler.0.final_div_factor: must be a finite number above 0, got 0.0. Correct the value. [FK020]",
    ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cycles(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
