"""Scalars to TensorBoard event files under the log directory."""

import pathlib
from collections.abc import Mapping


class TensorBoardSink:
    """The writer is imported and opened at the first value, so that it does not delay the first step."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._writer: object | None = None

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        writer = self._open()
        for name, value in values.items():
            writer.add_scalar(name, value, iteration)  # type: ignore[attr-defined]

    def _open(self) -> object:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.directory))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()  # type: ignore[attr-defined]
