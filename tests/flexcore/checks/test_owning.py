"""Which optimizer trains what: every finding, whole, beside those of test_several; and what is none."""

import pytest
from attrs import evolve

from flexcore.facts import ParameterFact
from tests.flexcore.base import KNOWN, base, said

SGD = {"optimizer": {"type": "SGD", "lr": 0.1}}
MUON = {"optimizer": {"type": "Muon", "lr": 0.1}}
ZERO = {"type": "ZeroRedundancyOptimizer", "lr": 0.1}
TWO = evolve(KNOWN, world_size=2)


def seen(*names, facts=KNOWN, shape=(3,), step=True, **more):
    found = tuple(ParameterFact(name=name, shape=shape, **more) for name in names)
    return evolve(facts, parameters=found, train_step=step)


def named(**wrappers):
    return base(optim_wrapper=wrappers)


def sharded(strategy=None, **kwargs):
    return base(optim_wrapper={"optimizer": {**ZERO, **kwargs}}, strategy=strategy)


MATRIX = ParameterFact(name="a.w", shape=(2, 3))
SPARSE = seen("e.w", facts=TWO, kind="sparse", step=False)
FLAT = seen("a", "b", "c", "d", "e")

CASES = {
    "Muon with the matrices of its own submodule": (
        named(a=MUON, b=SGD), evolve(TWO, parameters=(MATRIX, ParameterFact(name="b.w", shape=(3,))), train_step=True), []
    ),
    "sparse gradients that torch averages": (base(), SPARSE, []),
    "sparse gradients on one rank": (base(), evolve(SPARSE, world_size=1, train_step=True), []),
    "windows of one, said once": (named(a={**SGD, "accumulative_counts": 1}, b=SGD), KNOWN, []),
    "windows of none": (named(a={**SGD, "accumulative_counts": 2}, b=SGD), KNOWN, [
        "optim_wrapper: accumulative_counts differs: a 2, b 1; all optimizers share the run's accumulation windows. Give all the same; train_step decides how often each is updated. [FO005]",
    ]),
    "a strategy that did not parse": (
        base(optim_wrapper={"a": SGD, "b": SGD}, strategy={"type": "FSDPStrategy", "shard_size": "x"}), TWO, [
        "strategy.shard_size: must be an integer or None, got 'x'. Correct the value. [FK011]",
    ]
    ),
    "no submodule of that name": (named(zzz=SGD, head=SGD), seen("body.block.0.w", "head.w", "w"), [
        "optim_wrapper.zzz: is not a submodule of the model with parameters. Submodules: body, head. [FO003]",
        "optim_wrapper: no optimizer trains body.block.0.w, w. Add an optimizer for that submodule, or freeze it. [FO001]",
    ]),
    "no submodules": (named(zzz=SGD), seen("w", "v"), [
        "optim_wrapper.zzz: is not a submodule of the model with parameters. Submodules: none. [FO003]",
        "optim_wrapper: no optimizer trains w, v. Add an optimizer for that submodule, or freeze it. [FO001]",
    ]),
    "a submodule within": (named(**{"body.blok": SGD, "body.block": SGD}), seen("body.block.w"), [
        'optim_wrapper.body.blok: is not a submodule of the model with parameters. Did you mean "body.block"? [FO003]',
    ]),
    "an empty name": (named(**{"": SGD, "a": SGD}), seen("a.w"), [
        "optim_wrapper.: '' cannot be the name of a submodule. Write \"generator\", or \"parts.generator\". [FO003]",
        "optim_wrapper.: is not a submodule of the model with parameters. Submodules: a. [FO003]",
    ]),
    "five flat ones": (base(optim_wrapper=MUON), FLAT, [
        "optim_wrapper.optimizer: Muon takes matrices alone, and a, b, c, d, e are not of two dimensions. Give them an optimizer of their own: several, named by submodule, and a model with train_step. [FO006]",
    ]),
    "six flat ones": (base(optim_wrapper={"optimizer": {"type": "torch.optim.Muon", "lr": 0.1}}),
                      evolve(FLAT, parameters=(*FLAT.parameters, ParameterFact(name="f", shape=(2, 2, 2)))), [
        "optim_wrapper.optimizer: Muon takes matrices alone, and a, b, c, d, e and 1 more are not of two dimensions. Give them an optimizer of their own: several, named by submodule, and a model with train_step. [FO006]",
    ]),
    "torch's, by module and name": (base(optim_wrapper={"optimizer": {"type": "torch.optim:Muon", "lr": 0.1}}), seen("a"), [
        "optim_wrapper.optimizer: Muon takes matrices alone, and a is not of two dimensions. Give them an optimizer of their own: several, named by submodule, and a model with train_step. [FO006]",
    ]),
    "one's own of that name": (base(optim_wrapper={"optimizer": {"type": "mine:Muon", "lr": 0.1}}), FLAT, []),
    "spread under FSDP": (sharded("FSDPStrategy", optimizer_type="AdamW"), TWO, [
        "optim_wrapper.optimizer: spreads optimizer state over the ranks of DDPStrategy alone. Run with --nproc N or torchrun under DDPStrategy, or use 'AdamW'. [FO007]",
        "optim_wrapper.optimizer: ZeroRedundancyOptimizer looks at whole parameters, and a rank holds a share of each. Use an optimizer that goes number by number, or DDPStrategy. [FP021]",
    ]),
    "spread on one rank, without saying what": (sharded(), KNOWN, [
        'optim_wrapper.optimizer: lacks the key "optimizer_type". Add optimizer_type="AdamW". [FK012]',
        "optim_wrapper.optimizer: spreads optimizer state over ranks, and this run has one. Run with --nproc N or torchrun under DDPStrategy. [FO007]",
    ]),
    "spread on one rank, of another spread": (sharded(optimizer_class="ZeroRedundancyOptimizer"), KNOWN, [
        'optim_wrapper.optimizer.optimizer_class: is a ZeroRedundancyOptimizer itself. Write "AdamW". [FK013]',
        "optim_wrapper.optimizer: spreads optimizer state over ranks, and this run has one. Run with --nproc N or torchrun under DDPStrategy. [FO007]",
    ]),
    "spread under a strategy that did not parse": (sharded("DDPStratgy", optimizer_type="SGD"), KNOWN, [
        "strategy.type: 'DDPStratgy' is not a known strategy. Did you mean \"DDPStrategy\"? [FK013]",
    ]),
    "spread under a launcher that did not parse": (
        {**sharded(optimizer_type="SGD"), "launcher": "torch"}, KNOWN, [
        "launcher: must be \"none\" or \"pytorch\" or \"slurm\" or \"mpi\" or None, got 'torch'. Correct the value. [FK011]",
    ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_owning(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
