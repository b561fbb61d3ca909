"""Optimizers that take some parameters only: they train as by hand, go on to the bit, or are refused by name."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
import torch
from torch import nn

import flexcore
from flexcore.problems import ConfigError
from tests.ranks import run_alone, run_ranks
from tests.shell import toys
from tests.shell.gans import Matrices, Texts, Words
from tests.shell.toys import Points

HERE = "tests.shell.gans"
MUON = dict(type="Muon", lr=0.02, weight_decay=0.05)
FALLING = [dict(type="CosineAnnealingLR", by_epoch=False)]


def words(work_dir, optimizer, *, sparse=True, clip=None, epochs=3, **changes):
    return toys.config(
        work_dir, model=dict(type=f"{HERE}:Words", sparse=sparse), loss=None,
        train_dataloader=dict(dataset=dict(type=f"{HERE}:Texts"), batch_size=4),
        optim_wrapper=dict(optimizer=optimizer, clip_grad=clip),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=None, val_evaluator=None, val_cfg=None, **changes,
    )  # fmt: skip


def matrices(work_dir, epochs=3):
    return toys.config(
        work_dir, model=dict(type=f"{HERE}:Matrices"), train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=MUON, clip_grad=dict(max_norm=0.5)),
    )  # fmt: skip


def by_hand(cfg, make, loss_of, clip=None):
    """Plain PyTorch over the planned samples at the planned rates; the weights at the end."""
    plan = flexcore.plan({**cfg, "resume": False}, flexcore.Facts(train_samples=34, world_size=1))
    torch.manual_seed(7)
    model, optimizer = make()
    for i in range(plan.timeline.max_iters):
        indices = list(flexcore.sample_indices(plan, epoch=i // 9))[i % 9 * 4 : i % 9 * 4 + 4]
        optimizer.param_groups[0]["lr"] = flexcore.value_at(plan, iteration=i).value
        optimizer.zero_grad()
        loss_of(model, indices).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_sparse_adam_trains_as_by_hand(tmp_path):
    cfg = words(tmp_path, dict(type="SparseAdam", lr=0.1), param_scheduler=FALLING)
    run_alone(toys.trained, cfg)
    data = Texts()

    def make():
        model = Words()
        return model, torch.optim.SparseAdam(model.parameters(), lr=0.1)

    def loss_of(model, indices):
        return model(data.words[indices], data.words[indices].argmax(1))["loss"]

    assert toys.weights(tmp_path) == by_hand(cfg, make, loss_of)
    assert toys.differences(tmp_path) == []


def test_muon_trains_as_by_hand(tmp_path):
    cfg = matrices(tmp_path)
    run_alone(toys.trained, cfg)
    data = Points(34)

    def make():
        model = Matrices()
        return model, torch.optim.Muon(model.parameters(), lr=0.02, weight_decay=0.05)

    def loss_of(model, indices):
        return nn.functional.cross_entropy(model(data.inputs[indices]), data.labels[indices])

    assert toys.weights(tmp_path) == by_hand(cfg, make, loss_of, clip=0.5)
    assert toys.differences(tmp_path) == []


@pytest.mark.parametrize("clip", [dict(max_norm=0.2), dict(type="value", clip_value=0.02)])
def test_sparse_gradients_are_clipped_as_dense_ones(clip, tmp_path):
    """SGD without momentum moves the same places either way; a guard looks at the gradients too."""
    found = []
    for name, sparse in (("sparse", True), ("dense", False), ("free", True)):
        own = None if name == "free" else clip
        guard = dict(type="NaNGuardHook", check="both")
        cfg = words(tmp_path / name, dict(type="SGD", lr=1.0), sparse=sparse, clip=own, custom_hooks=[guard])
        toys.trained(cfg)
        tensor = torch.frombuffer(
            bytearray(toys.weights(tmp_path / name)["scores.weight"]), dtype=torch.float32
        )
        found.append(tensor)
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


def test_sparse_gradients_are_averaged_over_ranks(tmp_path):
    """By DDP itself: two ranks train as one."""
    for ranks in (1, 2):
        cfg = words(tmp_path / str(ranks), dict(type="SGD", lr=1.0), global_batch_size=8)
        cfg["train_dataloader"]["batch_size"] = 8 // ranks
        run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(2, toys.trained_rank, cfg)
    one, two = (
        torch.frombuffer(bytearray(toys.weights(tmp_path / n)["scores.weight"]), dtype=torch.float32)
        for n in "12"
    )
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("kind", ["sparse", "muon"])
def test_they_go_on_to_the_bit(kind, tmp_path):
    """Two epochs, then the third in another process, against three in one."""
    adam = dict(type="SparseAdam", lr=0.1)
    for name, parts in (("whole", (3,)), ("parts", (2, 3))):
        for epochs in parts:
            cfg = (
                matrices(tmp_path / name, epochs)
                if kind == "muon"
                else words(tmp_path / name, adam, epochs=epochs)
            )
            run_alone(toys.trained, cfg | dict(param_scheduler=None))
    assert toys.weights(tmp_path / "parts") == toys.weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(optim_wrapper=dict(optimizer=MUON)),
         ("optim_wrapper.optimizer: Muon takes matrices alone, and 0.bias, 3.bias are not of two dimensions. Give them "
          "an optimizer of their own: several, named by submodule, and a model with train_step. [FO006]")),
        (dict(optim_wrapper=dict(optimizer=dict(type="SparseAdam"))),
         ("optim_wrapper.optimizer: SparseAdam takes sparse gradients alone, and those of 0.weight, 0.bias, 3.weight, "
          "3.bias are dense. Give them an optimizer of their own: several, named by submodule, and a model with "
          "train_step. [FO006]")),
        (dict(model=dict(type=f"{HERE}:Words"), loss=None),
         ("optim_wrapper.optimizer: AdamW takes dense gradients alone, and those of scores.weight are sparse. "
          "Use SGD, Adagrad or SparseAdam for them, or sparse=False. [FO006]")),
    ],
)  # fmt: skip
def test_parameters_an_optimizer_cannot_take_are_named_before_any_effect(changes, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        toys.trained(toys.config(tmp_path / "run", **changes))
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()
