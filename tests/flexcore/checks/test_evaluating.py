"""Predictions written to files: every finding, whole, beside those of test_evaluating."""

import pytest
from attrs import evolve

from tests.flexcore.base import KNOWN, base, said

LOADER = {"dataset": "pkg:D", "batch_size": 4}
TWO = evolve(KNOWN, test_samples=(10, None))


def dumping(loaders=LOADER, **settings):
    return base(test_dataloader=loaders, test_cfg={}, test_evaluator={"type": "DumpResults", **settings})


CASES = {
    "without a file": (dumping(), KNOWN, [
        'test_evaluator.0: lacks the key "out_file_path". Add "out_file_path". [FK012]',
    ]),
    "a dotted name": (dumping(out_file_path="a/b.c.jsonl"), KNOWN, []),
    "a dotted name of another kind": (dumping(out_file_path="a.jsonl/b.pkl"), KNOWN, [
        "test_evaluator.0.out_file_path: must be a path without suffix or with .safetensors or .jsonl, got 'a.jsonl/b.pkl'. Without a suffix the predictions themselves decide. [FC010]",
    ]),
    "the stream alone": (dumping([LOADER, LOADER], out_file_path="x"), TWO, [
        "test_dataloader.1: has an order of its own, and predictions are written in the dataset's. Use DefaultSampler, and a dataset with a length. [FK014]",
    ]),
    "more loaders than were seen": (dumping([LOADER, LOADER], out_file_path="x"), KNOWN, [
        "test_dataloader: has 2 loaders, and 1 were observed. Observe this config's own datasets. [FK022]",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_evaluating(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
