"""Evaluation loops of the user's own: what one is built with, and what the run does around it.

val_cfg=dict(type="pkg.module:MyLoop", ...) (or test_cfg) names a class; it is built once as

    MyLoop(run, dataloader, evaluator, ...)

and its run() is called for each evaluation and returns a mapping of names to numbers, the same on every rank:

    def run(self):
        for batch in self.dataloader:
            outputs = self.runner.model(batch[0])
            self.evaluator.process(data_samples=outputs, data_batch=batch)
        return self.evaluator.evaluate()

`dataloader` yields this rank's own batches on its device, each sample on one rank alone; of several named loaders it is
a mapping by name. The run puts every module into evaluation mode, turns gradients off, calls before_* and after_* of
the evaluation and of its epoch (those of iterations are the loop's to call, by run.stages.call), and puts modes and
random streams back.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from flexcore.components import Component
from flexcore.problems import ConfigError
from flexcore.rules import problem
from shell import building
from shell.contracts import Prediction, target_of
from shell.data import to_device
from shell.evaluating import EvalFeed, Metrics
from shell.run import Run


class OwnBatches:
    """Batches of one loader that are this rank's own, from the first on at each iteration."""

    def __init__(self, feed: EvalFeed, device: torch.device) -> None:
        self.feed, self.device = feed, device

    def __len__(self) -> int:
        if self.feed.own is None:
            raise TypeError("the dataset only iterates, so there is no telling")
        return self.feed.own

    def __iter__(self) -> Iterator[Any]:
        for i, batch in enumerate(self.feed.batches):
            if i == (self.feed.limit if self.feed.own is None else self.feed.own):
                break
            yield to_device(batch, self.device) if self.device.type != "cpu" else batch


class Evaluator:
    """The config's metrics as a loop feeds them: process for each batch, then evaluate."""

    def __init__(self, run: Run, metrics: Metrics, spare: OwnBatches, mode: str) -> None:
        self._run, self._metrics, self._spare, self._mode = run, metrics, spare, mode
        self._counted, self._taught = 0, False
        self.sizes: list[int] = []

    def begin(self) -> None:
        self._metrics.reset()
        self._counted, self._taught, self.sizes = 0, False, []

    def process(self, data_samples: Any, data_batch: Any) -> None:
        """Outputs of the model for a batch; metrics that compare get the batch's target besides."""
        target, has_target = target_of(data_batch)
        prediction = Prediction(data_samples, target, has_target)
        if self._run.leads:
            self._counted += self._metrics.update(data_batch, prediction)
        elif not self._taught:
            self._metrics.see(data_batch, prediction)
            self._taught = True

    def evaluate(self, size: int | None = None) -> dict[str, float]:
        """The metrics over all ranks of what was processed since the last time; every rank calls it.

        size: of the whole dataset, for metrics of mmengine's shape; None: as many samples as were processed.
        """
        if self._counted == 0 and not self._taught:
            self._teach()
        self.sizes.append(int(sum(self._run.group.gather(self._counted))))
        values = self._metrics.compute(self.sizes[-1] if size is None else size)
        self._metrics.reset()
        self._counted, self._taught = 0, False
        return values

    def _teach(self) -> None:
        """On a rank without a sample, metrics learn the kinds of their state from a batch that does not count."""
        batch = next(iter(self._spare.feed.batches), None)
        if batch is not None:
            moved = to_device(batch, self._run.device)
            self._metrics.see(moved, self._run.contract.prediction(self._mode)(self._run.model, moved))


class OwnEvaluation:
    """One loop, built, with what it is to return looked at."""

    def __init__(self, run: Run, spec: Component, mode: str) -> None:
        feeds = run.eval_feeds[mode]
        batches = {feed.name: OwnBatches(feed, run.device) for feed, _ in feeds}
        first = next(iter(batches.values()))
        self.evaluator = Evaluator(run, feeds[0][1], first, mode)
        self.path = f"{mode}_cfg"
        given = first if len(batches) == 1 else batches
        self.loop = building.build(spec, (self.path,), run, given, self.evaluator)

    def evaluated(self) -> tuple[dict[str, float], list[int]]:
        """(metrics, samples of each evaluate).

        Raises:
            ConfigError: the loop returned no mapping of names to numbers.
        """
        self.evaluator.begin()
        with torch.no_grad():
            found = self.loop.run()
        try:
            values = {str(name): float(value) for name, value in found.items()}
        except (AttributeError, TypeError, ValueError):
            text = f"{type(self.loop).__name__}.run() returned {_shape(found)}, not a mapping of names to numbers."
            remedy = "Return evaluator.evaluate(), or a mapping of your own."
            raise ConfigError([problem("FK011", (self.path,), text, remedy)]) from None
        return values, self.evaluator.sizes


def _shape(found: Any) -> str:
    name = type(found).__name__
    return (
        f"a {name} holding {', '.join({type(v).__name__: 0 for v in found.values()})}"
        if isinstance(found, Mapping)
        else name
    )
