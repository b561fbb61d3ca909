"""Test-time augmentation: what is merged is what a hand computes, each sample once, on any number of ranks."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
import torch
from safetensors.torch import load_file

from flexcore.problems import ConfigError
from shell.augmenting import mean
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

HERE = "tests.shell.test_augmenting"


def shifted(inputs, by=1.0):
    return inputs + by


def halved(inputs):
    return [one / 2 for one in inputs]


class Rolled:
    """Rolls inputs, and what comes out back."""

    def __init__(self, by):
        self.by = by

    def __call__(self, inputs):
        return inputs.roll(self.by, -1)

    def undo(self, outputs):
        return outputs.roll(-self.by, -1)


def largest(outputs):
    return torch.stack(outputs).amax(0)


class Thrice:
    """A class of one's own: the batch, doubled and tripled; the sum of what comes out."""

    def __init__(self, first=1):
        self.first = first

    def augment(self, batch):
        return [(batch[0] * by, batch[1]) for by in range(self.first, self.first + 3)]

    def merge(self, outputs):
        return sum(outputs)


def evaluated(work_dir, checkpoint, tta, **changes):
    return toys.config(
        work_dir, resume=False, load_from=str(checkpoint),
        **{"test_dataloader": dict(dataset=dict(type=f"{toys.HERE}:Points", n=11, seed=1), batch_size=2),
           "test_evaluator": dict(hits=dict(type=f"{toys.HERE}:Hits")),
           "test_cfg": dict(tta=tta, predictions="predictions"), **changes},
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("trained")
    run_alone(toys.trained, toys.config(work_dir, train_cfg=dict(by_epoch=True, max_epochs=1)))
    return work_dir / "checkpoints" / "epoch_1"


def net(checkpoint):
    made = toys.Net()
    made.load_state_dict(load_file(next(checkpoint.glob("model*.safetensors"))))
    return made.eval()


CASES = {
    "flips": (
        dict(transforms=["identity", "hflip"]),
        lambda model, x: (model(x) + model(x.flip(-1))) / 2,
    ),
    "a function, merged by one": (
        dict(transforms=["identity", dict(type=f"{HERE}:shifted", by=0.5)], merge=f"{HERE}:largest"),
        lambda model, x: torch.maximum(model(x), model(x + 0.5)),
    ),
    "undone": (
        dict(transforms=[dict(type=f"{HERE}:Rolled", by=2), "identity"]),
        lambda model, x: (model(x.roll(2, -1)).roll(-2, -1) + model(x)) / 2,
    ),
    "a class": (
        dict(type=f"{HERE}:Thrice", first=2),
        lambda model, x: model(2 * x) + model(3 * x) + model(4 * x),
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_predictions_are_those_of_a_hand(name, ranks, checkpoint, tmp_path):
    """11 samples in batches of 2; the file has each once, and the metric is theirs."""
    tta, by_hand = CASES[name]
    cfg = evaluated(tmp_path, checkpoint, tta)
    result = (
        run_alone(toys.trained, cfg, "test")
        if ranks == 1
        else run_ranks(2, toys.trained_rank, cfg, "test")[0]
    )
    held = load_file(next(tmp_path.rglob("predictions.safetensors")))
    data = toys.Points(11, seed=1)
    with torch.no_grad():
        expected = by_hand(net(checkpoint), data.inputs)
    assert held["index"].tolist() == list(range(11))
    torch.testing.assert_close(held["prediction"], expected)
    hits = float((expected.argmax(1) == data.labels).double().mean())
    assert result["metrics"] == {"hits": pytest.approx(hits)}
    assert toys.recorded(tmp_path, "test")[0]["samples"] == [11]


@pytest.mark.parametrize(("model", "calls"), [("Stepping", 1), ("Moded", 2), ("Mapped", 4)])
def test_each_contract_is_augmented(model, calls):
    """Lists of samples for models that step themselves or are told a mode, tensors by name for those with labels."""
    from flexcore import Facts, plan
    from shell.augmenting import joined
    from shell.contracts import contract_of
    from tests.flexcore.base import base
    from tests.shell import parts

    kind = f"{HERE}:halved" if model != "Mapped" else dict(type=f"{HERE}:shifted", by=1.0)
    config = base(test_dataloader={"dataset": "pkg:D", "batch_size": 2}, test_evaluator="pkg:M",
                  test_cfg=dict(tta=dict(transforms=["vflip" if model == "Mapped" else "hflip", kind], merge=f"{HERE}:kept")))  # fmt: skip
    module = getattr(parts, model)()
    contract = joined(contract_of(module, None, "test"), plan(config, Facts(), mode="test"))
    x = torch.randn(2, 3)
    batch = dict(labels=None, inputs=x) if model == "Mapped" else [list(x), list(torch.zeros(2))]
    first, second = contract.prediction("test")(module, batch).outputs
    linear = torch.nn.functional.linear
    flipped, other = (x.flip(-2), x + 1.0) if model == "Mapped" else (x.flip(-1), x / 2)
    for found, inputs in ((first, flipped), (second, other)):
        logits = linear(inputs, module.weight, module.bias)
        if model == "Mapped":
            torch.testing.assert_close(found["logits"], logits)
        else:
            assert found.tolist() == logits.argmax(-1).tolist()


def kept(outputs):
    return outputs


def test_the_mean_of_structures():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])
    found = mean([{"x": a, "y": (a, [b]), "loss": None}, {"x": b, "y": (b, [b]), "loss": None}])
    assert found["x"].tolist() == [2.0, 4.0]
    assert [found["y"][0].tolist(), found["y"][1][0].tolist()] == [[2.0, 4.0], [3.0, 6.0]]
    assert "loss" not in found


@pytest.mark.parametrize(("odd", "what"), [(torch.tensor([1]), "torch.int64"), ("cat", "str")])
def test_what_has_no_mean_is_told(odd, what):
    with pytest.raises(ConfigError) as caught:
        mean([odd, odd])
    assert str(caught.value) == (
        f'test_cfg.tta.merge: is "mean", and the model predicts {what}, which has none. '
        'Name a function: "pkg.module:function". [FK011]'
    )


def test_what_cannot_augment_is_told_before_any_effect(checkpoint, tmp_path):
    for tta, text in {
        "Rolled": (dict(type=f"{HERE}:Rolled", by=1), ("test_cfg.tta.type: tests.shell.test_augmenting:Rolled has no "
                   "augment() and no merge(). Name a class with augment and merge. [FK013]")),
        "merge": (dict(transforms=["identity"], merge=f"{HERE}:bigest"), ('test_cfg.tta.merge.type: '
                  '"tests.shell.test_augmenting" has no "bigest". Did you mean "largest"? [FK013]')),
    }.values():  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            run_alone(toys.trained, evaluated(tmp_path / "run", checkpoint, tta), "test")
        assert str(caught.value) == text
        assert not (tmp_path / "run").exists()
