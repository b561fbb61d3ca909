"""Validation and test: every loader through every metric, no sample counted twice."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import torch
from attrs import frozen

from flexcore.evaluating import mark_of
from flexcore.problems import ConfigError, Path
from flexcore.rules import problem
from flexcore.run_plan import Evaluation
from shell.data import batch_size, to_device
from shell.hooks.checkpoint import CheckpointHook
from shell.optimizer_states import restore_rng, rng_state
from shell.predictions import Predictions
from shell.run import Run

END: Any = object()
"""In place of a batch: there is none left."""


@frozen
class EvalFeed:
    """One loader ready to run: `own` of `total` batches are this rank's; the rest are run and discarded.

    None: known when every rank has run out, or read `limit` of them.
    """

    name: str | None
    batches: Any
    own: int | None
    total: int | None
    predictions: Predictions | None = None
    limit: int | None = None


class Anew:
    """A loader read from its start each time, with the random streams of its workers as they were the first time."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.generator = getattr(loader, "generator", None)
        self.state = None if self.generator is None else self.generator.get_state()

    def __iter__(self) -> Iterator[Any]:
        if self.generator is not None:
            self.generator.set_state(self.state)
        return iter(self.loader)


def evaluate(run: Run, part: Evaluation, mode: str) -> dict[str, float]:
    """Run every loader; the metrics, the same on every rank. mode: "val" or "test", as hook stages have it.

    Training is not touched: each module's mode and every random stream are as before. What is best is saved then, as
    what training goes on from.
    """
    started = perf_counter()
    streams, modes = rng_state(), [(module, module.training) for module in run.called.modules()]
    run.stages.call(f"before_{mode}")
    run.stages.call(f"before_{mode}_epoch")
    run.strategy.share_buffers()
    run.called.eval()
    values, sizes = _over_all(run, part, mode) if part.loop is None else run.eval_loops[mode].evaluated()
    run.called.train(modes[0][1])  # for modules that do something on it
    for module, training in modes:  # and for those whose owner keeps them in another mode
        module.training = training
    run.metrics = values
    if run.rank == 0:
        run.recorder.event(
            "validate" if mode == "val" else "test", iter=run.completed, epoch=run.epoch, samples=sizes,
            metrics=values, seconds=perf_counter() - started,
        )  # fmt: skip
    run.stages.call(f"after_{mode}_epoch", metrics=values)
    run.stages.call(f"after_{mode}")
    restore_rng(streams)
    for hook in run.stages.hooks:
        if isinstance(hook, CheckpointHook):
            hook.save_best(run)
    return values


def _over_all(run: Run, part: Evaluation, mode: str) -> tuple[dict[str, float], list[int]]:
    """(metrics, samples of each loader) over every loader in turn."""
    values: dict[str, float] = {}
    sizes = []
    for feed, metrics in run.eval_feeds[mode]:
        prefix = "" if feed.name is None else f"{feed.name}/"
        seen = _run_over(run, feed, metrics, part, mode)
        if feed.predictions is not None:
            feed.predictions.write(run.group, run.rank, mark_of(run.plan, mode, run.completed))
        sizes.append(int(sum(run.group.gather(seen))))
        values.update({prefix + name: value for name, value in metrics.compute(sizes[-1]).items()})
    return values, sizes


def _run_over(run: Run, feed: EvalFeed, metrics: "Metrics", part: Evaluation, mode: str) -> int:
    """Feed one loader through the model into its metrics; the samples this rank counted."""
    stages, predict, counted = run.stages, run.contract.prediction(mode), 0
    before, after = stages.full.get(f"before_{mode}_iter", ()), stages.full.get(f"after_{mode}_iter", ())
    dtype = None if part.dtype is None else getattr(torch, part.dtype)
    context = nullcontext if dtype is None else (lambda: torch.autocast(run.device.type, dtype=dtype))
    metrics.reset()
    with torch.no_grad():
        for i, (fetched, counts) in enumerate(_dealt(run, feed, mode)):
            batch = to_device(fetched, run.device) if run.device.type != "cpu" else fetched
            run.beats += 1
            for method in before:
                method(run, batch_idx=i, data_batch=batch)
            with context():
                prediction = predict(run.model, batch)
            if counts:
                counted += metrics.update(batch, prediction)
                if feed.predictions is not None:
                    feed.predictions.add(i, prediction.outputs)
            elif i == 0:
                metrics.see(batch, prediction)
            for method in after:
                method(run, batch_idx=i, data_batch=batch, outputs=prediction.outputs)
    return counted


def _dealt(run: Run, feed: EvalFeed, mode: str) -> Iterator[tuple[Any, bool]]:
    """(batch, whether it counts), as many on every rank. Of ranks that see the same samples one counts them.

    Raises:
        ConfigError: of a dataset that only iterates, some rank got nothing.
    """
    if feed.total is not None and feed.own is not None:
        for i, batch in zip(range(feed.total), feed.batches, strict=False):
            yield batch, run.leads and i < feed.own
        return
    source, last, number = iter(feed.batches), END, 0
    while feed.limit is None or number < feed.limit:
        batch, number = next(source, END), number + 1
        if number == 1:
            _all_have_one(run, (f"{mode}_dataloader", *([feed.name] if feed.name else [])), batch is not END)
        if not any(run.group.max([batch is not END])):
            return
        yield (last, False) if batch is END else (batch, True)
        last = last if batch is END else batch


def _all_have_one(run: Run, path: Path, has_one: bool) -> None:
    """A rank without a single batch has none to repeat while others go on."""
    without = [str(rank) for rank, has in enumerate(run.group.gather(has_one)) if not has]
    if without:
        text = f"only iterates, and rank {', '.join(without)} got nothing of it."
        raise ConfigError([problem("FD003", path, text, "Let it yield samples on each rank.")])


class Metrics:
    """The metrics of one loader: torchmetrics objects (update, compute, reset) or mmengine's (process, evaluate)."""

    def __init__(self, named: list[tuple[str, Any]]) -> None:
        self.named = named

    def reset(self) -> None:
        for _, metric in self.named:
            if hasattr(metric, "reset"):
                metric.reset()

    def update(self, batch: Any, prediction: Any) -> int:
        for _, metric in self.named:
            if hasattr(metric, "process"):
                metric.process(data_batch=batch, data_samples=prediction.outputs)
            elif prediction.has_target:
                metric.update(prediction.outputs, prediction.target)
            else:
                metric.update(prediction.outputs)
        return batch_size(batch)

    def see(self, batch: Any, prediction: Any) -> None:
        """On a rank without a sample: learn kinds and shapes of state from a batch, and forget its values.

        Ranks whose lists of state are empty would send others another type than they wait for, which ends both.
        """
        taught = [(name, metric) for name, metric in self.named if not hasattr(metric, "process")]
        Metrics(taught).update(batch, prediction)
        for _, metric in taught:
            shapes = [
                (owner, name, _entry_of(owner, name))
                for owner in _modules(metric)
                for name in getattr(owner, "_defaults", ())
            ]
            if hasattr(metric, "reset"):
                metric.reset()
            for owner, name, example in shapes:
                if example is not None:
                    setattr(owner, name, [example.new_empty((0, *example.shape[1:]))])

    def compute(self, size: int) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, metric in self.named:
            found = metric.evaluate(size) if hasattr(metric, "evaluate") else metric.compute()
            if isinstance(found, Mapping):
                values.update({str(key): float(value) for key, value in found.items()})
            else:
                values[name] = float(found)
        return values

    def state_dict(self) -> dict[str, Any]:
        """What those keep from one evaluation to the next that tell it and take it back; a torchmetrics metric, unless asked to, nothing."""
        told = {name: metric.state_dict() for name, metric in self.named if _keeps(metric)}
        return {name: dict(state) for name, state in told.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """By name; a metric that the checkpoint does not know begins anew."""
        for name, metric in self.named:
            if name in state and _keeps(metric):
                metric.load_state_dict(state[name])


def _keeps(metric: Any) -> bool:
    return hasattr(metric, "state_dict") and hasattr(metric, "load_state_dict")


def _modules(metric: Any) -> list[Any]:
    """A torchmetrics metric, or all those of a collection."""
    return list(metric.modules()) if isinstance(metric, torch.nn.Module) else [metric]


def _entry_of(metric: Any, name: str) -> torch.Tensor | None:
    """One entry of a torchmetrics state that is a list of tensors; None for any other."""
    state = getattr(metric, name)
    return state[0] if isinstance(state, list) and state and isinstance(state[0], torch.Tensor) else None
