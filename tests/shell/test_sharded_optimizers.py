"""ZeroRedundancyOptimizer: the losses of the plain one, checkpoints that go on anywhere, a share of state on a rank."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json

import pytest

from tests.ranks import RankFailed, run_alone, run_ranks
from tests.shell import toys
from tests.shell.gans import gan_config, weights_of

LOSSES = dict(type="tests.shell.toys:Losses")
KILL = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=7)
PLAIN = dict(type="AdamW", lr=0.01, weight_decay=0.1)
ZERO = dict(type="ZeroRedundancyOptimizer", optimizer_type="AdamW", lr=0.01, weight_decay=0.1)


def config(work_dir, optimizer, *, epochs=3, hooks=(), **wrapper):
    """Five iterations an epoch, of a global batch that means the same on any number of ranks."""
    return toys.config(
        work_dir, global_batch_size=8, val_dataloader=None, val_cfg=None, val_evaluator=None,
        optim_wrapper=dict(optimizer=optimizer, clip_grad=dict(max_norm=0.5), **wrapper),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), custom_hooks=[LOSSES, *hooks],
    )  # fmt: skip


def carry_out(ranks, cfg):
    run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)


def losses(work_dir, rank=0):
    return (work_dir / f"losses.{rank}").read_text().split()


@pytest.mark.parametrize("paramwise", [None, dict(custom_keys={"0": dict(lr_mult=0.5)}, bias_decay_mult=0.0)])
def test_it_loses_as_the_plain_optimizer_does(paramwise, tmp_path):
    """To the bit, with clipping, groups and a schedule; and its checkpoint holds the plain optimizer's state."""
    wrapper = {} if paramwise is None else dict(paramwise_cfg=paramwise)
    for name, optimizer in (("plain", PLAIN), ("zero", ZERO)):
        carry_out(2, config(tmp_path / name, optimizer, **wrapper))
    for rank in (0, 1):
        assert losses(tmp_path / "zero", rank) == losses(tmp_path / "plain", rank)
    assert toys.weights(tmp_path / "zero") == toys.weights(tmp_path / "plain")
    assert saved(tmp_path / "zero") == saved(tmp_path / "plain")
    assert toys.differences(tmp_path / "zero") == []


def saved(work_dir):
    """The optimizer's part of the newest checkpoint: JSON and tensors, to the bit."""
    from shell import manifests
    from shell.checkpoints import Store

    newest = manifests.scan(work_dir / "checkpoints").complete[-1]
    tensors = Store(work_dir / "checkpoints", "test").load(newest.path).tensors("optimizer")
    return newest.fields["state"]["optimizer"], {k: t.numpy().tobytes() for k, t in tensors.items()}


def test_each_rank_holds_a_share(tmp_path):
    carry_out(2, config(tmp_path, ZERO, hooks=[dict(type="tests.shell.test_sharded_optimizers:Shares")]))
    shares = [set(json.loads((tmp_path / f"share.{rank}").read_text())) for rank in (0, 1)]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == {"0.weight", "0.bias", "3.weight", "3.bias"}


class Shares:
    """Notes whose state this rank holds."""

    def after_train(self, run):
        names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        own = [names[id(parameter)] for parameter in run.optim_wrapper.optimizer.optim.state]
        (run.work_dir / f"share.{run.rank}").write_text(json.dumps(own))


def test_a_killed_run_goes_on_to_the_bit(tmp_path):
    carry_out(2, config(tmp_path / "whole", ZERO))
    killed = config(tmp_path / "killed", ZERO, hooks=[KILL])
    with pytest.raises(RankFailed):
        carry_out(2, killed)
    carry_out(2, killed)
    assert toys.weights(tmp_path / "killed") == toys.weights(tmp_path / "whole")
    assert saved(tmp_path / "killed") == saved(tmp_path / "whole")
    assert toys.differences(tmp_path / "killed") == []


@pytest.mark.parametrize(
    ("first", "then"), [((2, ZERO), (1, PLAIN)), ((1, PLAIN), (2, ZERO)), ((2, PLAIN), (2, ZERO))]
)
def test_checkpoints_go_on_under_the_other_optimizer_and_world_size(first, then, tmp_path):
    """With the losses of a run that never changed, to 1e-6: the state is neither lost nor another's."""
    for name, parts in (("moved", (first, then)), ("stayed", (then, then))):
        for epochs, (ranks, optimizer) in zip((2, 3), parts, strict=True):
            carry_out(ranks, config(tmp_path / name, optimizer, epochs=epochs) | dict(param_scheduler=None))
    moved, stayed = ([float(loss) for loss in losses(tmp_path / name)][-5:] for name in ("moved", "stayed"))
    assert moved == pytest.approx(stayed, abs=1e-6)


def test_one_of_several_may_be_sharded(tmp_path):
    """The same weights as without, to the bit, at every step."""
    for name in ("plain", "zero"):
        cfg = gan_config(tmp_path / name)
        if name == "zero":
            inner = dict(type="ZeroRedundancyOptimizer", optimizer_class="torch.optim:Adam", lr=0.02)
            cfg["optim_wrapper"]["generator"]["optimizer"] = inner
        run_ranks(2, toys.trained_rank, cfg)
    assert weights_of(tmp_path / "zero") == weights_of(tmp_path / "plain")
