"""Every setting of DDP's trains as DDP without it, or says what it changes; what torch cannot do on CPU is still so."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import inspect
import pathlib

import attrs
import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import flexcore.strategies
from flexcore.converting import DDP_INSTEAD
from shell.processes import joined
from shell.strategies import executor
from shell.strategies.ddp import average
from tests.ranks import run_ranks
from tests.shell import toys

HERE = "tests.shell.test_ddp"
EXACT = {
    "plain": dict(),
    "static": dict(static_graph=True),
    "views": dict(gradient_as_bucket_view=True),
    "unused left out": dict(find_unused_parameters=True, skip_all_reduce_unused_params=True),
    "copied in batches": dict(batched_grad_copy=True, bucket_cap_mb=1),
    "looked over": dict(detect_anomalous_params=True, broadcast_buffers=True),
}
STOP = dict(type="tests.shell.toys:Wishes", stop=12)


def ddp(**settings):
    return dict(type="DDPStrategy", **settings)


class Forgetful(toys.Net):
    """A part of it that no loss depends on."""

    def __init__(self):
        super().__init__()
        self.forgotten = nn.Linear(2, 1)

    def forward(self, x):
        for part in list(self)[:4]:
            x = part(x)
        return x


class Steps(toys.Net):
    """It steps itself, past DDP."""

    def train_step(self, data, optim_wrapper):
        inputs, target = (torch.stack(part) for part in data)
        loss = nn.functional.cross_entropy(self(inputs), target)
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    def val_step(self, data):
        return self(torch.stack(data[0]))


def config(work_dir, strategy, **changes):
    work_dir.mkdir(parents=True, exist_ok=True)
    return toys.config(work_dir, **(dict(strategy=strategy, custom_hooks=[toys.LOSSES]) | changes))


def stepping(work_dir, strategy):
    none = dict(val_dataloader=None, val_evaluator=None, val_cfg=None)
    return config(work_dir, strategy, model=dict(type=f"{HERE}:Steps"), loss=None, **none)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every run of this file on two ranks, in one start: (config, result) by name."""
    root, crossing = tmp_path_factory.mktemp("ddp"), ddp(comm_hook="fp16_compress")
    cfgs = {name: config(root / name, ddp(**settings)) for name, settings in EXACT.items()}
    cfgs |= {
        "fp16": config(root / "fp16", crossing),
        "fp16 stopped": config(root / "fp16 part", crossing, custom_hooks=[toys.LOSSES, STOP]),
        "fp16 again": config(root / "fp16 part", crossing),
        "stepping": stepping(root / "stepping", ddp()),
        "stepping fp16": stepping(root / "stepping fp16", crossing),
        "sync_bn": config(root / "sync_bn", ddp(sync_bn="torch")),
    }
    results = toys.together(cfgs)
    return {name: (cfg, results[name]) for name, cfg in cfgs.items()}


def losses(trained, name):
    cfg, result = trained[name]
    assert result["reason"] == "done", result
    assert toys.differences(pathlib.Path(cfg["work_dir"])) == []
    return toys.losses(cfg["work_dir"], 2)


@pytest.mark.parametrize("name", EXACT)
def test_what_only_tunes_changes_no_bit(trained, name):
    assert losses(trained, name) == losses(trained, "plain")
    assert toys.weights(pathlib.Path(trained[name][0]["work_dir"])) == toys.weights(
        pathlib.Path(trained["plain"][0]["work_dir"])
    )


@pytest.mark.parametrize(("exact", "crossing"), [("plain", "fp16"), ("stepping", "stepping fp16")])
def test_gradients_that_cross_in_float16_train_nearly_alike(trained, exact, crossing):
    """Also of a model that steps itself, whose gradients DDP never sees."""
    assert losses(trained, crossing) == pytest.approx(losses(trained, exact), abs=1e-2)
    assert losses(trained, crossing) != losses(trained, exact)


def test_a_run_with_them_goes_on_to_the_same_bits(trained):
    assert trained["fp16 stopped"][1]["reason"] == "requested"
    assert losses(trained, "fp16 again") == losses(trained, "fp16")
    whole, part = (pathlib.Path(trained[name][0]["work_dir"]) for name in ("fp16", "fp16 again"))
    assert toys.weights(part) == toys.weights(whole)


def test_batch_norms_over_ranks_are_refused_on_cpu_before_anything_is_written(trained):
    cfg, result = trained["sync_bn"]
    text = "makes SyncBatchNorm of batch norms, which torch computes on GPUs alone, and this run is on cpu."
    assert (
        result["reason"] == f"ConfigError: strategy.sync_bn: {text} Leave it out, or train on GPUs. [FP010]"
    )
    assert list(pathlib.Path(cfg["work_dir"]).iterdir()) == []


# --- a parameter that no loss depends on ----------------------------------------------------------


def told(rank, cfg):
    return toys.told(cfg)[1]


@pytest.mark.parametrize("model", ["Forgetful", "Steps"])
def test_a_parameter_the_loss_leaves_out_is_named_once(model, tmp_path):
    strategy = ddp(find_unused_parameters=model == "Forgetful", detect_anomalous_params=True)
    make = stepping if model == "Steps" else config
    cfg = make(tmp_path, strategy) | dict(model=dict(type=f"{HERE}:{model}"))
    for rank, printed in enumerate(run_ranks(2, told, cfg)):
        text = (
            f"rank {rank}: the loss does not depend on forgotten.weight, forgotten.bias, which trains with it"
        )
        assert [line.partition(" ERROR ")[2] for line in printed.splitlines()] == [text][
            : model == "Forgetful"
        ]


# --- what the rules rest on -----------------------------------------------------------------------


def test_every_argument_of_ddps_is_a_setting_or_has_its_words():
    theirs = set(inspect.signature(DistributedDataParallel.__init__).parameters) - {"self"}
    ours = {field.name for field in attrs.fields(flexcore.strategies.DDP)}
    assert theirs <= ours | set(DDP_INSTEAD)
    assert ours & set(DDP_INSTEAD) == set()


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4)))


def limits():
    """What torch says of each thing that a rule refuses, in a group of one on CPU."""
    with joined("pytorch", "gloo", 60, leaves=True):
        strategy = executor(flexcore.strategies.DDP(sync_bn="torch"), torch.device("cpu"))
        model = Normed()
        parameters = [id(p) for p in model.parameters()]
        called = strategy.prepare(model, self_stepping=True)
        kinds = [type(module).__name__ for module in strategy.model.modules()]
        kept = parameters == [id(p) for p in strategy.model.parameters()]
        plain = DistributedDataParallel(nn.Linear(3, 1))
        static = DistributedDataParallel(nn.Linear(3, 1), static_graph=True)
        said = [
            refusal(called, torch.ones(4, 3)),
            refusal(DistributedDataParallel, called),
            refusal(plain.register_comm_hook, None, default_hooks.bf16_compress_hook),
            refusal(unshared_first, static),
        ]
    return kinds, kept, said


def refusal(do, *args):
    try:
        do(*args)
    except Exception as error:
        return str(error)
    return None


def unshared_first(model):
    with model.no_sync():
        model(torch.ones(2, 3)).sum().backward()
    model(torch.ones(2, 3)).sum().backward()


def one_rank(rank):
    return limits()


def test_torch_still_cannot_do_what_is_refused():
    """Should a release learn it, the rule goes; batch norms are converted, around the parameters they had."""
    ((kinds, kept, said),) = run_ranks(1, one_rank)
    assert kinds == ["Normed", "Linear", "SyncBatchNorm", "Sequential", "SyncBatchNorm"]
    assert kept
    batch_norm, wrapped, bf16, static = said
    assert "SyncBatchNorm expected input tensor to be on GPU" in batch_norm
    assert wrapped == "SyncBatchNorm layers only work with GPU modules"
    assert "BF16 all reduce communication hook required" in bf16
    assert "expect_autograd_hooks_" in static


def averaged(rank):
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.tensor([1.0, 2.0, 0.1]) * (rank + 1)
    if rank == 1:
        parameters[1].grad = torch.tensor([0.3, 1e-9])
    with joined("pytorch", "gloo", 60, leaves=True):
        average(parameters, torch.float16)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def test_compressed_gradients_are_halves_that_were_divided_first():
    halves = [torch.tensor([1.0, 2.0, 0.1]) * (rank + 1) for rank in range(2)]
    first = sum(half.half() / 2 for half in halves).float().tolist()
    second = (torch.tensor([0.3, 1e-9]).half() / 2).float().tolist()
    assert run_ranks(2, averaged) == [[first, second, None]] * 2
