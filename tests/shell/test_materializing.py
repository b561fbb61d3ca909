"""Weights that only rank 0 initialises: the same run to the bit, and no memory for them elsewhere."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
import torch
from torch import nn

from shell.materializing import hollowed, without_memory
from tests.ranks import run_ranks
from tests.shell import test_tensor_parallel as tensor_parallel
from tests.shell import toys
from tests.shell.test_fsdp import Block

HERE = "tests.shell.test_materializing"


class Shared(nn.Module):
    """Two names of one parameter, dropout, and buffers: one a checkpoint holds and one it does not."""

    _no_split_modules = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(toys.FEATURES, 5)
        self.blocks = nn.ModuleList([Block(5), Block(5)])
        self.again = nn.Linear(toys.FEATURES, 5, bias=False)
        self.again.weight = self.first.weight
        self.last = nn.Linear(5, toys.CLASSES)
        self.register_buffer("scale", torch.rand(5))
        self.register_buffer("shift", torch.rand(5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.first(x) + self.again(x) * self.scale + self.shift
        for block in self.blocks:
            seen = nn.functional.dropout(block(seen), 0.2, self.training)
        return self.last(seen)


def test_hollowed_parameters_stay_shared_and_their_values_are_kept():
    model = Shared()
    before = {name: value.clone() for name, value in model.named_parameters()}
    values = hollowed(model)
    assert values.keys() == before.keys()
    assert all(torch.equal(values[name], before[name]) for name in before)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.again.weight is model.first.weight
    assert model.scale.device.type == "cpu"


def test_parameters_made_without_memory_stay_shared():
    with without_memory():
        model = Shared()
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.again.weight is model.first.weight
    assert nn.Linear(1, 1).weight.device.type == "cpu"


def config(work_dir, strategy, **changes):
    strategy = dict(type="FSDPStrategy", **strategy)
    return toys.config(work_dir, model=dict(type=f"{HERE}:Shared"), strategy=strategy, **changes)


def trained(work_dir, strategy, **changes):
    ended = run_ranks(2, toys.trained_rank, config(work_dir, strategy, **changes))[0]
    assert toys.differences(work_dir) == []
    return ended["metrics"], toys.weights(work_dir)


@pytest.mark.parametrize(
    "more", toys.sampled([dict(cpu_offload=True), dict(), dict(wrap=[])], without=[1, 2]), ids=str
)
def test_weights_dealt_by_rank_0_train_to_the_same_bits(more, tmp_path):
    """Averages, dropout and buffers with them; what a rank draws does not depend on who initialised."""
    hooks = [dict(type="EMAHook", momentum=0.3)]
    alone = trained(tmp_path / "dealt", dict(meta_init=True, **more), custom_hooks=hooks)
    assert alone == trained(tmp_path / "each", more, custom_hooks=hooks)
    stopped = [*hooks, dict(type="tests.shell.toys:Wishes", stop=7)]
    run_ranks(
        2, toys.trained_rank, config(tmp_path / "again", dict(meta_init=True, **more), custom_hooks=stopped)
    )
    assert trained(tmp_path / "again", dict(meta_init=True, **more), custom_hooks=hooks) == alone


@pytest.mark.skipif(not toys.EVERY, reason="in the nightly run: four ranks, three times")
def test_layers_cut_over_groups_are_dealt_as_well(tmp_path):
    """Two shares of two cut copies: the same weights as where each rank initialises."""
    found = []
    for dealt in (True, False):
        strategy = dict(tensor_parallel.SHARED, meta_init=dealt)
        cfg = tensor_parallel.config(tmp_path / str(dealt), strategy=strategy)
        run_ranks(4, toys.trained_rank, cfg)
        found.append(toys.weights(tmp_path / str(dealt)))
    assert found[0] == found[1]
