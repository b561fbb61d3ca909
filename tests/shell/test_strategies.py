"""Two ranks do what one process does on the joint batch; unclosed windows say nothing to the other rank."""

import attrs
import pytest
import torch
from torch import nn

import flexcore.hooks
import flexcore.strategies
import shell.hooks
from flexcore.config import ClipGrad
from flexcore.converting import dump, marked
from flexcore.facts import CheckpointFact, Facts, HookFact, ParameterFact
from flexcore.plan_training import Optimizer, Precision
from flexcore.problems import ConfigError
from flexcore.sharding import sharding
from flexcore.tensor_parallel import tensor_layout
from shell.contracts import contract_of
from shell.optim_wrappers import OptimWrapper
from shell.processes import joined
from shell.settling import PeerFailed, _compare, _shared, raise_together
from shell.stepping import stepper
from shell.strategies import STRATEGIES, Layout, executor
from tests.ranks import run_ranks
from tests.shell.parts import Mapped, Moded, Net, Stepping

CPU = torch.device("cpu")


def test_every_planned_strategy_and_hook_has_its_executor():
    assert set(STRATEGIES) == set(flexcore.strategies.Strategy.__args__)
    assert set(shell.hooks.BUILTIN) == set(flexcore.hooks.BUILTIN_HOOKS)


@pytest.mark.parametrize("spec", STRATEGIES)
def test_an_executor_has_the_protocols_verbs(spec):
    facts = Facts(modules=(), parameters=())
    made = executor(spec(), CPU, Layout(sharding(spec(), facts, 1), tensor_layout(spec(), facts, 1)))
    for verb in ("prepare", "joined", "backward", "accumulating", "clip_gradients", "step", "share_buffers", "save_state",
                 "load_state", "save_optimizer", "load_optimizer", "in_pieces", "placed"):  # fmt: skip
        assert callable(getattr(made, verb))


@pytest.mark.parametrize("spec", flexcore.hooks.BUILTIN_HOOKS)
def test_a_built_in_hook_listens_to_the_stages_it_is_planned_for(spec):
    listens = {stage for stage in flexcore.hooks.STAGES if hasattr(shell.hooks.BUILTIN[spec], stage)}
    by_the_stream = (
        {"before_train_epoch"} if spec is flexcore.hooks.SamplerSeed else set()
    )  # as a pass begins
    with_a_plateau = {"after_val_epoch"} if spec is flexcore.hooks.ParamScheduler else set()
    assert listens - with_a_plateau == set(spec.STAGES) - by_the_stream


def batch_of(seed, n=4):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % 2


def shaped(cls, batch):
    """A batch as the model's contract takes it."""
    if cls in (Stepping, Moded):
        return [*batch[0]], [*batch[1]]
    return {"inputs": batch[0], "labels": batch[1]} if cls is Mapped else batch


class Stepped:
    def __init__(self, cls, spec, clip=None):
        torch.manual_seed(0)
        self.cls, self.model = cls, cls()
        contract = contract_of(self.model, nn.CrossEntropyLoss() if cls is Net else None, "train")
        self.strategy = executor(spec, CPU)
        called = self.strategy.prepare(self.model, self_stepping=contract.loss is None)
        planned = Optimizer(component=None, groups=(), lr_scale=1.0, clip_grad=clip, precision=Precision())
        self.wrapper = OptimWrapper(
            torch.optim.SGD(self.model.parameters(), lr=0.1), self.strategy, planned, CPU
        )
        self.run = stepper(called, contract, self.wrapper)

    def step(self, batch, divisor=1, closing=True):
        self.wrapper.divisor, self.wrapper.closing = divisor, closing
        self.run(shaped(self.cls, batch))

    @property
    def weights(self):
        return [round(x, 6) for p in self.model.parameters() for x in p.detach().reshape(-1).tolist()]


MODELS = (Net, Stepping, Moded, Mapped)
SETTINGS = (
    flexcore.strategies.DDP(),
    flexcore.strategies.DDP(
        find_unused_parameters=True, broadcast_buffers=True, bucket_cap_mb=1, gradient_as_bucket_view=True
    ),
)


class Partial(nn.Module):
    """Two heads of which a rank uses one; frozen and buffered parts too."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.register_buffer("count", torch.zeros(()))

    def train_step(self, data, optim_wrapper):
        head, inputs = data
        with optim_wrapper.optim_context(self):
            loss = self.heads[head](self.frozen(inputs)).mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss}


def steps_of_every_contract(rank):
    found = {}
    for spec in SETTINGS:
        for cls in MODELS:
            made = Stepped(cls, spec, ClipGrad(max_norm=0.05))
            for i in range(2):
                made.step(batch_of(2 * i + rank))
            found[cls.__name__, SETTINGS.index(spec)] = made.weights
    return found


def accumulated(rank):
    """(the first gradient after an unclosed micro-batch, the one after the closing one), each flat."""
    found = {}
    for cls in MODELS:
        made = Stepped(cls, flexcore.strategies.DDP())
        seen = []
        made.strategy.step = lambda optimizer, made=made, seen=seen: seen.append(gradient(made))
        made.wrapper._step = made.strategy.step
        made.step(batch_of(rank), divisor=2, closing=False)
        seen.insert(0, gradient(made))
        made.step(batch_of(2 + rank), divisor=2)
        found[cls.__name__] = seen
    return found


def gradient(made):
    return torch.cat([p.grad.detach().reshape(-1) for p in made.model.parameters()]).tolist()


def unused_parts(rank):
    torch.manual_seed(rank)
    model = Partial()
    strategy = executor(flexcore.strategies.DDP(), CPU)
    strategy.prepare(model, self_stepping=True)
    start = [x for p in model.parameters() for x in p.detach().reshape(-1).tolist()]
    planned = Optimizer(component=None, groups=(), lr_scale=1.0, clip_grad=None, precision=Precision())
    wrapper = OptimWrapper(torch.optim.SGD(strategy.parameters, lr=0.1), strategy, planned, CPU)
    model.train_step((rank, torch.ones(2, 3)), wrapper)
    return start, [x for p in model.parameters() for x in p.detach().reshape(-1).tolist()]


FACTS = Facts(
    environment=(("RANK", "0"),),
    world_size=2,
    val_samples=(3, None),
    parameters=(ParameterFact(name="w", shape=(2, 3), alias="v"),),
    hooks=(HookFact(place=0, stages=("after_run",), priority="LOW"),),
    checkpoints=(CheckpointFact(path="p", name="n", epoch=1, iter=2, trajectory=(("model", "x"),)),),
    entropy=2**64 - 1,
    versions=(("torch", "2"),),
)


def facts_between_ranks(rank, group):
    shared = _shared(FACTS if rank == 0 else Facts(), group)
    try:
        _compare(attrs.evolve(shared, train_samples=10 + rank), group)
    except ConfigError as error:
        return shared == FACTS, str(error)
    return shared == FACTS, None


def failing_apart(rank, group):
    try:
        raise_together(group, ConfigError([]) if rank == 1 else None)
    except PeerFailed as error:
        return str(error), error.code
    except ConfigError:
        return "own"


def on_a_rank(rank):
    """Everything two ranks are asked for, in one start."""
    with joined("pytorch", "gloo", 60, leaves=True) as group:
        return {
            "contracts": steps_of_every_contract(rank),
            "accumulated": accumulated(rank),
            "unused": unused_parts(rank),
            "facts": facts_between_ranks(rank, group),
            "apart": failing_apart(rank, group),
        }


@pytest.fixture(scope="module")
def ranks():
    return run_ranks(2, on_a_rank)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_two_ranks_step_like_one_process_on_the_joint_batch(ranks, cls, setting):
    """Clipping included: it sees the averaged gradient."""
    first, second = (told["contracts"][cls.__name__, setting] for told in ranks)
    assert first == second
    alone = Stepped(cls, flexcore.strategies.SingleDevice(), ClipGrad(max_norm=0.05))
    for i in range(2):
        pair = [batch_of(2 * i + rank) for rank in range(2)]
        alone.step(tuple(torch.cat(parts) for parts in zip(*pair, strict=True)))
    assert first == pytest.approx(alone.weights, abs=2e-6)


@pytest.mark.parametrize("cls", MODELS)
def test_accumulating_keeps_gradients_local_until_the_window_closes(ranks, cls):
    """The reduction is skipped: a rank's gradient is its own; then the mean of all four micro-batches' means."""
    for rank, told in enumerate(ranks):
        alone = Stepped(cls, flexcore.strategies.SingleDevice())
        alone.step(batch_of(rank), divisor=2, closing=False)
        assert told["accumulated"][cls.__name__][0] == pytest.approx(gradient(alone), abs=1e-6)
    (own, closed), (other, closed_there) = (told["accumulated"][cls.__name__] for told in ranks)
    assert own != other
    assert closed == closed_there
    joint = Stepped(cls, flexcore.strategies.SingleDevice())
    for seed in range(4):
        joint.step(batch_of(seed), divisor=4, closing=False)
    assert closed == pytest.approx(gradient(joint), abs=1e-6)


def test_ranks_start_equal_and_a_part_only_one_of_them_uses_counts_as_zero_elsewhere(ranks):
    (start, end), (start_there, end_there) = (told["unused"] for told in ranks)
    assert start == start_there
    assert end == end_there
    moved = [round(before - after, 6) for before, after in zip(start, end, strict=True)]
    assert (
        moved[3] == moved[7] == pytest.approx(0.05)
    )  # the two biases: gradient 1 on one rank, 0 on the other
    assert moved[8:] == [0.0] * 12


def test_facts_go_round_and_what_differs_is_named(ranks):
    text = (
        "config: train_samples differs between ranks: rank 1 sees another value than rank 0. "
        "Every rank must build the same model and data. [FK015]"
    )
    assert [told["facts"] for told in ranks] == [(True, text)] * 2
    assert dump(FACTS, marked)  # and are JSON on the way


def test_one_ranks_failure_ends_them_all_with_its_code(ranks):
    assert [told["apart"] for told in ranks] == [("rank 1 failed: ", 2), "own"]


def _statistics(rank: int) -> list[float]:
    """Train batch norm on other data per rank, share before an evaluation, and tell the running means."""
    with joined("pytorch", "gloo", 30):
        strategy = executor(flexcore.strategies.DDP(), CPU)
        called = strategy.prepare(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)), self_stepping=False)
        called(torch.full((4, 2), float(rank)) + torch.arange(8.0).reshape(4, 2)).sum().backward()
        before = called.module[0].running_mean.tolist()
        strategy.share_buffers()
        return [*before, *called.module[0].running_mean.tolist()]


def test_an_evaluation_uses_the_buffers_that_are_saved():
    """Ranks gather statistics of their own while training; rank 0's are what an evaluation and a resume see."""
    first, second = run_ranks(2, _statistics)
    assert first[:2] == first[2:]
    assert second[:2] != first[:2]
    assert second[2:] == first[2:]
