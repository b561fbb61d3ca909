"""Scalars, parameters and texts to TensorBoard event files: the file format alone, without tensorboard's writers.

Its writers checksum in Python (100 us a record) in a thread that fights the loop for the interpreter lock (40 us a
step on a tiny model), and importing its message types costs 0.3 s. An event file is TFRecords of protobuf messages
with seven fields in all, so they are written here; tensorboard reads them.
"""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import IO

from flexcore.hparams import hparams
from shell.run import Run

# Protobuf keys: field number << 3 | wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).
WALL_TIME, STEP, FILE_VERSION, SUMMARY = b"\x09", b"\x10", b"\x1a", b"\x2a"  # Event 1, 2, 3, 5
SESSION_BEGINS = b"\x3a\x02\x08\x01"  # Event 7: SessionLog with status 1 (START)
VALUE, TAG, SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"  # Summary 1; Summary.Value 1, 2
METADATA, TENSOR = b"\x4a", b"\x42"  # Summary.Value 9, 8
PLUGIN, PLUGIN_NAME, CONTENT = b"\x0a", b"\x0a", b"\x12"  # SummaryMetadata 1; PluginData 1, 2
A_TEXT = (
    b"\x08\x07\x12\x04\x12\x02\x08\x01"  # TensorProto: dtype 1 (string), tensor_shape 2 (one dim of size 1)
)
STRING = b"\x42"  # TensorProto 8
NO_TENSOR = b"\x08\x01\x12\x00\x2a\x04\x00\x00\x00\x00"  # a float, which the hparams plugin does not look at
SESSION_START, GROUP_NAME, HPARAM = b"\x1a", b"\x22", b"\x0a"  # HParamsPluginData 3; SessionStartInfo 4, 1
MAP_KEY, MAP_VALUE = b"\x0a", b"\x12"
NUMBER, TEXT, TRUTH = b"\x11", b"\x1a", b"\x20"  # google.protobuf.Value 2, 3, 4


class TensorBoardSink:
    """One record per log line, holding all its values; the file is opened at the first.

    by_epoch: evaluations are counted by epochs.
    """

    def __init__(self, directory: pathlib.Path, *, by_epoch: bool = False) -> None:
        self.directory, self.by_epoch = directory, by_epoch
        self._file: IO[bytes] | None = None
        self._tags: dict[str, bytes] = {}

    def begin(self, run: Run) -> None:
        plan = run.plan
        if run.completed:
            self.goes_on(run.completed)
        start = b"".join(HPARAM + sized(hparam(name, value)) for name, value in hparams(plan))
        start += GROUP_NAME + sized((plan.record or "").encode())
        self._summary("_hparams_/session_start_info", "hparams", SESSION_START + sized(start), NO_TENSOR)
        lines = "".join(
            f"    {line}\n" for line in str(plan).splitlines()
        )  # so indented, Markdown leaves it alone
        self._summary("plan/text_summary", "text", b"", A_TEXT + STRING + sized(encoded(lines)))
        self.flush()

    def goes_on(self, completed: int) -> None:
        """An earlier start wrote up to here, and perhaps further, which is done again: readers forget that."""
        file = self._file or self._open()
        file.write(self._record(STEP + varint(completed + 1) + SESSION_BEGINS))

    def _summary(self, tag: str, plugin: str, content: bytes, tensor: bytes) -> None:
        """A record that a plugin reads."""
        metadata = PLUGIN + sized(PLUGIN_NAME + sized(plugin.encode()) + CONTENT + sized(content))
        value = TAG + sized(tag.encode()) + TENSOR + sized(tensor) + METADATA + sized(metadata)
        file = self._file or self._open()
        file.write(self._record(STEP + varint(0) + SUMMARY + sized(VALUE + sized(value))))

    def metrics(self, values: Mapping[str, float], iteration: int, epoch: int) -> None:
        self.scalars(values, epoch if self.by_epoch else iteration)
        self.flush()

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        file = self._file or self._open()
        summary = b"".join([self._value(name, value) for name, value in values.items()])
        file.write(self._record(STEP + varint(iteration) + SUMMARY + varint(len(summary)) + summary))

    def _value(self, name: str, value: float) -> bytes:
        """Summary.Value{tag, simple_value} as a field of Summary; what does not change is made once a name."""
        start = self._tags.get(name)
        if start is None:
            inner = TAG + sized(encoded(name)) + SIMPLE_VALUE
            start = self._tags[name] = VALUE + varint(len(inner) + 4) + inner
        return start + single(value)

    def _open(self) -> IO[bytes]:
        self._crc32c = crc32c()
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (self.directory / name).open("wb")
        version = b"brain.Event:2"
        self._file.write(self._record(FILE_VERSION + varint(len(version)) + version))
        return self._file

    def _record(self, fields: bytes) -> bytes:
        """An Event stamped with the time, framed as a TFRecord: length, its masked CRC-32C, the bytes, theirs."""
        data = WALL_TIME + struct.pack("<d", time.time()) + fields
        length = struct.pack("<Q", len(data))
        return length + self._masked(length) + data + self._masked(data)

    def _masked(self, data: bytes) -> bytes:
        crc = self._crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self, reason: str | None = None) -> None:  # noqa: ARG002 - as every backend
        if self._file is not None:
            self._file.close()


def crc32c() -> Callable[[bytes], int]:
    """The checksum in C, or tensorboard's in Python where that is missing."""
    try:
        from google_crc32c import value
    except ImportError:
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as value
    return value  # type: ignore[no-any-return]


def single(value: float) -> bytes:
    """Four bytes; what a float of that size cannot hold is infinite."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def hparam(name: str, value: bool | float | str) -> bytes:
    """One entry of SessionStartInfo.hparams: a name to a google.protobuf.Value."""
    if isinstance(value, bool):
        held = TRUTH + varint(int(value))
    elif isinstance(value, str):
        held = TEXT + sized(encoded(value))
    else:
        held = NUMBER + struct.pack("<d", value)
    return MAP_KEY + sized(encoded(name)) + MAP_VALUE + sized(held)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first, the high bit where more follow. number >= 0."""
    if number < 0x80:
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + varint(number >> 7)
