"""The streams of batches that loops read, opened from what was built; no loop is here."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.utils.data.dataloader import default_collate

from flexcore.components import Supplied
from flexcore.problems import ConfigError
from flexcore.run_plan import Evaluation
from flexcore.sampling import derived_seed
from shell import data, sources
from shell.contracts import Contract
from shell.evaluating import Anew, EvalFeed, Metrics
from shell.hooks.sampler_seed import SamplerSeedHook
from shell.passes import Passes
from shell.predictions import Predictions
from shell.run import Run

if TYPE_CHECKING:
    from shell.assembling import Built


def eval_feeds(run: Run, part: Evaluation, mode: str, built: "Built") -> list[tuple[EvalFeed, Metrics]]:
    named = [
        (name, metric.to(run.device) if hasattr(metric, "to") else metric)
        for name, metric in built.metrics[mode]
    ]
    metrics, feeds = Metrics(named), []
    for i, (planned, (name, source, loader, _)) in enumerate(
        zip(part.loaders, built.evals[mode], strict=True)
    ):
        if planned.order is None or isinstance(loader, Supplied):
            feeds.append((_own_feed(run, name, source, planned.max_batches), metrics))
            continue
        own, total, keys = data.eval_keys(planned.order, run.data_rank, planned.max_batches)
        collate = data.collate_of(loader, default_collate_of(built.contract))
        seed = derived_seed(run.plan.environment.seed or 0, run.data_rank, 0xE7A1, i)
        batches = data.batches(source, loader, collate, _again(keys), run.plan.environment, seed)
        file = None if part.predictions is None or run.log_dir is None else run.log_dir / part.predictions
        writer = None if file is None else Predictions(file, name, [indices for _, indices in keys[:own]])
        feeds.append((EvalFeed(name, batches, own, total, writer), metrics))
    return feeds


def _own_feed(run: Run, name: str | None, source: Any, limit: int | None) -> EvalFeed:
    """A loader with an order of its own: as long as it says, or, over a dataset that only iterates, until it ends.

    Where ranks share parameters they run as many forwards, so that lengths that differ are no better than none.
    """
    streams = sources.only_iterates(getattr(source, "dataset", [])) or not hasattr(source, "__len__")
    if streams:
        return EvalFeed(name, Anew(source), None, None, limit=limit)
    count = len(source) if limit is None else min(len(source), limit)
    if run.strategy.shards and len(set(run.group.gather(count))) > 1:
        return EvalFeed(name, source, None, None, limit=limit)
    return EvalFeed(name, source, count, count)


def _again(keys: list[Any]) -> Callable[[], Iterator[Any]]:
    return lambda: iter(keys)


def default_collate_of(contract: Contract) -> data.Collate:
    return data.pseudo_collate if contract.keeps_lists else default_collate


def passes(run: Run, built: "Built") -> Passes:
    """The training data as a loop of the user's own reads it."""
    plan = run.plan
    assert plan.train is not None and plan.timeline is not None
    length = plan.facts.train_batches if plan.train.order is None else plan.timeline.epoch_length
    dataset = getattr(built.train, "dataset", built.train)
    opened = partial(training_batches, run, built)
    return Passes(opened, length, dataset, run.device, skips=plan.train.order is not None)


def _begun_together(run: Run, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, once every rank has its first: one that gets nothing would leave the others waiting for it."""
    from shell.settling import raise_together

    first, failure = None, None
    try:
        first = next(batches)
    except ConfigError as error:
        failure = error
    raise_together(run.group, failure)
    yield first
    yield from batches


def training_batches(run: Run, built: "Built", start: int) -> Iterator[Any]:
    plan = run.plan
    assert plan.train is not None and plan.timeline is not None and plan.batching is not None
    loader, order = plan.train.loader, plan.train.order
    if isinstance(loader, Supplied) or order is None:
        hook = next((h for h in run.stages.hooks if isinstance(h, SamplerSeedHook)), None)
        tell = (lambda epoch: hook.set_epoch(built.train, epoch)) if hook is not None else (lambda _: None)
        length, per = (
            plan.timeline.epoch_length if plan.timeline.by_epoch else None,
            plan.batching.per_iteration or 1,
        )
        run.replay = data.Replay(
            built.train, plan.facts.train_batches if length is None else length * per, tell
        )
        return _begun_together(run, run.replay.stream(start * per, run.replay_from))
    chosen = order
    collate = data.collate_of(loader, default_collate_of(built.contract))
    seed = derived_seed(
        plan.environment.seed or 0, run.data_rank if plan.environment.diff_rank_seed else 0, 0xDA7A
    )
    return iter(data.batches(
        built.train, loader, collate, lambda: data.train_keys(plan, chosen, start, run.data_rank), plan.environment, seed,
    ))  # fmt: skip
