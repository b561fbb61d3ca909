"""What a loop of the user's own reads: a dataloader that knows where it stands, so that a resume goes on from there."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from shell.data import to_device

Opened = Callable[[int], Iterator[Any]]


class Passes:
    """Each iteration over it is one pass over the data, in that pass's planned order, on the run's device.

    A pass left before its end is not gone on with: the next iteration is the next pass. A pass of no known length
    has no end. After a resume the first iteration is the rest of the pass that was cut.
    """

    def __init__(
        self, opened: Opened, length: int | None, dataset: Any, device: torch.device, *, skips: bool
    ) -> None:
        """opened: a stream of all batches from a position on. skips: False if it can only be read through."""
        self.opened, self.length, self.dataset, self.device, self.skips = (
            opened, length, dataset, device, skips,
        )  # fmt: skip
        self.number = self.within = 0
        self._stream: Iterator[Any] | None = None
        self._begun = False

    def __len__(self) -> int:
        """Batches of this rank in a pass."""
        if self.length is None:
            raise TypeError("the dataset only iterates, so a pass has no length")
        return self.length

    def __iter__(self) -> Iterator[Any]:
        if self._begun and self.within:
            self._leave()
        self._begun = True
        stream = self._opened()
        while self.length is None or self.within < self.length:
            batch = next(stream)
            self.within += 1  # before it is handed out: a checkpoint saved meanwhile knows that it was read
            yield to_device(batch, self.device) if self.device.type != "cpu" else batch
        self.number, self.within, self._begun = self.number + 1, 0, False

    def _opened(self) -> Iterator[Any]:
        if self._stream is None:
            self._stream = self.opened(self.number * (self.length or 0) + self.within)
        return self._stream

    def _leave(self) -> None:
        if self.length is None:
            return
        if self.skips and self.within < self.length:
            self._stream = None
        for _ in range(0 if self.skips else self.length - self.within):
            next(self._opened())
        self.number, self.within = self.number + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"pass": self.number, "within": self.within}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.number, self.within = int(state["pass"]), int(state["within"])
