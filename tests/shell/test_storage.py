"""The room that a plan counts on is what its checkpoints take, whatever the optimizer and the strategy."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pathlib

import pytest
from attrs import evolve

from flexcore.storage import checkpoint_bytes
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

OPTIMIZERS = {
    "SGD": {}, "heavy": dict(type="SGD", momentum=0.9), "AdamW": {}, "amsgrad": dict(type="Adam", amsgrad=True),
    "Adagrad": {}, "RMSprop": {}, "ASGD": {}, "Adafactor": {},
}  # fmt: skip
TOLERANCE = 0.05


def config(work_dir, name, **changes):
    optimizer = dict(type=name, lr=1e-3) | OPTIMIZERS.get(name, {})
    model = dict(type=f"{toys.HERE}:Net", width=3000)
    length = dict(by_epoch=True, max_epochs=1)
    return toys.config(
        work_dir / name, model=model, optim_wrapper=dict(optimizer=optimizer), train_cfg=length, **changes
    )


def sizes(cfg):
    """(counted, measured) bytes of the checkpoint of a run of the config."""
    from shell.execute import run

    plan = run(cfg).plan
    found = pathlib.Path(cfg["work_dir"], "checkpoints", "epoch_1").rglob("*")
    return checkpoint_bytes(plan), sum(path.stat().st_size for path in found)


def each(cfgs):
    return [sizes(cfg) for cfg in cfgs]


def each_rank(rank, cfgs):
    return each(cfgs)


def assert_near(found):
    for counted, measured in found:
        assert counted == pytest.approx(measured, rel=TOLERANCE)


def test_optimizers(tmp_path):
    made = [config(tmp_path, name) for name in OPTIMIZERS]
    made.append(config(tmp_path / "averaged", "AdamW", custom_hooks=[dict(type="EMAHook")]))
    saving = dict(checkpoint=dict(type="CheckpointHook", save_optimizer=False))
    made.append(config(tmp_path / "weights", "AdamW", default_hooks=saving))
    assert_near(run_alone(each, made))


def test_strategies(tmp_path):
    made = [
        config(tmp_path / name, "AdamW", strategy=dict(type=name)) for name in ("DDPStrategy", "FSDPStrategy")
    ]
    assert_near(run_ranks(2, each_rank, made, timeout=toys.PATIENCE)[0])


def refused(cfg):
    from shell import probe
    from shell.execute import run

    looked = probe.checkpoints
    probe.checkpoints = lambda *given: evolve(looked(*given), free_disk=100_000)
    return toys.attempted(cfg) if run else None


def test_a_disk_without_room_for_one_is_told_before_the_first_step(tmp_path):
    """The model has to be built for it, and nothing is left but the lock."""
    told = run_alone(refused, config(tmp_path, "AdamW"))["reason"]
    assert "AdamW has 97.7 KiB free, and one checkpoint takes about 3" in told
    assert "[FC017]" in told
    assert not (tmp_path / "AdamW").exists()
