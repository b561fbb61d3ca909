"""Datasets, loaders and the streams of batches a run reads; which batch comes when is the plan's."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data.dataloader import default_collate

from flexcore.components import Component, Supplied, thaw
from flexcore.config import DataLoader
from flexcore.problems import ConfigError, Path
from flexcore.rules import problem
from flexcore.run_plan import Environment, Plan
from flexcore.sampling import Order, derived_seed
from shell import building, ordering
from shell.optimizer_states import restore_rng, rng_state

ENDLESS = 2**62
Collate = Callable[[list[Any]], Any]


class Keyed:
    """A dataset fetched by (key, indices); in a worker the key seeds every RNG, so prefetching changes nothing.

    In the training process items draw from the run's own RNG, which checkpoints hold.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitems__(self, keyed: tuple[int, Sequence[int]]) -> list[Any]:
        key, indices = keyed
        if get_worker_info() is not None:
            seed_everything(derived_seed(self.seed, key))
        fetch = getattr(self.dataset, "__getitems__", None)
        return fetch(indices) if fetch is not None else [self.dataset[i] for i in indices]


def seed_everything(seed: int) -> None:
    """torch, python and (if loaded) numpy; numpy takes 32 bits."""
    import sys

    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def pseudo_collate(samples: list[Any]) -> Any:
    """Samples kept as lists, transposed through mappings and tuples, nothing stacked (mmengine models expect it)."""
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: pseudo_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        columns = [pseudo_collate(list(column)) for column in zip(*samples, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)
    return samples


def collate_of(loader: DataLoader, default: Collate) -> Collate:
    if loader.collate_fn is None:
        return default
    known: dict[str, Collate] = {"default_collate": default_collate, "pseudo_collate": pseudo_collate}
    if loader.collate_fn.type in known:
        return known[loader.collate_fn.type]
    return _function(loader.collate_fn)


def _function(component: Component) -> Callable[..., Any]:
    """A named function with the arguments the config gives it."""
    kwargs = thaw(component.kwargs)
    target = building.resolve(component.type)
    return partial(target, **kwargs) if kwargs else target


def build_dataset(loader: DataLoader, path: Path, supplied: Any) -> Any:
    """The dataset of one loader.

    Raises:
        ConfigError: it can neither be counted nor be iterated.
    """
    dataset = (
        supplied
        if isinstance(loader.dataset, Supplied)
        else building.build(loader.dataset, (*path, "dataset"))
    )
    if not hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset):
        text = f"{type(dataset).__name__} has no length and is no torch IterableDataset."
        raise ConfigError([problem("FK013", (*path, "dataset"), text, "Give it __len__ and __getitem__.")])
    return dataset


@frozen
class _Stream:
    """A batch sampler over a fixed run of (key, indices), read once or many times."""

    make: Callable[[], Iterator[tuple[int, Sequence[int]]]]

    def __iter__(self) -> Iterator[tuple[int, Sequence[int]]]:
        return self.make()


def batches(
    dataset: Any, loader: DataLoader, collate: Collate, keyed: Callable[[], Iterator[tuple[int, Sequence[int]]]],
    env: Environment, seed: int,
) -> Iterable[Any]:  # fmt: skip
    """Collated batches in the order `keyed` says, from worker processes if the loader has any."""
    source = Keyed(dataset, seed)
    if loader.num_workers == 0 and not loader.pin_memory:
        return _InProcess(source, collate, keyed)
    workers = {"multiprocessing_context": env.mp_start_method} if loader.num_workers else {}
    return TorchLoader(
        source, batch_sampler=_Stream(keyed), collate_fn=collate, num_workers=loader.num_workers,  # type: ignore[arg-type]
        persistent_workers=loader.persistent_workers, prefetch_factor=loader.prefetch_factor,
        pin_memory=loader.pin_memory, timeout=loader.timeout, generator=torch.Generator().manual_seed(0),
        worker_init_fn=worker_init(loader, env) if loader.num_workers else None, **workers,
    )  # fmt: skip


def worker_init(loader: DataLoader, env: Environment) -> Callable[[int], None]:
    """What each worker process does first: its thread counts, then the config's own function."""
    own = None if loader.worker_init_fn is None else _function(loader.worker_init_fn)
    return _WorkerInit(own, env.opencv_num_threads)


@frozen
class _WorkerInit:
    own: Callable[[int], None] | None
    opencv_threads: int

    def __call__(self, worker_id: int) -> None:
        import sys

        torch.set_num_threads(1)
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(self.opencv_threads)
        if self.own is not None:
            self.own(worker_id)


@frozen
class _InProcess:
    source: Keyed
    collate: Collate
    keyed: Callable[[], Iterator[tuple[int, Sequence[int]]]]

    def __iter__(self) -> Iterator[Any]:
        fetch, collate = self.source.__getitems__, self.collate
        for batch in self.keyed():
            yield collate(fetch(batch))


def train_keys(plan: Plan, order: Order, start: int, rank: int) -> Iterator[tuple[int, Sequence[int]]]:
    """(micro-batch number in the run, indices) from iteration `start` to the run's end. Skipping is arithmetic."""
    assert plan.timeline is not None and plan.batching is not None
    per = plan.batching.per_iteration
    clock = plan.timeline
    at, end = start * per, ENDLESS if clock.opaque or clock.max_iters is None else clock.max_iters * per
    if order.endless:
        yield from enumerate(ordering.micro_batches(order, 0, at, end, rank), at)
        return
    length = (plan.timeline.epoch_length or 1) * per
    while at < end:
        epoch, within = divmod(at, length)
        stop = min(length, within + end - at)
        for indices in ordering.micro_batches(order, epoch, within, stop, rank):
            yield at, indices
            at += 1


class Replay:
    """Batches of a user's own loader, pass after pass; its state puts a resume exactly where this one stands.

    What a pass is made of is drawn when it starts, so the streams are noted there: a resume starts the same pass,
    reads past what was trained on, and goes on with the streams of the checkpoint.
    """

    def __init__(
        self, loader: Iterable[Any], per_epoch: int | None, set_epoch: Callable[[int], None]
    ) -> None:
        self.loader, self.per_epoch, self.set_epoch = loader, per_epoch, set_epoch
        self.generators = list(_generators(loader))
        self.epoch = self.seen = 0
        self.at_start: Any = None

    def state_dict(self) -> dict[str, Any]:
        drawn = [generator.get_state() for generator in self.generators]
        return {"epoch": self.epoch, "seen": self.seen, "at_start": self.at_start, "generators": drawn}

    def stream(self, start: int, state: Mapping[str, Any] | None) -> Iterator[Any]:
        """Every batch from micro-batch `start` of the run on; state None: the passes before draw nothing.

        Raises:
            ConfigError: the loader is empty.
        """
        self.epoch, skip = divmod(start, self.per_epoch) if self.per_epoch else (0, start)
        if state is not None:
            self.epoch, skip = state["epoch"], state["seen"]
            if self.per_epoch and skip >= self.per_epoch:
                self.epoch, skip = self.epoch + 1, 0
                self._rewind(state["generators"])
        while True:
            resumes = state is not None and skip > 0 and state["at_start"] is not None
            now = rng_state()
            if resumes and state is not None:
                restore_rng(state["at_start"]["rng"])
                self._rewind(state["at_start"]["generators"])
            self.at_start = {
                "rng": rng_state(),
                "generators": [generator.get_state() for generator in self.generators],
            }
            yield from self._one_pass(skip, now if resumes else None)
            skip = max(0, skip - self.seen) if not self.per_epoch else 0
            state, self.epoch = None, self.epoch + 1

    def _one_pass(self, skip: int, streams: Any) -> Iterator[Any]:
        self.set_epoch(self.epoch)
        self.seen = 0
        for batch in self.loader:
            self.seen += 1
            if self.seen == skip and streams is not None:
                restore_rng(streams)
            if self.seen > skip:
                yield batch
            if self.per_epoch and self.seen >= self.per_epoch:
                break
        if self.seen == 0:
            raise ConfigError([problem("FD003", ("train_dataloader",), "yielded no batch.", "Give it data.")])

    def _rewind(self, states: Sequence[torch.Tensor]) -> None:
        for generator, drawn in zip(self.generators, states, strict=True):
            generator.set_state(drawn)


def _generators(loader: Any) -> Iterator[torch.Generator]:
    """The torch generators that a loader and its samplers draw from, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    found = [getattr(owner, "generator", None) for owner in owners]
    yield from {id(one): one for one in found if isinstance(one, torch.Generator)}.values()


def eval_keys(order: Order, rank: int, limit: int | None) -> tuple[int, int, list[tuple[int, Sequence[int]]]]:
    """(batches of this rank's own, batches every rank runs, keys): a rank that runs out repeats its last one."""
    total = order.micro_batches if limit is None else min(limit, order.micro_batches)
    own = [indices for indices in ordering.micro_batches(order, 0, 0, total, rank) if indices]
    filler = own[-1] if own else [0]
    filled = [*own, *[filler] * (total - len(own))]
    return len(own), total, list(enumerate(filled))


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor moved, through mappings, lists, tuples and objects that have `.to`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def batch_size(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor, or of its first list.

    A list inside a mapping or another sequence holds samples (pseudo_collate); an outer one holds columns.
    """
    inner = False
    while True:
        if type(batch) is torch.Tensor:
            shape = batch.shape
            return shape[0] if shape else 1
        if (
            type(batch) in (tuple, list)
            and batch
            and isinstance(batch[0], torch.Tensor | Mapping | tuple | list)
        ):
            if inner and type(batch) is list:
                return len(batch)
            batch, inner = batch[0], True
        elif isinstance(batch, Mapping):
            batch, inner = next(iter(batch.values()), ()), True
        elif isinstance(batch, torch.Tensor):
            return len(batch) if batch.dim() else 1
        else:
            return len(batch) if hasattr(batch, "__len__") else 1
