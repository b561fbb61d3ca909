"""Tensor parallelism, alone and in shares: losses, weights, samples, checkpoints and hooks are those of one process."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.ranks import run_alone, run_ranks
from tests.shell import toys
from tests.shell.test_exactness import LOSSES, losses

HERE = "tests.shell.test_tensor_parallel"
CLIP = dict(max_norm=0.5)
TOKENS = 3


class Attention(nn.Module):
    """Queries, keys and values in one layer; the number of heads is its input's."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), Attention(width, num_heads)
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm(x))
        return x + self.down(torch.relu(self.up(x)))


class Former(nn.Module):
    """Points as three tokens, quantised for an embedding that is the head's weight as well, through blocks to logits."""

    _no_split_modules = ("Block",)

    def __init__(self, width: int = 12, num_heads: int = 2, words: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(TOKENS, width) / 10)
        self.first = nn.Linear(toys.FEATURES // TOKENS, width)
        self.blocks = nn.ModuleList([Block(width, num_heads), Block(width, num_heads)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight
        self.last = nn.Linear(words, toys.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(-1, (TOKENS, -1))
        ids = (x.mean(-1) * 2 + self.words.num_embeddings / 2).long().clamp(0, self.words.num_embeddings - 1)
        x = self.first(x) + self.words(ids) + self.places
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.last(self.head(x).mean(1))


PLAN = {
    "blocks.*.attn.qkv": dict(style="colwise", parts=3),
    "blocks.*.attn.proj": "rowwise",
    "blocks.*.up": "colwise",
    "blocks.*.down": "rowwise",
    "words": "rowwise",
    "head": "colwise_rep",
    "last": "rowwise_rep",
}
ALONE = dict(type="TensorParallelStrategy", size=2, plan=PLAN)
SHARED = dict(type="FSDPStrategy", tensor_parallel=dict(size=2, plan=PLAN))
LAYOUTS = {
    "single": (1, None),
    "ddp": (2, dict(type="DDPStrategy")),
    "fsdp": (2, dict(type="FSDPStrategy")),
    "alone": (2, ALONE),
    "groups": (4, ALONE),
    "shared": (4, SHARED),
    "copies": (4, dict(SHARED, shard_size=1)),
}


def config(work_dir, **changes):
    return toys.config(work_dir, **{"model": dict(type=f"{HERE}:Former"), **changes})


def run(ranks, cfg):
    if ranks == 1:
        return run_alone(toys.trained, cfg)
    return run_ranks(ranks, toys.trained_rank, cfg)[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process loses in micro-batches of that size."""
    done = {}

    def lost(size):
        if size not in done:
            done[size] = trained(tmp_path_factory.mktemp("alone"), "single", size)
        return done[size]

    return lost


def trained(work_dir, layout, size):
    """The losses of one global batch of 8 a step, with active clipping; the plan's samples and LR are what happened."""
    ranks, strategy = LAYOUTS[layout]
    wrapper = dict(optimizer=dict(type="SGD", lr=0.2, momentum=0.9), clip_grad=CLIP)
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=34), batch_size=size)
    cfg = config(work_dir, global_batch_size=8, optim_wrapper=wrapper, custom_hooks=[LOSSES], strategy=strategy,
                 train_dataloader=data)  # fmt: skip
    run(ranks, cfg)
    assert toys.differences(work_dir) == []
    return losses(work_dir, ranks)


@pytest.mark.parametrize(
    ("layout", "size"),
    [("alone", 8), ("alone", 4), ("groups", 2), ("shared", 4), ("shared", 2), ("copies", 4)],
)
def test_ranks_that_compute_together_lose_as_one_process(layout, size, alone, tmp_path):
    found, expected = trained(tmp_path, layout, size), alone(4)
    assert len(expected) == 15
    assert found == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] * 0.9
