"""A checkpoint's files are durable and hashed as they are written, and its tensors come back from safetensors to the bit."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import safetensors
import torch

from shell.manifests import FileRecord, sync_directory
from shell.pieces import AnyTensor, Piece

# The names of the safetensors format, widest first: the order in which a file holds them, so that all lie aligned.
_KINDS: Final = (
    "float64:F64 int64:I64 uint64:U64 complex64:C64 float32:F32 int32:I32 uint32:U32 bfloat16:BF16 float16:F16 "
    "int16:I16 uint16:U16 float8_e4m3fn:F8_E4M3 float8_e5m2:F8_E5M2 int8:I8 uint8:U8 bool:BOOL"
)
DTYPES: Final[Mapping[torch.dtype, str]] = MappingProxyType(
    {getattr(torch, kind.split(":")[0]): kind.split(":")[1] for kind in _KINDS.split()}
)
_ORDER: Final = {dtype: rank for rank, dtype in enumerate(DTYPES)}
_MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own limit
_OWN: Final = "__metadata__"  # the header's own key
_ESCAPE: Final = "%json:"
_CHUNK: Final = 16 * 2**20


def chunks(
    tensors: Mapping[str, AnyTensor],
    told: Mapping[str, str] | None = None,
    received: Iterator[torch.Tensor] = iter(()),  # noqa: B008 - empty, and stays so
) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, one tensor in host memory at a time.

    told: the header's own words, if any. received: what the pieces among the tensors make, in the order of `ordered`.
    """
    in_order = ordered(tensors)
    yield _header(in_order, told)
    for _, tensor in in_order:
        data = _bytes(next(received) if isinstance(tensor, Piece) else tensor)
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]


def ordered(tensors: Mapping[str, AnyTensor]) -> list[tuple[str, AnyTensor]]:
    """As a file holds them."""
    return sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0]))


def _header(in_order: list[tuple[str, AnyTensor]], told: Mapping[str, str] | None) -> bytes:
    table: dict[str, Any] = {} if told is None else {_OWN: dict(told)}
    end = 0
    for name, tensor in in_order:
        begin, end = end, end + torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
        table[_escaped(name)] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": [*tensor.shape],
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER_BYTES:
        raise OSError(
            f"the names of {len(in_order)} tensors need more than {_MAX_HEADER_BYTES} bytes in one file"
        )
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: torch.Tensor) -> memoryview:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    flat = plain.as_strided(
        (plain.numel(),), (1,)
    )  # one element may be contiguous and yet have another stride
    return flat.view(torch.uint8).numpy().data


def _escaped(name: str) -> str:
    """`name` as a key of the header: text that UTF-8 cannot hold and the header's own key go as escaped JSON."""
    odd = name == _OWN or name.startswith(_ESCAPE) or any("\ud800" <= letter <= "\udfff" for letter in name)
    return _ESCAPE + json.dumps(name) if odd else name


def write_file(path: pathlib.Path, parts: Iterable[bytes | memoryview]) -> FileRecord:
    """Write, hash and fsync a new file; what is hashed is what was meant, not what the disk says."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(path.name, digest.hexdigest(), size)


def read_file(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, on the CPU, to be copied from: they are the file itself, mapped, and take no memory.

    OSError or SafetensorError if it cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {unescaped(key): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except RuntimeError as error:  # torch's word for a file that it cannot map
        raise OSError(f"torch could not map it: {error}") from error


def unescaped(key: str) -> str:
    return str(json.loads(key.removeprefix(_ESCAPE))) if key.startswith(_ESCAPE) else key


def make_directory(path: pathlib.Path) -> None:
    """Create a directory and its parents, each made durable in its own parent."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def delete(path: pathlib.Path) -> None:
    """Delete a file, link or tree if it is there; what cannot be deleted stays for the next sweep."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
