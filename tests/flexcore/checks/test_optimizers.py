"""Paramwise settings, optimizers that are not built, and what schedules move: every finding, whole."""

from math import inf

import pytest
from attrs import evolve

from flexcore.facts import ParameterFact
from tests.flexcore.base import KNOWN, base, said


def wrapper(kind="SGD", kwargs=(), **paramwise):
    return {"optimizer": {"type": kind, "lr": 0.1, **dict(kwargs)}, "paramwise_cfg": paramwise}


def keyed(**keys):
    return base(optim_wrapper=wrapper(custom_keys=keys))


TWICE = {"lr_mult": 2.0}
SEEN = evolve(
    KNOWN,
    parameters=(
        ParameterFact(name="w", shape=(3,)),
        ParameterFact(name="head.fc.w", shape=(3,)),
        ParameterFact(name="body.w", shape=(3,), requires_grad=False),
    ),
)
MINE = wrapper("pkg:Mine", {"weight_decay": 0.1, "rho": 1})

CASES = {
    "part of a name, frozen or not, a top-level one after a dot": (
        keyed(**{".w": TWICE, "head.fc": TWICE, "d.fc.w": TWICE, "body": TWICE}), SEEN, []
    ),
    "a misspelt path": (keyed(**{"head.fcc": TWICE}), SEEN, [
        "optim_wrapper.paramwise_cfg.custom_keys.head.fcc: is in no parameter's name, so it changes nothing. Did you mean \"head.fc\"? [FS010]",
    ]),
    "a misspelt module": (keyed(heda=TWICE), SEEN, [
        "optim_wrapper.paramwise_cfg.custom_keys.heda: is in no parameter's name, so it changes nothing. Did you mean \"head\"? [FS010]",
    ]),
    "nothing like it": (keyed(zzz=TWICE), SEEN, [
        "optim_wrapper.paramwise_cfg.custom_keys.zzz: is in no parameter's name, so it changes nothing. Parameters: 'w, head.fc.w, body.w'. [FS010]",
    ]),
    "a parameter of the other optimizer": (
        base(optim_wrapper={"head": wrapper(custom_keys={"body": TWICE}), "body": wrapper()}),
        evolve(SEEN, parameters=(SEEN.parameters[1], evolve(SEEN.parameters[2], requires_grad=True))), [
        "optim_wrapper.head.paramwise_cfg.custom_keys.body: is in no parameter's name, so it changes nothing. Parameters: 'head.fc.w'. [FS010]",
    ]
    ),
    "multipliers": (
        base(optim_wrapper=wrapper(kwargs={"weight_decay": 0.1}, bias_lr_mult=inf, norm_decay_mult=0.0, flat_decay_mult=-1,
                                   bypass_duplicate=True)), KNOWN, [
        "optim_wrapper.paramwise_cfg.bias_lr_mult: must be a finite number >= 0, got inf. Correct the value. [FK020]",
        "optim_wrapper.paramwise_cfg.flat_decay_mult: must be a finite number >= 0, got -1.0. Correct the value. [FK020]",
    ]
    ),
    "settings of an optimizer of one's own": (
        base(optim_wrapper={**MINE, "paramwise_cfg": {"custom_keys": {
            "a": {"rho": 2, "lr_mult": 1, "decay_mult": 0}, "b": {"qqqq": 1, "lrs": 2},
            "c": {"lr": -1, "weight_decay": inf, "lr_mult": -1, "decay_mult": "x"}}}}), KNOWN, [
        "optim_wrapper.paramwise_cfg.custom_keys.b.qqqq: is neither a multiplier nor a setting of Mine. Remove it. [FK010]",
        'optim_wrapper.paramwise_cfg.custom_keys.b.lrs: is neither a multiplier nor a setting of Mine. Did you mean "lr"? [FK010]',
        "optim_wrapper.paramwise_cfg.custom_keys.c.lr: must be a finite number >= 0, got -1. Correct the value. [FK020]",
        "optim_wrapper.paramwise_cfg.custom_keys.c.weight_decay: must be a finite number >= 0, got inf. Correct the value. [FK020]",
        "optim_wrapper.paramwise_cfg.custom_keys.c.lr_mult: must be a finite number >= 0, got -1. Correct the value. [FK020]",
        "optim_wrapper.paramwise_cfg.custom_keys.c.decay_mult: must be a finite number >= 0, got 'x'. Correct the value. [FK020]",
    ]
    ),
    "settings every optimizer has": (
        base(optim_wrapper={"optimizer": {"type": "pkg:Mine", "lr": 0.1}, "paramwise_cfg": {"custom_keys": {
            "a": {"lr": 0.2, "weight_decay": 0.0, "betas": (0.1, 0.2)}}}}), KNOWN, []
    ),
    "settings every optimizer has, without a rate": (
        base(optim_wrapper={"optimizer": {"type": "pkg:Mine"}, "paramwise_cfg": {"custom_keys": {"a": {"lr": 0.2}}}}), KNOWN, [
        "optim_wrapper.paramwise_cfg: multiplies the LR, which the optimizer's config does not give. Give lr in optim_wrapper.optimizer. [FS011]",
    ]
    ),
    "LBFGS": (base(optim_wrapper=wrapper("LBFGS")), KNOWN, [
        "optim_wrapper.optimizer.type: 'LBFGS' is known but not built: it evaluates the loss several times a step, through a closure, so no plan can count its steps. Use AdamW or SGD. [FK014]",
    ]),
    "torch's LBFGS": (base(optim_wrapper=wrapper("torch.optim:LBFGS")), KNOWN, [
        "optim_wrapper.optimizer.type: 'torch.optim:LBFGS' is known but not built: it evaluates the loss several times a step, through a closure, so no plan can count its steps. Use AdamW or SGD. [FK014]",
    ]),
    "another's LBFGS": (base(optim_wrapper=wrapper("mine:LBFGS")), KNOWN, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_optimizers(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
