"""Schedules and the optimizers they name: every finding, whole; nothing follows from a key that did not parse."""

from math import inf

import pytest
from attrs import evolve

from flexcore import GroupFact
from tests.flexcore.base import KNOWN, base, said, validating

PLATEAU = [{"type": "ReduceOnPlateauLR", "monitor": "loss"}]


def cosine(**more):
    return {"type": "CosineAnnealingLR", **more}


def grouped(*values):
    return evolve(KNOWN, parameter_groups=tuple(GroupFact(values=value) for value in values))


CASES = {
    "a validation that did not parse": (validating(param_scheduler=PLATEAU, val_cfg=3), KNOWN, [
        "val_cfg: must be a mapping or None, got 3. Correct the value. [FK011]",
    ]),
    "wrappers that did not parse": (base(param_scheduler={"generator": [cosine()]}, optim_wrapper=3), KNOWN, [
        "optim_wrapper: must be a mapping or None, got 3. Correct the value. [FK011]",
    ]),
    "momentum, in one group of two": (
        base(param_scheduler={"type": "StepMomentum", "step_size": 1}),
        grouped((("lr", 0.1), ("momentum", 0.0)), (("lr", 0.1), ("rho", 0.9))), [
        "param_scheduler.0: moves 'momentum', and a group of the optimizer has lr, rho. Schedule a key the optimizer has. [FS008]",
    ]
    ),
    "momentum, in no group's numbers": (
        base(param_scheduler={"type": "StepMomentum", "step_size": 1}), grouped(()), [
        "param_scheduler.0: moves 'momentum', and a group of the optimizer has nothing. Schedule a key the optimizer has. [FS008]",
    ]
    ),
    "an end at the beginning": (base(param_scheduler=cosine(begin=2, end=2)), KNOWN, [
        "param_scheduler.0.end: is 2, not after begin=2. Set end above 2. [FS001]",
    ]),
    "floors and periods": (
        base(param_scheduler=[cosine(eta_min=inf), cosine(eta_min_ratio=inf, T_max=1), cosine(eta_min=0, T_max=0)]), KNOWN, [
        "param_scheduler.0.eta_min: must be a finite number >= 0, got inf. Correct the value. [FK020]",
        "param_scheduler.1.eta_min_ratio: must be a finite number >= 0, got inf. Correct the value. [FK020]",
        "param_scheduler.2.T_max: must be at least 1, got 0. Correct the value. [FK020]",
    ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_schedules(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
