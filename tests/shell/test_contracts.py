"""How each kind of model is asked for losses and predictions."""

import pytest
import torch
from torch import nn

from flexcore.problems import ConfigError
from shell.contracts import contract_of, parse_losses
from tests.shell.parts import Mapped, Moded, Net, Stepping

INPUTS, TARGET = torch.eye(3)[:2], torch.tensor([0, 1])
LISTS = (list(INPUTS), list(TARGET))


def test_the_first_that_fits_is_used():
    criterion = nn.CrossEntropyLoss()
    assert contract_of(Stepping(), criterion, "train").name == "train_step"
    assert contract_of(Moded(), criterion, "train").name == 'forward(mode="loss")'
    assert contract_of(Mapped(), criterion, "train").name == "model and loss"
    assert contract_of(Mapped(), None, "train").name == 'forward returning {"loss"}'
    assert [
        contract_of(model, None, "val").keeps_lists for model in (Stepping(), Moded(), Mapped(), Net())
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_model_and_loss():
    model, criterion = Net(), nn.CrossEntropyLoss()
    contract = contract_of(model, criterion, "train")
    loss, outputs = contract.loss(model, [INPUTS, TARGET])
    assert torch.equal(loss, criterion(model(INPUTS), TARGET))
    assert loss.requires_grad
    assert {name: value.requires_grad for name, value in outputs.items()} == {"loss": False}
    prediction = contract.prediction("val")(model, (INPUTS, TARGET))
    assert torch.equal(prediction.outputs, model(INPUTS))
    assert (prediction.target is TARGET, prediction.has_target) == (True, True)


@pytest.mark.parametrize(
    ("batch", "what"),
    [({"x": 1, "y": 2}, "dict of 2"), ((1, 2, 3), "tuple of 3"), (torch.zeros(2), "Tensor of 2"), (3, "int")],
)
def test_a_batch_that_is_no_pair_is_told(batch, what):
    contract = contract_of(Net(), nn.CrossEntropyLoss(), "train")
    for call in (contract.loss, contract.predict):
        with pytest.raises(ConfigError) as caught:
            call(Net(), batch)
        assert str(caught.value) == (
            f"loss: with a loss component a batch is a pair (inputs, target), and the loader gave a {what}. "
            "Give pairs, or a model that returns its own loss. [FK011]"
        )


def test_forward_with_a_mode():
    model = Moded()
    contract = contract_of(model, None, "train")
    loss, outputs = contract.loss(model, LISTS)
    parts = nn.functional.cross_entropy(model(*LISTS), TARGET, reduction="none")
    assert loss.item() == pytest.approx(4 * parts.mean().item())
    assert list(outputs) == ["loss_a", "loss_b", "accuracy", "loss"]
    assert outputs["loss_b"].item() == pytest.approx(3 * parts.mean().item())
    assert not any(value.requires_grad for value in outputs.values())
    named = contract.loss(model, {"inputs": LISTS[0], "target": LISTS[1]})
    assert torch.equal(named[0], loss)
    assert torch.equal(contract.predict(model, LISTS).outputs, model(*LISTS).argmax(-1))


def test_forward_returning_a_mapping():
    model = Mapped()
    contract = contract_of(model, None, "train")
    batch = {"inputs": INPUTS, "labels": TARGET}
    loss, outputs = contract.loss(model, batch)
    assert torch.equal(loss, nn.functional.cross_entropy(model(INPUTS)["logits"], TARGET))
    assert list(outputs) == ["loss"]
    prediction = contract.predict(model, batch)
    assert (prediction.target is TARGET, prediction.has_target) == (True, True)
    assert contract.predict(model, {"inputs": INPUTS}).has_target is False
    assert torch.equal(contract.loss(model, [INPUTS, TARGET])[0], loss)


class Attribute(nn.Module):
    def forward(self, inputs):
        return (
            torch.nn.modules.container.ModuleDict()
            if inputs is None
            else type("Out", (), {"loss": inputs.sum()})()
        )


def test_a_loss_may_be_an_attribute_and_a_batch_one_tensor():
    contract = contract_of(Attribute(), None, "train")
    assert contract.loss(Attribute(), INPUTS)[0].item() == 2


class Silent(nn.Module):
    def forward(self, inputs):
        return inputs


def test_a_model_without_any_loss_is_told_before_or_at_the_first_batch():
    with pytest.raises(ConfigError) as caught:
        contract_of(nn.Linear(2, 2), None, "train")
    assert str(caught.value) == (
        "loss: is missing, and Linear has none of its own: its forward is torch's, without a mode. "
        'Add loss=dict(type="torch.nn:CrossEntropyLoss"), or return {"loss": ...} from forward. [FK012]'
    )
    assert contract_of(nn.Linear(2, 2), None, "val").loss is not None
    contract = contract_of(Silent(), None, "train")
    with pytest.raises(ConfigError) as caught:
        contract.loss(Silent(), INPUTS)
    assert str(caught.value) == (
        'loss: Silent.forward returned Tensor without "loss". Add a loss component, or return a mapping with it. [FK012]'
    )


class Steps(Stepping):
    def test_step(self, data):
        return "tested"


class OnlyTrains(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

    def train_step(self, data, optim_wrapper):
        return {}


def test_self_stepping_models_predict_by_val_step_or_test_step():
    contract = contract_of(Steps(), None, "train")
    assert contract.loss is None
    assert contract.prediction("val")(Steps(), LISTS).outputs.shape == (2,)
    assert contract.prediction("test")(Steps(), LISTS).outputs == "tested"
    assert contract.prediction("test")(Stepping(), LISTS).outputs.shape == (2,)
    assert contract.prediction("val")(OnlyTrains(), INPUTS).outputs.shape == (2, 2)


def test_losses_add_up_as_in_mmengine():
    """The terms and values of mmengine's own parse_losses for the same mapping."""
    total, named = parse_losses(
        {
            "loss_cls": torch.tensor([1.0, 3.0]),
            "loss_box": [torch.tensor(1.0), torch.tensor([2.0, 4.0])],
            "acc": torch.tensor(0.5),
            "n": 3,
        }
    )
    assert total.item() == 6
    assert {name: float(value) for name, value in named.items()} == {
        "loss_cls": 2,
        "loss_box": 4,
        "acc": 0.5,
        "n": 3,
        "loss": 6,
    }


def test_losses_without_a_loss_are_told():
    with pytest.raises(ConfigError) as caught:
        parse_losses({"acc": torch.tensor(1.0), "loss": 3})
    assert str(caught.value) == (
        'model: the model returned acc, loss; no tensor\'s name holds "loss". Name a loss term, such as "loss". [FK012]'
    )
