"""PyTorch's own files, archives and the format before them: what they hold as inert data, and where their tensors' bytes lie.

Imports no torch: `flexcore plan` looks into them too. Bytes are checked against the archive's checksums, where it has them.
"""

import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, TypeAlias

from attrs import frozen

from shell import pickles
from shell.inert import NotInert, Storage, width

Extent: TypeAlias = tuple[int, int]
"""(first byte, bytes) in the file."""

MAX_PICKLE_BYTES: Final = 2**30
MAX_RECORDS: Final = 10**6
MAGIC: Final = 0x1950A86A20F9469CFC6C
"""What a file of torch before 1.6 begins with, pickled."""
_CHUNK: Final = 16 * 2**20
_LOCAL_HEADER: Final = 30  # bytes of a zip's local header before its name


@frozen
class TorchFile:
    """What a file holds, and the extent of each storage's record."""

    path: str
    tree: Any
    extents: Mapping[str, Extent]
    checksums: Mapping[str, int]

    def damaged(self) -> str | None:
        """What is wrong with its bytes, by the archive's checksums; None where they are right or there are none."""
        with pathlib.Path(self.path).open("rb") as file:
            for key, told in self.checksums.items():
                if told and _crc(file, self.extents[key]) != told:
                    return f"record {key!r} is not as it was saved: its checksum is another"
        return None


def read(path: pathlib.Path) -> TorchFile:
    """What the file holds; no tensor is read.

    Raises:
        NotInert: no such file, a damaged one, or one that holds what data does not need. OSError: it cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            return _archive(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise NotInert(f"is no whole archive: {error}") from error
    return _old(path)


def _archive(path: pathlib.Path) -> TorchFile:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, os.SEEK_END)
        infos = _infos(archive)
        root = _root(infos)
        extents = {name: _extent(file, info, size) for name, info in infos.items()}
        _check_byte_order(file, extents.get(f"{root}byteorder"))
        raw = _bytes(file, extents[f"{root}data.pkl"])
        told = infos[f"{root}data.pkl"].CRC
        if told and zlib.crc32(raw) != told:
            raise NotInert("record 'data.pkl' is not as it was saved: its checksum is another")
    tree = pickles.read(io.BytesIO(raw))
    data = f"{root}data/"
    keys = {name.removeprefix(data): name for name in infos if name.startswith(data)}
    return TorchFile(
        str(path),
        tree,
        {key: extents[name] for key, name in keys.items()},
        {key: infos[name].CRC for key, name in keys.items()},
    )


def _infos(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, once each is of the kind that torch writes."""
    entries = archive.infolist()
    if len(entries) > MAX_RECORDS:
        raise NotInert(f"has {len(entries):,} records")
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise NotInert("is a TorchScript program")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        if entry.filename in found:
            raise NotInert(f"has two records called {entry.filename!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise NotInert(f"has a compressed record, {entry.filename!r}, and torch writes none")
        if entry.flag_bits & 1:
            raise NotInert(f"has an encrypted record, {entry.filename!r}")
        found[entry.filename] = entry
    return found


def _root(infos: Mapping[str, object]) -> str:
    """What begins the name of every record of torch's."""
    found = [
        name.removesuffix("data.pkl") for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(found) != 1:
        raise NotInert(f"has {len(found)} records called data.pkl, and torch writes one")
    return found[0]


def _extent(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> Extent:
    """Where the bytes of a record lie, by its own header."""
    header = b""
    if 0 <= info.header_offset < size:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise NotInert(f"has no record {info.filename!r} where it should be")
    begin = (
        info.header_offset
        + _LOCAL_HEADER
        + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    )
    if begin + info.file_size > size:
        raise NotInert(f"ends within its record {info.filename!r}")
    return begin, info.file_size


def _check_byte_order(file: BinaryIO, extent: Extent | None) -> None:
    if extent is not None and _bytes(file, extent) != b"little":
        raise NotInert("is from a machine of another byte order")


def _bytes(file: BinaryIO, extent: Extent) -> bytes:
    begin, size = extent
    if size > MAX_PICKLE_BYTES:
        raise NotInert(f"has {size:,} bytes beside its tensors")
    file.seek(begin)
    return file.read(size)


def _crc(file: BinaryIO, extent: Extent) -> int:
    found = 0
    for part in _parts(file, extent):
        found = zlib.crc32(part, found)
    return found


def _parts(file: BinaryIO, extent: Extent) -> Iterator[bytes]:
    begin, left = extent
    file.seek(begin)
    while left > 0:
        part = file.read(min(left, _CHUNK))
        if not part:
            return
        left -= len(part)
        yield part


class _Within:
    """A file whose reads ask for no more than is there, whatever a length in it says."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, min(size, MAX_PICKLE_BYTES)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._size) if size >= 0 else self._size)

    def readline(self) -> bytes:
        return self._file.readline(self._size)


def _old(path: pathlib.Path) -> TorchFile:
    """Pickles in a row: the magic number, the version, the machine, the tree, the storages' keys; then their bytes."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        within = _Within(file, size)
        if file.read(2)[:1] != b"\x80":
            raise NotInert("is neither an archive nor a pickle")
        file.seek(0)
        if pickles.read(within) != MAGIC:
            raise NotInert("is a pickle, and not one of torch's")
        pickles.read(within)
        machine = pickles.read(within)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise NotInert("is from a machine of another byte order")
        seen: dict[str, Storage] = {}
        tree = pickles.read(within, seen)
        keys = pickles.read(within)
        if not isinstance(keys, list) or any(key not in seen for key in map(str, keys)):
            raise NotInert("lists storages that nothing is made of")
        return TorchFile(str(path), tree, dict(_old_extents(file, size, [seen[key] for key in keys])), {})


def _old_extents(file: BinaryIO, size: int, storages: list[Storage]) -> Iterator[tuple[str, Extent]]:
    at = file.tell()
    for storage in storages:
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        length = storage.count * width(storage.kind)
        if count != storage.count or at + 8 + length > size:
            raise NotInert(f"ends within storage {storage.key!r}, or tells another length of it")
        yield storage.key, (at + 8, length)
        at += 8 + length
