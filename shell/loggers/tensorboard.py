"""Scalars to TensorBoard event files under the log directory."""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any


class TensorBoardSink:
    """One record per log line, holding all its values, written in this thread.

    tensorboard's own writers checksum in Python (100 us a record) in a thread that fights the loop for the
    interpreter lock (40 us a step on a tiny model), so records are framed here with a checksum in C. Imports
    wait for the first value, so as not to delay the first step.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._records: Any = None

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        if self._records is None:
            self._open()
        summary = self._summary(
            value=[self._value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._write(self._event(wall_time=time.time(), step=iteration, summary=summary))

    def _open(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        try:
            from google_crc32c import value as crc32c
        except ImportError:
            from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c

        self._crc32c = crc32c
        self._event, self._summary, self._value = Event, Summary, Summary.Value
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._records = (self.directory / name).open("wb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Any) -> None:
        """TFRecord framing: length, its masked CRC-32C, the bytes, theirs."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._records.write(length + self._masked(length) + data + self._masked(data))

    def _masked(self, data: bytes) -> bytes:
        crc = self._crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def flush(self) -> None:
        if self._records is not None:
            self._records.flush()

    def close(self) -> None:
        if self._records is not None:
            self._records.close()
