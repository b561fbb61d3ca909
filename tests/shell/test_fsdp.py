"""FSDP trains as one process does, in shares: losses, weights, checkpoints and hooks."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
import torch
from torch import nn

from tests.ranks import run_ranks
from tests.shell import toys

HERE = "tests.shell.test_fsdp"


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Deep(nn.Module):
    """Points to logits through blocks; 5 is no multiple of the ranks, so shares differ in size."""

    _no_split_modules = ("Block",)

    def __init__(self, width: int = 5, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(toys.FEATURES, width)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, toys.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.last(x)


def config(work_dir, **changes):
    return toys.config(work_dir, **{"model": dict(type=f"{HERE}:Deep"), **changes})


FSDP = dict(type="FSDPStrategy")
ALIKE = {
    "plain": dict(),
    "carried": dict(accumulative_counts=4),
    "flushed": dict(accumulative_counts=4, accumulation_tail="step"),
    "values clipped": dict(clip_grad=dict(type="value", clip_value=0.01)),
    "bfloat16": dict(type="AmpOptimWrapper", dtype="bfloat16"),
}


@pytest.mark.parametrize("wrapper", ALIKE.values(), ids=ALIKE)
def test_shares_end_where_ddp_ends_to_the_bit(wrapper, tmp_path):
    """With dropout, averages and validations with them: every rank draws what it draws under DDP."""
    found = []
    for name, strategy in (("ddp", dict(type="DDPStrategy")), ("fsdp", FSDP)):
        cfg = config(
            tmp_path / name, model=dict(type=f"{HERE}:Deep", dropout=0.2), strategy=strategy,
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01), **wrapper),
            custom_hooks=[dict(type="EMAHook", momentum=0.3)],
        )  # fmt: skip
        found.append((toys.run(2, cfg)["metrics"], toys.weights(tmp_path / name)))
        assert toys.differences(tmp_path / name) == []
    assert found[0] == found[1]


@pytest.mark.parametrize("nth", toys.sampled([3, 14], without=[1]))
def test_a_killed_run_resumes_to_the_bit(nth, tmp_path):
    """Optimizer state, averages and random streams come back as shares."""
    hooks = [dict(type="EMAHook", momentum=0.3)]
    model = dict(type=f"{HERE}:Deep", dropout=0.2)
    toys.run(2, config(tmp_path / "whole", model=model, strategy=FSDP, custom_hooks=hooks))
    kill = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=nth)
    cfg = config(tmp_path / "killed", model=model, strategy=FSDP, custom_hooks=[*hooks, kill])
    with pytest.raises(Exception, match=r"ended with|failed|closed"):
        toys.run(2, cfg)
    toys.run(2, cfg)
    assert toys.weights(tmp_path / "killed") == toys.weights(tmp_path / "whole")
    assert toys.differences(tmp_path / "killed") == []


def test_weights_without_memory_are_filled_from_the_checkpoint(tmp_path):
    """skip_init_weights: the same metrics and the same next steps as with initialisation."""
    toys.run(1, config(tmp_path / "from", train_cfg=dict(by_epoch=True, max_epochs=1)))
    source = str(tmp_path / "from" / "checkpoints" / "epoch_1")
    found = []
    for skips in (False, True):
        strategy = dict(FSDP, skip_init_weights=skips)
        cfg = config(
            tmp_path / str(skips),
            strategy=strategy,
            load_from=source,
            resume=False,
            model=dict(type=f"{HERE}:Tied"),
        )
        found.append((toys.run(2, cfg)["metrics"], toys.weights(tmp_path / str(skips))))
        tested = config(tmp_path / f"{skips} test", strategy=strategy, load_from=source, resume=False, test_cfg=dict(),
                        test_dataloader=cfg["val_dataloader"], test_evaluator=cfg["val_evaluator"])  # fmt: skip
        found[-1] += (run_ranks(2, toys.trained_rank, tested, "test")[0]["metrics"],)
    assert found[0] == found[1]


class Tied(Deep):
    """With a buffer no checkpoint holds, which must keep its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(1.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


def test_lower_precision_computes_in_it_and_keeps_full_weights(tmp_path):
    """bfloat16 parameters and reduction in the units, float32 in the optimizer and in the checkpoint."""
    precision = dict(param_dtype="bfloat16", reduce_dtype="float32")
    cfg = config(
        tmp_path, strategy=dict(FSDP, mixed_precision=precision), custom_hooks=[dict(type=f"{HERE}:Dtypes")]
    )
    toys.run(2, cfg)
    assert (tmp_path / "dtypes").read_text() == "torch.bfloat16 torch.float32"
    assert {len(value) % 4 for value in toys.weights(tmp_path).values()} == {0}


class Dtypes:
    """What a unit's layer computes in, and what its parameters rest in."""

    def before_train(self, run) -> None:
        self.seen = None
        run.model.blocks[0].up.register_forward_hook(self.look)

    def look(self, _module, _inputs, output) -> None:
        self.seen = output.dtype

    def after_train(self, run) -> None:
        if run.rank == 0:
            rests = next(iter(run.model.state_dict().values())).dtype
            (run.work_dir / "dtypes").write_text(f"{self.seen} {rests}")


class Poisoned(toys.Points):
    """One input is not a number; whichever rank reads it, no rank may take the update."""

    def __init__(self, n: int, at: int) -> None:
        super().__init__(n)
        self.inputs[at] = float("nan")


@pytest.mark.parametrize("check", ["loss", "gradient"])
def test_one_ranks_bad_batch_is_left_out_on_all(check, tmp_path):
    """Shares of the gradient differ between ranks, so what is not finite is agreed."""
    data = dict(type=f"{HERE}:Poisoned", n=34, at=9)
    cfg = config(
        tmp_path, strategy=FSDP, train_dataloader=dict(dataset=data, batch_size=4),
        custom_hooks=[dict(type="NaNGuardHook", action="skip", check=check)],
    )  # fmt: skip
    assert toys.run(2, cfg)["reason"] == "done"
    assert len(toys.recorded(tmp_path, "nonfinite")) == 3  # once an epoch
    assert all(torch.tensor([float(v) for v in torch.frombuffer(bytearray(b), dtype=torch.float32)]).isfinite().all()
               for b in toys.weights(tmp_path).values())  # fmt: skip
