"""Pieces that ranks hold become the tensors they are pieces of, one at a time; ranks that disagree are told."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pathlib
import random
import threading
import time

import pytest
import torch
import torch.distributed as dist
from torch import nn

from shell.pieces import Channel, Piece
from shell.processes import joined
from tests.ranks import run_ranks
from tests.shell import toys


def cut(rng, shape, ranks):
    """(rank, slices) of boxes that fill `shape`: cut along one dimension, some ranks without any."""
    dim = rng.randrange(len(shape)) if shape else None
    if dim is None:
        return [(rng.randrange(ranks), ())]
    cuts = sorted(rng.randrange(shape[dim] + 1) for _ in range(ranks - 1))
    ends = [0, *cuts, shape[dim]]
    order = rng.sample(range(ranks), ranks)
    full = [slice(0, n) for n in shape]
    return [
        (rank, (*full[:dim], slice(ends[i], ends[i + 1]), *full[dim + 1 :])) for i, rank in enumerate(order)
    ]


def exchanged(rank, seed, ranks):
    """On rank 0, whether each whole is what was cut up; elsewhere nothing."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    pieces, expected = [], []
    for _ in range(20):
        shape = tuple(rng.randrange(6) for _ in range(rng.randrange(4)))
        dtype = rng.choice([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
        whole = (torch.rand(shape, generator=generator) * 9).to(dtype)
        flat = rng.random() < 0.3
        seen = whole.reshape(-1) if flat else whole
        own = dict(cut(rng, tuple(seen.shape), ranks)).get(rank)
        held = None if own is None else seen[own]
        offset = () if own is None else tuple(part.start for part in own)
        turned = rng.random() < 0.3
        written = torch.neg if turned and dtype not in (torch.bool, torch.uint8) else torch.clone
        pieces.append(Piece(whole.shape, dtype, tuple(seen.shape), held, offset, written))
        expected.append(written(whole))
    with joined("pytorch", "gloo", 30):
        channel = Channel(rank, dist.new_group(backend="gloo"))
        if rank:
            return channel.send(pieces)
        return [torch.equal(got, one) for got, one in zip(channel.receive(pieces), expected, strict=True)]


@pytest.mark.parametrize(("ranks", "seed"), [(2, 1), (3, 2)])
def test_pieces_make_the_whole(ranks, seed):
    """Whichever rank holds which part, in one dimension or laid flat; some hold none, some parts are empty."""
    assert run_ranks(ranks, exchanged, seed, ranks)[0] == [True] * 20


def disagree(rank):
    piece = Piece(torch.Size([2]), torch.float32, (2,), torch.ones(1), (rank,))
    with joined("pytorch", "gloo", 30):
        channel = Channel(rank, dist.new_group(backend="gloo"))
        try:
            return channel.send([piece, piece]) if rank else list(channel.receive([piece]))
        except RuntimeError as error:
            return str(error)


def test_ranks_that_hold_pieces_of_other_tensors_are_told():
    told = "rank 1 holds pieces of other tensors than rank 0; nothing can be put together."
    assert run_ranks(2, disagree) == [told, told]


WIDTH = 1024  # a layer's weight is 4 MiB; with AdamW's two states a checkpoint of 12 layers holds 144 MiB


class Wide(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(12)]
        super().__init__(nn.Linear(6, WIDTH), *layers, nn.Linear(WIDTH, 3))


class Grown:
    """Notes by how much memory that no file backs grows at most while a checkpoint is written; and, while one is read,
    beyond what is there in the end.
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self.watch()

    def watch(self) -> None:
        self.over.clear()
        self.begun = self.most = toys.anonymous()
        threading.Thread(target=self.look).start()

    def look(self) -> None:
        while not self.over.is_set():
            self.most = max(self.most, toys.anonymous())
            time.sleep(0.001)

    def note(self, run, what) -> None:
        self.over.set()
        pathlib.Path(run.work_dir, f"{what}.{run.rank}").write_text(str(self.most - self.begun))

    def after_load_checkpoint(self, run, **_) -> None:
        self.note(run, "read")

    def before_save_checkpoint(self, run, **_) -> None:
        self.over.set()
        self.watch()

    def after_train_epoch(self, run) -> None:
        self.note(run, "written")

    def after_run(self, run) -> None:
        self.over.set()


def test_no_rank_holds_the_whole_model_while_it_is_saved_or_loaded(tmp_path):
    """Two ranks of FSDP, 144 MiB of state: one tensor of 4 MiB in hand at a time, besides a rank's own half, once loaded."""
    cfg = toys.config(
        tmp_path, model=dict(type="tests.shell.test_pieces:Wide"), train_cfg=dict(by_epoch=True, max_epochs=1),
        strategy=dict(type="FSDPStrategy", wrap=["Linear"]),
        custom_hooks=[dict(type="tests.shell.test_pieces:Grown", priority=100)],
        val_dataloader=None, val_cfg=None, val_evaluator=None,
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=5, by_epoch=False)),
    )  # fmt: skip
    for _ in "saved", "loaded":
        run_ranks(2, toys.trained_rank, cfg)
    for what, most in ("written", 16), ("read", 72 + 24):
        grown = [int((tmp_path / f"{what}.{rank}").read_text()) / 2**20 for rank in (0, 1)]
        assert max(grown) < most, (what, grown)
