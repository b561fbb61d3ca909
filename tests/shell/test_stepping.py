"""One micro-batch at a time: divisors, clipping, scaling and autocast against the same arithmetic written out."""

import pytest
import torch
from torch import nn

from flexcore.config import ClipGrad
from flexcore.plan_training import Optimizer, Precision
from flexcore.strategies import SingleDevice
from shell.contracts import contract_of
from shell.optim_wrappers import OptimWrapper
from shell.stepping import stepper
from shell.strategies import executor
from tests.shell.parts import Net, Stepping

CPU = torch.device("cpu")
BATCHES = [
    (torch.randn(4, 3, generator=torch.Generator().manual_seed(i)), torch.arange(4) % 2) for i in range(4)
]


def seeded(cls):
    torch.manual_seed(0)
    return cls()


class Setup:
    """A model under the single-device strategy, with its wrapper and step."""

    def __init__(self, cls=Net, clip=None, precision=Precision(), lr=0.1):
        self.model = seeded(cls)
        self.strategy = executor(SingleDevice(), CPU)
        criterion = nn.CrossEntropyLoss() if cls is Net else None
        contract = contract_of(self.model, criterion, "train")
        called = self.strategy.prepare(self.model, self_stepping=contract.loss is None)
        planned = Optimizer(component=None, groups=(), lr_scale=1.0, clip_grad=clip, precision=precision)
        self.wrapper = OptimWrapper(
            torch.optim.SGD(self.model.parameters(), lr=lr), self.strategy, planned, CPU
        )
        self.step = stepper(called, contract, self.wrapper)

    def window(self, batches, divisor=None):
        self.wrapper.divisor = divisor or len(batches)
        for i, batch in enumerate(batches):
            self.wrapper.closing = i == len(batches) - 1
            outputs = self.step(batch)
        return outputs

    @property
    def weights(self):
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])


def by_hand(batches, clip=None, lr=0.1):
    """One SGD step on the mean of the batches' losses."""
    model = seeded(Net)
    torch.stack([nn.functional.cross_entropy(model(x), y) for x, y in batches]).mean().backward()
    norm = clip(list(model.parameters())) if clip is not None else None
    with torch.no_grad():
        for p in model.parameters():
            p -= lr * p.grad
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]), norm


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_window_steps_once_by_the_mean_of_its_losses(count):
    setup = Setup()
    before = setup.weights
    setup.wrapper.divisor, setup.wrapper.closing = count, False
    for batch in BATCHES[: count - 1]:
        setup.step(batch)
        assert torch.equal(setup.weights, before)
        assert setup.model.weight.grad.abs().sum() > 0
    setup.wrapper.closing = True
    setup.step(BATCHES[count - 1])
    torch.testing.assert_close(setup.weights, by_hand(BATCHES[:count])[0])
    assert setup.model.weight.grad is None


def test_the_divisor_is_the_plans_not_the_count():
    """A short last window divides by its own size, which the loop says."""
    setup = Setup()
    setup.window(BATCHES[:2], divisor=4)
    expected = by_hand(BATCHES[:2], lr=0.05)[0]
    torch.testing.assert_close(setup.weights, expected)


def test_clipping_by_norm_sees_the_whole_window():
    setup = Setup(clip=ClipGrad(max_norm=0.01))
    setup.window(BATCHES[:2])
    expected, norm = by_hand(BATCHES[:2], lambda ps: nn.utils.clip_grad_norm_(ps, 0.01))
    torch.testing.assert_close(setup.weights, expected)
    torch.testing.assert_close(setup.wrapper.gradient_norm, norm)


def test_clipping_by_another_norm():
    setup = Setup(clip=ClipGrad(max_norm=0.01, norm_type=float("inf")))
    setup.window(BATCHES[:1])
    expected, norm = by_hand(BATCHES[:1], lambda ps: nn.utils.clip_grad_norm_(ps, 0.01, float("inf")))
    torch.testing.assert_close(setup.weights, expected)
    torch.testing.assert_close(setup.wrapper.gradient_norm, norm)


def test_clipping_by_value():
    setup = Setup(clip=ClipGrad(type="value", clip_value=0.001))
    setup.window(BATCHES[:1])
    torch.testing.assert_close(
        setup.weights, by_hand(BATCHES[:1], lambda ps: nn.utils.clip_grad_value_(ps, 0.001))[0]
    )
    assert setup.wrapper.gradient_norm is None


def test_a_gradient_that_is_not_finite_can_be_made_an_error():
    setup = Setup(clip=ClipGrad(max_norm=1.0, error_if_nonfinite=True))
    with pytest.raises(RuntimeError, match="non-finite"):
        setup.window([(torch.full((1, 3), float("inf")), torch.tensor([0]))])


SCALES = {
    "static": Precision(loss_scale=128.0),
    "dynamic": Precision(loss_scale="dynamic", init_scale=256.0, growth_interval=2),
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("clip", [None, ClipGrad(max_norm=0.01)])
def test_scaling_the_loss_changes_no_step(name, clip):
    """In full precision a power of two cancels exactly."""
    scaled, plain = Setup(precision=SCALES[name], clip=clip), Setup(clip=clip)
    for batches in (BATCHES[:2], BATCHES[2:]):
        scaled.window(batches)
        plain.window(batches)
    torch.testing.assert_close(scaled.weights, plain.weights)
    assert scaled.wrapper.scaler.get_scale() == {"static": 128.0, "dynamic": 512.0}[name]


@pytest.mark.parametrize("name", SCALES)
def test_an_overflow_skips_the_step_and_only_dynamic_scaling_backs_off(name):
    setup = Setup(precision=SCALES[name])
    before = setup.weights
    setup.window([(torch.full((1, 3), float("inf")), torch.tensor([0]))])
    assert torch.equal(setup.weights, before)
    assert setup.wrapper.scaler.get_scale() == {"static": 128.0, "dynamic": 128.0}[name]
    assert setup.model.weight.grad is None


@pytest.mark.parametrize("cls", [Net, Stepping])
def test_bfloat16_covers_the_forward_pass_alone(cls):
    seen = []
    setup = Setup(cls, precision=Precision(dtype="bfloat16"))
    setup.model.register_forward_hook(lambda m, args, out: seen.append((args[0].dtype, out.dtype)))
    batch = BATCHES[0] if cls is Net else ([*BATCHES[0][0]], [*BATCHES[0][1]])
    outputs = setup.window([batch])
    assert seen == [(torch.float32, torch.bfloat16)]
    assert setup.wrapper.scaler is None
    assert setup.model.weight.dtype == torch.float32
    assert outputs["loss"].dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_a_model_that_steps_itself_accumulates_like_any_other():
    """Its own train_step asks the wrapper; weights equal those of the same batches through a loss component."""
    setup, other = Setup(Stepping), Setup()
    before = setup.weights
    setup.wrapper.divisor, setup.wrapper.closing = 2, False
    outputs = setup.step(([*BATCHES[0][0]], [*BATCHES[0][1]]))
    assert torch.equal(setup.weights, before)
    assert not setup.wrapper.should_update()
    assert (outputs["loss"].requires_grad, outputs["note"]) == (False, 3.0)
    setup.wrapper.closing = True
    setup.step(([*BATCHES[1][0]], [*BATCHES[1][1]]))
    other.window(BATCHES[:2])
    torch.testing.assert_close(setup.weights, other.weights)


def test_the_wrapper_shows_what_flexiblerunner_models_ask_for():
    wrapper = Setup(lr=0.25).wrapper
    assert wrapper.get_lr() == {"lr": [0.25]}
    assert wrapper.param_groups[0]["lr"] == 0.25
    wrapper.optimizer.param_groups[0]["params"][0].grad = torch.ones(2, 3)
    wrapper.zero_grad()
    assert wrapper.optimizer.param_groups[0]["params"][0].grad is None


@pytest.mark.slow
def test_a_compiled_model_takes_the_same_steps(tmp_path, monkeypatch):
    """inductor (needs a C++ compiler), to float tolerance."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled, plain = Setup(), Setup()
    compiled.model.compile()
    for setup in (compiled, plain):
        setup.window(BATCHES[:2])
        setup.window(BATCHES[2:])
    torch.testing.assert_close(compiled.weights, plain.weights)
