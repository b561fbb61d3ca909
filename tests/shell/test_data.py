"""Which batch comes when: any start cuts the same stream, and workers and prefetching change nothing."""

import random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

import flexcore
from flexcore.components import Component, Data, Supplied
from flexcore.config import DataLoader
from flexcore.problems import ConfigError
from flexcore.sampling import Order
from shell import data
from tests.shell.parts import Pairs

PART = {"type": "tests.shell.parts:Pairs"}


def plan_of(samples, world=1, batch=3, total=3, by_epoch=True, **changes):
    loop = {"by_epoch": by_epoch, "max_epochs" if by_epoch else "max_iters": total}
    config = {
        "model": {"type": "tests.shell.parts:Net"},
        "train_dataloader": {"dataset": PART, "batch_size": batch},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "train_cfg": loop,
        "randomness": {"seed": 4},
        **changes,
    }
    return flexcore.plan(config, flexcore.Facts(world_size=world, train_samples=samples, device_type="cpu"))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 4), st.data())
def test_any_start_cuts_the_same_stream(samples, world, batch, draw):
    changes = draw.draw(
        st.sampled_from(
            [
                {},
                {"global_batch_size": 2 * world * batch},
                {
                    "train_dataloader": {
                        "dataset": PART,
                        "batch_size": batch,
                        "sampler": {"type": "InfiniteSampler"},
                    }
                },
            ]
        )
    )
    by_epoch = "train_dataloader" not in changes and draw.draw(st.booleans())
    plan = plan_of(samples, world, batch, draw.draw(st.integers(1, 12)), by_epoch, **changes)
    rank = draw.draw(st.integers(0, world - 1))
    whole = list(data.train_keys(plan, plan.train.order, 0, rank))
    per = plan.batching.per_iteration
    assert [key for key, _ in whole] == list(range(plan.timeline.max_iters * per))
    start = draw.draw(st.integers(0, plan.timeline.max_iters))
    assert list(data.train_keys(plan, plan.train.order, start, rank)) == whole[start * per :]


class Noisy(Dataset):
    """Items that draw from every RNG there is."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return index, torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


def keyed(start=0):
    order = Order(samples=24, shuffle=True, seed=1, world_size=1, micro_batch_size=4)
    from shell.ordering import micro_batches

    return enumerate(micro_batches(order, 0, start, 6, 0), start)


def fetched(workers, prefetch, start=0, seed=7):
    plan = plan_of(24)
    loader = DataLoader(dataset=Supplied(), batch_size=4, num_workers=workers, prefetch_factor=prefetch)
    batches = data.batches(Noisy(), loader, list, lambda: keyed(start), plan.environment, seed)
    return list(batches)


def test_workers_draw_the_same_numbers_whatever_their_count_prefetch_or_start():
    one = fetched(1, 2)
    assert len({item[1:] for batch in one for item in batch}) == 24
    assert fetched(2, 3) == one
    assert fetched(2, 2, start=4) == one[4:]
    assert fetched(1, 2, start=4, seed=8) != one[4:]
    assert [[item[0] for item in batch] for batch in fetched(0, None)] == [
        [item[0] for item in batch] for batch in one
    ]


def test_in_process_items_draw_from_the_runs_own_stream():
    torch.manual_seed(0)
    expected = [torch.rand(()).item() for _ in range(24)]
    torch.manual_seed(0)
    assert [item[1] for batch in fetched(0, None) for item in batch] == expected


class Loader(list):
    def __init__(self, *batches):
        super().__init__(batches)
        self.epochs = []

    def tell(self, epoch):
        self.epochs.append(epoch)


@pytest.mark.parametrize("start", range(7))
def test_a_users_loader_is_replayed_to_the_start(start):
    loader = Loader("a", "b", "c")
    stream = data.Replay(loader, 3, loader.tell).stream(start, None)
    assert [next(stream) for _ in range(6)] == (["a", "b", "c"] * 4)[start : start + 6]
    assert loader.epochs[0] == start // 3


def test_a_shorter_epoch_cuts_a_users_loader():
    loader = Loader("a", "b", "c")
    stream = data.Replay(loader, 2, loader.tell).stream(3, None)
    assert [next(stream) for _ in range(4)] == ["b", "a", "b", "a"]
    assert loader.epochs == [1, 2, 3]


def test_a_loader_without_a_length_is_replayed_by_reading():
    loader = Loader("a", "b", "c")
    stream = data.Replay(loader, None, loader.tell).stream(4, None)
    assert [next(stream) for _ in range(4)] == ["b", "c", "a", "b"]


def test_an_empty_loader_is_refused():
    with pytest.raises(ConfigError) as caught:
        next(data.Replay([], None, lambda _: None).stream(0, None))
    assert str(caught.value) == "train_dataloader: yielded no batch. Give it data. [FD003]"


class Sample:
    pass


def test_pseudo_collate_keeps_samples_and_transposes():
    a, b = Sample(), Sample()
    assert data.pseudo_collate([a, b]) == [a, b]
    assert data.pseudo_collate([(a, 1), (b, 2)]) == ([a, b], [1, 2])
    assert data.pseudo_collate([{"x": a, "y": [1, 2]}, {"x": b, "y": [3, 4]}]) == {
        "x": [a, b],
        "y": [[1, 3], [2, 4]],
    }
    assert data.pseudo_collate(["ab", "cd"]) == ["ab", "cd"]


class Point(NamedTuple):
    x: Any
    y: Any


def test_pseudo_collate_keeps_named_tuples():
    assert data.pseudo_collate([Point(1, 2), Point(3, 4)]) == Point([1, 3], [2, 4])


SIZES = [
    (torch.zeros(5, 2), 5),
    (torch.tensor(3.0), 1),
    ((torch.zeros(4, 1), torch.zeros(4)), 4),
    ([[1, 2, 3], ["a", "b", "c"]], 3),
    ({"x": torch.zeros(6), "y": 3}, 6),
    ({"x": {"z": [1, 2]}}, 2),
    (["a", "b"], 2),
    ([], 0),
    ({}, 0),
    (7, 1),
    (torch.nn.Parameter(torch.zeros(3)), 3),
    (Point(torch.zeros(2), 1), 2),
]


@pytest.mark.parametrize(("batch", "size"), SIZES)
def test_batch_size(batch, size):
    assert data.batch_size(batch) == size


class Movable:
    def __init__(self, device=None):
        self.device = device

    def to(self, device):
        return Movable(device)


def test_to_device_reaches_every_tensor_and_keeps_the_rest():
    meta = torch.device("meta")
    moved = data.to_device(
        {
            "a": [torch.zeros(1), 3],
            "b": (torch.zeros(1),),
            "c": Point(torch.zeros(1), "s"),
            "d": Movable(),
            "e": None,
        },
        meta,
    )
    assert (moved["a"][0].device, moved["b"][0].device, moved["c"].x.device) == (meta, meta, meta)
    assert (moved["a"][1], moved["c"].y, moved["e"]) == (3, "s", None)
    assert moved["d"].device == meta
    assert type(moved["c"]) is Point


def test_evaluation_deals_every_sample_once_and_fills_short_ranks():
    order = Order(samples=9, shuffle=False, seed=0, padded=False, world_size=4, micro_batch_size=1)
    dealt = [data.eval_keys(order, rank, None) for rank in range(4)]
    assert [own for own, _, _ in dealt] == [3, 2, 2, 2]
    assert {total for _, total, _ in dealt} == {3}
    assert sorted(i for own, _, keys in dealt for _, batch in keys[:own] for i in batch) == list(range(9))
    assert dealt[3][2] == [(0, [3]), (1, [7]), (2, [7])]
    assert data.eval_keys(order, 0, 1) == (1, 1, [(0, [0])])


def test_a_rank_without_a_sample_still_runs_as_often():
    order = Order(samples=1, shuffle=False, seed=0, padded=False, world_size=2, micro_batch_size=4)
    assert data.eval_keys(order, 1, None) == (0, 1, [(0, [0])])


class Lengthless:
    def __getitem__(self, index):
        return index


def test_a_dataset_without_a_length_is_refused():
    loader = DataLoader(dataset=Supplied(), batch_size=2)
    with pytest.raises(ConfigError) as caught:
        data.build_dataset(loader, ("train_dataloader",), Lengthless())
    assert str(caught.value) == (
        "train_dataloader.dataset: Lengthless has no length and is no torch IterableDataset. "
        "Give it __len__ and __getitem__. [FK013]"
    )


def scaled(samples, by=1):
    return [sample * by for sample in samples]


def told(worker_id, extra=0):
    torch.manual_seed(worker_id + extra)


def test_collate_is_the_named_one_with_its_arguments():
    def of(collate):
        return data.collate_of(DataLoader(dataset=Supplied(), collate_fn=collate), list)

    assert of(None) is list
    assert of(Component(type="pseudo_collate")) is data.pseudo_collate
    assert of(Component(type="default_collate"))([1, 2]).tolist() == [1, 2]
    own = of(Component(type="tests.shell.test_data:scaled", kwargs=Data((("by", 3),))))
    assert own([1, 2]) == [3, 6]


def test_worker_init_gets_its_arguments_and_the_worker():
    init = Component(type="tests.shell.test_data:told", kwargs=Data((("extra", 5),)))
    loader = DataLoader(dataset=Supplied(), batch_size=4, num_workers=2, worker_init_fn=init)
    made = data.batches(Noisy(), loader, list, lambda: keyed(0), plan_of(24).environment, 1)
    made.worker_init_fn(2)
    assert torch.initial_seed() == 7


class Batched(Pairs):
    def __getitems__(self, indices):
        return [("many", i) for i in indices]


def test_a_dataset_that_fetches_many_is_asked_once():
    assert data.Keyed(Batched(), 0).__getitems__((0, [2, 5])) == [("many", 2), ("many", 5)]
