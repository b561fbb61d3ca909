"""What log rules are taken of: the last values of each source, and running statistics of epochs and of all.

Values are kept as they come, tensors too; the device is waited for only where statistics are asked or saved, and at
each epoch's end for a window of epochs. Sums go value by value, so that a resume in between changes no digit.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from flexcore.components import thaw
from flexcore.log_rules import METHODS, LogRule
from shell.resolving import resolve


class Running:
    """Count, sum, extremes and last of values told one by one; NaN once seen stays the extreme."""

    def __init__(self, state: Sequence[float] = (0, 0.0, math.inf, -math.inf)) -> None:
        self.count, self.total, self.low, self.high = int(state[0]), state[1], state[2], state[3]

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        if value < self.low or math.isnan(value):
            self.low = value
        if value > self.high or math.isnan(value):
            self.high = value

    def told(self, method: str) -> float | None:
        if not self.count:
            return None
        return {"mean": self.total / self.count, "min": self.low, "max": self.high}[method]

    def state(self) -> list[float]:
        return [self.count, self.total, self.low, self.high]


class Source:
    """The values of one name. reach: how many of the last are kept."""

    def __init__(self, reach: int, windows: frozenset[object]) -> None:
        self._last: deque[Any] = deque(maxlen=reach)
        self._pending: list[Any] = []
        self._runs = {window: Running() for window in ("epoch", "global") if window in windows}
        self.seen = False

    def add(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                return
            value = value.detach()
        elif not isinstance(value, int | float):
            return
        self.seen = True
        self._last.append(value)
        if self._runs:
            self._pending.append(value)

    def new_epoch(self) -> None:
        if "epoch" in self._runs:
            self._fold()
            self._runs["epoch"] = Running()

    def _fold(self) -> None:
        values, self._pending = floats(self._pending), []
        for run in self._runs.values():
            for value in values:
                run.add(value)

    def last(self, count: int) -> list[float]:
        kept = list(self._last)
        return floats(kept[-count:])

    def running(self, window: str) -> Running:
        self._fold()
        return self._runs[window]

    def state_dict(self) -> dict[str, Any]:
        self._fold()
        return {"last": floats(list(self._last)), **{name: run.state() for name, run in self._runs.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._last.extend(state["last"])
        self._runs = {
            name: Running(state[name]) if name in state else run for name, run in self._runs.items()
        }
        self.seen = self.seen or bool(state["last"])


def floats(values: list[Any]) -> list[float]:
    """Numbers and one-element tensors as floats; tensors of one kind are waited for once."""
    if values and all(isinstance(value, torch.Tensor) for value in values):
        kinds = {(value.dtype, value.device) for value in values}
        if len(kinds) == 1:
            return [float(value) for value in torch.stack([value.reshape(()) for value in values]).tolist()]
    return [float(value) for value in values]


class Tally:
    """The sources of the rules, and what the rules make of them."""

    def __init__(self, rules: tuple[LogRule, ...]) -> None:
        self.rules = rules
        self._own = {rule.method: resolve(rule.method) for rule in rules if rule.method not in METHODS}
        self.sources = {
            name: _source([r for r in rules if r.source == name])
            for name in dict.fromkeys(r.source for r in rules)
        }

    def take(self, values: Mapping[str, Any]) -> None:
        for name, source in self.sources.items():
            if name in values:
                source.add(values[name])

    def new_epoch(self) -> None:
        for source in self.sources.values():
            source.new_epoch()

    def told(self) -> dict[str, float]:
        """The value of each rule whose source has any."""
        found = {rule.name: self._value(rule) for rule in self.rules if self.sources[rule.source].seen}
        return {name: value for name, value in found.items() if value is not None}

    def _value(self, rule: LogRule) -> float | None:
        source = self.sources[rule.source]
        if isinstance(rule.window, str):
            return source.running(rule.window).told(rule.method)
        values = source.last(rule.window)
        if rule.method in self._own:
            return float(self._own[rule.method](values, **{str(k): v for k, v in thaw(rule.kwargs).items()}))
        return STATISTICS[rule.method](values) if values else None

    def unseen(self) -> list[str]:
        return [name for name, source in self.sources.items() if not source.seen]

    def state_dict(self) -> dict[str, Any]:
        return {name: source.state_dict() for name, source in self.sources.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, source in self.sources.items():
            if name in state:
                source.load_state_dict(state[name])


def _source(rules: list[LogRule]) -> Source:
    reach = max((rule.window for rule in rules if isinstance(rule.window, int)), default=0)
    return Source(reach, frozenset(rule.window for rule in rules))


def _extreme(values: list[float], pick: Callable[[list[float]], float]) -> float:
    return math.nan if any(map(math.isnan, values)) else pick(values)


STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),
    "min": lambda values: _extreme(values, min),
    "max": lambda values: _extreme(values, max),
    "current": lambda values: values[-1],
}
"""Of the values of a window, oldest first."""
