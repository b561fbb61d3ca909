"""Where batches come from: datasets for a planned order, torch loaders for an order of their own."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from attrs import frozen
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import IterableDataset

from flexcore.batching import is_opaque
from flexcore.components import Component, Supplied
from flexcore.config import DataLoader, DefaultSampler, InfiniteSampler
from flexcore.problems import ConfigError, Path
from flexcore.rules import problem
from flexcore.run_plan import Evaluation, Plan
from flexcore.sampling import Order, derived_seed
from shell import building, data, ordering, placing


@frozen
class Place:
    """Which rank reads, how its samples are collated by default, and what its workers draw from."""

    plan: Plan
    rank: int
    world_size: int
    collate: data.Collate


def train_source(loader: DataLoader | Supplied, supplied: dict[str, Any], place: Place) -> Any:
    """A dataset (for a planned order), or a loader with an order of its own."""
    path: Path = ("train_dataloader",)
    if isinstance(loader, Supplied):
        return supplied["train_dataloader"]
    dataset = data.build_dataset(loader, path, supplied.get("train_dataset"))
    own = only_iterates(dataset) or loader.batch_sampler is not None or isinstance(loader.sampler, Component)
    return own_order(loader, dataset, path, place) if own else dataset


def only_iterates(dataset: Any) -> bool:
    """Whether a dataset has no samples to name: torch's IterableDataset, or an iterable without __getitem__."""
    return isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")


def eval_sources(
    part: Evaluation, mode: str, supplied: dict[str, Any], place: Place
) -> list[tuple[str | None, Any, Any, Path]]:
    """(name, dataset or loader, its settings, its place in the config) of each evaluation loader."""
    found = []
    for i, planned in enumerate(part.loaders):
        path: Path = (
            (f"{mode}_dataloader",) if len(part.loaders) == 1 else (f"{mode}_dataloader", planned.name or i)
        )
        if isinstance(planned.loader, Supplied):
            source = _one_of(supplied[f"{mode}_dataloader"], planned.name, i, len(part.loaders))
        else:
            dataset = _one_of(supplied.get(f"{mode}_dataset"), planned.name, i, len(part.loaders))
            source = data.build_dataset(planned.loader, path, dataset)
            given = [key for key in ("sampler", "batch_sampler") if getattr(planned.loader, key) is not None]
            if only_iterates(source) and given:
                text = "is given, and the dataset only iterates, in an order of its own."
                raise ConfigError([problem("FK019", (*path, given[0]), text, "Remove it.")])
            if only_iterates(source) or is_opaque(planned.loader):
                source = own_order(planned.loader, source, path, place, evaluates=True)
        found.append((planned.name, source, planned.loader, path))
    return found


def _one_of(given: Any, name: str | None, index: int, count: int) -> Any:
    """A supplied object for one of several loaders comes in a mapping by name or a list by position."""
    if count == 1 or given is None:
        return given
    return given[name] if isinstance(given, dict) else given[index]


def own_order(
    loader: DataLoader, dataset: Any, path: Path, place: Place, *, evaluates: bool = False
) -> TorchLoader[Any]:
    """A torch DataLoader around a user's sampler or batch sampler, or a dataset that only iterates.

    Worker seeds are a function of (seed, rank, pass): torch draws them from this loader's own generator as workers
    start, so they start anew for each pass; persistent ones would go on with streams that a resume cannot know.
    """
    env, workers = place.plan.environment, loader.num_workers
    seed = derived_seed(env.seed or 0, place.rank, 0x0DE2)
    extra = (
        {"worker_init_fn": data.worker_init(loader, env), "multiprocessing_context": env.mp_start_method}
        if workers
        else {}
    )
    return TorchLoader(
        dataset, num_workers=workers, pin_memory=loader.pin_memory,
        prefetch_factor=loader.prefetch_factor, timeout=loader.timeout, collate_fn=data.collate_of(loader, place.collate),
        generator=torch.Generator().manual_seed(seed % 2**63), **extra, **_batching(loader, dataset, path, place, evaluates),
    )  # fmt: skip


def _batching(loader: DataLoader, dataset: Any, path: Path, place: Place, evaluates: bool) -> dict[str, Any]:
    """What makes batches: the batch sampler around a sampler, or batch_size and the sampler."""
    if loader.batch_sampler is None:
        sized = {"batch_size": loader.batch_size or 1, "drop_last": loader.drop_last}
        return (
            sized
            if only_iterates(dataset)
            else {**sized, "sampler": _sampler(loader, dataset, path, place, evaluates)}
        )
    sampler = _sampler(loader, dataset, path, place, evaluates)
    filled = {"sampler": sampler, "batch_size": loader.batch_size, "drop_last": loader.drop_last}
    wanted = {name: filled[name] for name in placing.filled_in(loader)}
    return {"batch_sampler": building.build(loader.batch_sampler, (*path, "batch_sampler"), **wanted)}


def _sampler(loader: DataLoader, dataset: Any, path: Path, place: Place, evaluates: bool) -> Iterable[int]:
    if isinstance(loader.sampler, Component):
        made: Iterable[int] = building.build(loader.sampler, (*path, "sampler"), dataset)
        return made
    chosen = loader.sampler if loader.sampler is not None else DefaultSampler(shuffle=not evaluates)
    seed = chosen.seed if chosen.seed is not None else place.plan.environment.seed or 0
    order = Order(
        samples=len(dataset), shuffle=chosen.shuffle, seed=seed, endless=isinstance(chosen, InfiniteSampler),
        world_size=place.world_size, micro_batch_size=1, padded=not evaluates,
    )  # fmt: skip
    return DealtSampler(order, place.rank)


class DealtSampler:
    """One rank's samples in the planned order, one by one, for a batch sampler of the user's own."""

    def __init__(self, order: Order, rank: int) -> None:
        self.order, self.rank, self.epoch = order, rank, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        own = len(range(self.rank, self.order.samples, self.order.world_size))
        return self.order.micro_batches if self.order.padded else own

    def __iter__(self) -> Iterator[int]:
        length, endless = len(self), self.order.endless
        start = self.epoch * length if endless else 0
        while True:
            for indices in ordering.micro_batches(self.order, self.epoch, start, start + length, self.rank):
                yield from indices
            if not endless:
                return
            start += length
