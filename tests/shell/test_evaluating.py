"""Validation and test: every sample counted once on any number of ranks, and training none the wiser."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import itertools
import json
import os

import pytest
import torch

from shell.checkpoints import Store
from shell.processes import joined
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

F1 = dict(type="torchmetrics:F1Score", task="multiclass", num_classes=3, average="macro")
AUROC = dict(
    type="torchmetrics:AUROC", task="multiclass", num_classes=3
)  # keeps every prediction until the end


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint to evaluate."""
    work_dir = tmp_path_factory.mktemp("trained")
    run_alone(toys.trained, toys.config(work_dir))
    return work_dir / "checkpoints" / "epoch_3"


def evaluation(work_dir, checkpoint, mode, sizes, **changes):
    """A config that only evaluates `checkpoint`, over named loaders of so many points in batches of 3."""
    loaders = {
        name: dict(dataset=dict(type="tests.shell.toys:Points", n=n, seed=n), batch_size=3)
        for name, n in sizes.items()
    }
    part = {f"{mode}_dataloader": loaders if len(loaders) > 1 else next(iter(loaders.values())), f"{mode}_cfg": dict(),
            f"{mode}_evaluator": dict(accuracy=toys.ACCURACY, f1=F1, auroc=AUROC)}  # fmt: skip
    none = dict.fromkeys(
        (
            "train_dataloader",
            "train_cfg",
            "optim_wrapper",
            "param_scheduler",
            "val_dataloader",
            "val_evaluator",
            "val_cfg",
        )
    )
    return toys.config(work_dir, **(none | part | dict(resume=None, load_from=str(checkpoint)) | changes))


SIZES = [24, 23, 7, 1]


def evaluated(rank, mode, cfgs):
    """Several evaluations in one process and one group, one after the other."""
    with joined("pytorch" if "RANK" in os.environ else "none", "gloo", 60):
        return [toys.trained(cfg, mode)["metrics"] for cfg in cfgs]


@pytest.mark.parametrize("mode", ["val", "test"])
def test_values_do_not_depend_on_the_number_of_ranks(mode, trained, tmp_path):
    """Uneven shards, a rank with fewer batches, a rank with none: each sample counts once, to the last bit."""
    one, two = (
        [evaluation(tmp_path / f"{n} on {ranks}", trained, mode, {"only": n}) for n in SIZES]
        for ranks in (1, 2)
    )
    alone = run_alone(evaluated, 0, mode, one)
    assert run_ranks(2, evaluated, mode, two) == [alone, alone]
    assert [sorted(values) for values in alone] == [["accuracy", "auroc", "f1"]] * len(SIZES)
    assert [values["accuracy"] for values in alone] == pytest.approx([by_hand(trained, n) for n in SIZES])
    for n, ranks in itertools.product(SIZES, (1, 2)):
        events = toys.recorded(tmp_path / f"{n} on {ranks}", {"val": "validate", "test": "test"}[mode])
        assert [event["samples"] for event in events] == [[n]]


def by_hand(checkpoint, n):
    """Accuracy over n points, without this project's evaluation."""
    model, data = toys.Net(), toys.Points(n, seed=n)
    model.load_state_dict(Store(checkpoint, "test").load(checkpoint).tensors("model"))
    return float((model.eval()(data.inputs).argmax(1) == data.labels).double().mean())


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_loader_reports_under_its_own_name(ranks, trained, tmp_path):
    """One set of metrics over two loaders, started afresh for each."""
    cfg = evaluation(tmp_path, trained, "val", {"near": 23, "far": 8})
    result = (
        run_alone(toys.trained, cfg, "val") if ranks == 1 else run_ranks(2, toys.trained_rank, cfg, "val")[0]
    )
    assert list(result["metrics"]) == [
        f"{loader}/{name}" for loader in ("near", "far") for name in ("accuracy", "f1", "auroc")
    ]
    for name, n in (("near", 23), ("far", 8)):
        assert result["metrics"][f"{name}/accuracy"] == pytest.approx(by_hand(trained, n))
    assert [event["samples"] for event in toys.recorded(tmp_path, "validate")] == [[23, 8]]


def test_a_metric_of_mmengines_shape_reports_its_own_keys(trained, tmp_path):
    """process for each batch, evaluate with the number of samples; several values at once."""
    metric = dict(mine=dict(type="tests.shell.toys:Accuracy"))
    result = run_alone(
        toys.trained, evaluation(tmp_path, trained, "val", {"only": 23}, val_evaluator=metric), "val"
    )
    assert result["metrics"] == {
        "mine/accuracy": pytest.approx(by_hand(trained, 23)), "mine/size": 23,
    }  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_validation_leaves_training_as_it_was(ranks, tmp_path):
    """With dropout, with noise drawn in validation too: the same weights with, without and with more validations."""
    found = []
    for name, changes in {
        "each epoch": {},
        "never": dict.fromkeys(("val_dataloader", "val_evaluator", "val_cfg")),
        "noisy, twice": dict(val_dataloader=dict(
            a=dict(dataset=dict(type="tests.shell.toys:Points", n=11, noise=1.0), batch_size=4),
            b=dict(dataset=dict(type="tests.shell.toys:Points", n=5, noise=1.0), batch_size=4, num_workers=1),
        )),
    }.items():  # fmt: skip
        cfg = toys.config(tmp_path / name, model=dict(type="tests.shell.toys:Net", dropout=0.3), **changes)
        if ranks == 1:
            run_alone(toys.trained, cfg)
        else:
            run_ranks(2, toys.trained_rank, cfg)
        found.append(toys.weights(tmp_path / name))
    assert found[0] == found[1] == found[2]


class Modes:
    """Notes every module's mode at each training step and in each validation step."""

    def __init__(self):
        self.training, self.validating = set(), set()

    def before_train_iter(self, run, **_):
        self.training.add(tuple(module.training for module in run.model.modules()))

    def before_val_iter(self, run, **_):
        self.validating.add(any(module.training for module in run.model.modules()))

    def after_train(self, run):
        (run.work_dir / "modes").write_text(json.dumps([sorted(self.training), sorted(self.validating)]))


@pytest.mark.parametrize("kind", ["Net", "HalfFrozen", "Pretrained"])
def test_modes_are_put_back(kind, tmp_path):
    """All modules validate in evaluation mode and train as their owner has it, whatever mode they came in."""
    hook = dict(type="tests.shell.test_evaluating:Modes")
    run_alone(
        toys.trained, toys.config(tmp_path, model=dict(type=f"tests.shell.toys:{kind}"), custom_hooks=[hook])
    )
    training, validating = json.loads((tmp_path / "modes").read_text())
    expected = {"HalfFrozen": [True, True, True, False, True]}.get(kind, [True] * 5)
    assert training == [expected]
    assert validating == [False]


def test_no_gradients_and_no_steps_in_validation(tmp_path):
    """What a validation step predicts carries no graph."""
    run_alone(
        toys.trained, toys.config(tmp_path, custom_hooks=[dict(type="tests.shell.test_evaluating:Graphs")])
    )
    assert json.loads((tmp_path / "graphs").read_text()) == [False]


class Graphs:
    seen: set = set()

    def after_val_iter(self, run, outputs, **_):
        self.seen.add(isinstance(outputs, torch.Tensor) and outputs.requires_grad)

    def after_train(self, run):
        (run.work_dir / "graphs").write_text(json.dumps(sorted(self.seen)))


@pytest.mark.parametrize(("limit", "seen"), [(1, 4), (2, 8), (9, 11)])
def test_no_more_batches_than_asked_for(limit, seen, tmp_path):
    loader = dict(
        dataset=dict(type="tests.shell.toys:Points", n=11, seed=1), batch_size=4, num_batch_per_epoch=limit
    )
    cfg = toys.config(tmp_path, val_dataloader=loader, val_evaluator=dict(type="tests.shell.toys:Accuracy"))
    assert run_alone(toys.trained, cfg)["metrics"]["mine/size"] == seen
    assert toys.differences(tmp_path) == []
