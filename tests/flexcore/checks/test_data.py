"""Loaders of training and evaluation: every finding, whole; a batch size may be solved for, or wait for a key to parse."""

from math import inf

import pytest
from attrs import evolve

from flexcore import Supplied
from tests.flexcore.base import KNOWN, base, said, validating

PLAIN = {"optimizer": {"type": "SGD", "lr": 0.1}}
TWICE = {**PLAIN, "accumulative_counts": 2}
SIZELESS = {"dataset": "pkg:D"}
UNSEEN = evolve(KNOWN, val_samples=None)


def loader(**more):
    return {"dataset": "pkg:D", "batch_size": 4, **more}


CASES = {
    "a batch size solved for": (base(train_dataloader=SIZELESS, global_batch_size=10, optim_wrapper=TWICE), KNOWN, []),
    "the whole batch alone": (base(train_dataloader=SIZELESS, global_batch_size=10), KNOWN, [
        "train_dataloader.batch_size: is missing, and global_batch_size with accumulative_counts does not fix it. Set batch_size: samples per rank and micro-batch. [FD001]",
    ]),
    "accumulation alone": (base(train_dataloader=SIZELESS, optim_wrapper=TWICE), KNOWN, [
        "train_dataloader.batch_size: is missing, and global_batch_size with accumulative_counts does not fix it. Set batch_size: samples per rank and micro-batch. [FD001]",
    ]),
    "a whole batch that did not parse": (base(train_dataloader=SIZELESS, global_batch_size="x"), KNOWN, [
        "global_batch_size: must be an integer or None, got 'x'. Correct the value. [FK011]",
    ]),
    "a wrapper that did not parse": (base(train_dataloader=SIZELESS, optim_wrapper=3), KNOWN, [
        "optim_wrapper: must be a mapping or None, got 3. Correct the value. [FK011]",
    ]),
    "evaluations by name": (
        validating(val_dataloader={"a": Supplied(), "b": loader(batch_size=0, num_workers=-1)}), UNSEEN, [
        "val_dataloader.b.batch_size: must be at least 1, got 0. Correct the value. [FK020]",
        "val_dataloader.b.num_workers: must be at least 0, got -1. Correct the value. [FK020]",
    ]
    ),
    "evaluations by number": (validating(val_dataloader=[loader(), loader(timeout=inf, num_workers=1)]), UNSEEN, [
        "val_dataloader.1.timeout: must be seconds >= 0, got inf. Correct the value. [FK020]",
    ]),
    "workers": (
        base(train_dataloader=loader(num_workers=1, prefetch_factor=1, timeout=0, num_batch_per_epoch=1)), KNOWN, [
        "train_dataloader: leaves out 96 samples in every epoch. Change batch_size or drop_last if unwanted. [FD007]",
    ]
    ),
    "workers, too little of each": (
        base(train_dataloader=loader(num_workers=1, prefetch_factor=0, num_batch_per_epoch=0)), KNOWN, [
        "train_dataloader.prefetch_factor: must be at least 1, got 0. Correct the value. [FK020]",
        "train_dataloader.num_batch_per_epoch: must be at least 1, got 0. Correct the value. [FK020]",
    ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_loaders(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
