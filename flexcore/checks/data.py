"""Rules of loaders, batches and samplers that need no dataset to decide."""

import math
from collections.abc import Iterator

from flexcore.batching import is_opaque
from flexcore.components import Supplied
from flexcore.config import Config, DataLoader, DefaultSampler, InfiniteSampler
from flexcore.facts import Facts
from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem
from flexcore.wrappers import asked

FIXING = {"global_batch_size", "optim_wrapper"}  # what may fix a batch size that is not given


def loaders(config: Config, facts: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    train = config.train_dataloader
    if isinstance(train, DataLoader):
        yield from _numbers(train, ("train_dataloader",))
        accumulation = next((one.wrapper.accumulative_counts for one in asked(config)), None)
        solvable = (config.global_batch_size is not None and accumulation is not None) or broken & FIXING
        if train.batch_size is None and train.batch_sampler is None and not solvable:
            text = "is missing, and global_batch_size with accumulative_counts does not fix it."
            yield problem(
                "FD001",
                ("train_dataloader", "batch_size"),
                text,
                "Set batch_size: samples per rank and micro-batch.",
            )
    if train is not None and is_opaque(train) and config.global_batch_size is not None:
        text = "sets the clock to global batches, which needs a training order flexcore deals itself."
        yield problem(
            "FD002",
            ("global_batch_size",),
            text,
            "Use a dataset with DefaultSampler, or accumulative_counts.",
        )
    for key, counts in (("val_dataloader", facts.val_samples), ("test_dataloader", facts.test_samples)):
        yield from _evaluation(config, key)
        loaders = getattr(config, key) or ()
        if loaders and counts is not None and len(counts) != len(loaders):
            text = f"has {len(loaders)} loaders, and {len(counts)} were observed."
            yield problem("FK022", (key,), text, "Observe this config's own datasets.")


def _batch_sampler(loader: DataLoader, path: Path) -> Iterator[Problem]:
    """A batch size is written once: in the loader, which hands it on, or in the batch sampler."""
    sampler = loader.batch_sampler
    if sampler is not None and loader.batch_size is not None and "batch_size" in sampler.kwargs:
        text = "is given in the loader and in its batch_sampler."
        yield problem("FK019", (*path, "batch_size"), text, "Keep one of them; the loader's is handed on.")


def _evaluation(config: Config, key: str) -> Iterator[Problem]:
    named = getattr(config, key)
    if named == ():
        yield problem("FK012", (key,), "is empty.", "Give at least one loader, or remove the group.")
    for i, entry in enumerate(named or ()):
        path: Path = (key,) if len(named) == 1 and entry.name is None else (key, entry.name or i)
        if isinstance(entry.loader, Supplied):
            continue
        yield from _numbers(entry.loader, path)
        if entry.loader.batch_size is None and not is_opaque(entry.loader):
            yield problem(
                "FD001", (*path, "batch_size"), "is missing.", "Set batch_size: samples per rank and batch."
            )
        if isinstance(entry.loader.sampler, DefaultSampler) and entry.loader.sampler.shuffle:
            text = "shuffles an evaluation, which changes its order and nothing else."
            yield problem("FD006", (*path, "sampler", "shuffle"), text, "Set shuffle=False.")
        if isinstance(entry.loader.sampler, InfiniteSampler):
            text = "is endless, and an evaluation must end."
            yield problem("FK020", (*path, "sampler", "type"), text, "Use DefaultSampler.")


def _numbers(loader: DataLoader, path: Path) -> Iterator[Problem]:
    yield from _batch_sampler(loader, path)
    for name, least in (
        ("batch_size", 1),
        ("num_workers", 0),
        ("prefetch_factor", 1),
        ("num_batch_per_epoch", 1),
    ):
        value = getattr(loader, name)
        if value is not None and value < least:
            yield problem(
                "FK020", (*path, name), f"must be at least {least}, got {shown(value)}.", "Correct the value."
            )
    if not 0 <= loader.timeout < math.inf:
        yield problem(
            "FK020",
            (*path, "timeout"),
            f"must be seconds >= 0, got {shown(loader.timeout)}.",
            "Correct the value.",
        )
    if loader.num_workers == 0:
        if loader.persistent_workers:
            yield problem(
                "FD005",
                (*path, "persistent_workers"),
                "is true with num_workers=0.",
                "Set num_workers, or remove it.",
            )
        for name in ("prefetch_factor", "timeout"):
            if getattr(loader, name):
                text = f"is {shown(getattr(loader, name))} with num_workers=0."
                yield problem("FD005", (*path, name), text, "Set num_workers, or remove it.")
    sampler = loader.sampler
    if (
        isinstance(sampler, DefaultSampler | InfiniteSampler)
        and sampler.seed is not None
        and sampler.seed < 0
    ):
        text = f"must be at least 0, got {sampler.seed}."
        yield problem("FK020", (*path, "sampler", "seed"), text, "Correct the value.")
