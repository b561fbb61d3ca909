"""The tensors of a PyTorch file as views of the file itself: they take no memory until they are copied."""

import pathlib
from typing import Any, Final

import torch

from shell import inert
from shell.inert import KINDS, NotInert
from shell.torch_files import TorchFile

DEEPEST: Final = 64


class Mapped:
    """A file in memory as the system pages it in; writing to a view changes neither the file nor another process."""

    def __init__(self, file: TorchFile) -> None:
        size = pathlib.Path(file.path).stat().st_size
        self._extents = file.extents
        self._bytes = torch.from_file(file.path, shared=False, size=size, dtype=torch.uint8)

    def tensor(self, view: inert.Tensor) -> torch.Tensor:
        """Raises NotInert if the file has no such bytes."""
        kind, key, count = view.storage.kind, view.storage.key, view.storage.count
        if kind not in KINDS:
            raise NotInert(f"has tensors of {kind}, which is unknown")
        dtype: torch.dtype = getattr(torch, KINDS[kind][0])
        begin, length = self._extents.get(key, (0, 0))
        if length < count * dtype.itemsize:
            raise NotInert(
                f"has {length} bytes in storage {key!r}, and {count} elements of {kind} are asked for"
            )
        held = self._bytes[begin : begin + count * dtype.itemsize]
        aligned = held if held.data_ptr() % dtype.itemsize == 0 else held.clone()
        return _typed(aligned, dtype).as_strided(view.size, view.stride, _start(aligned, dtype) + view.offset)

    def of(self, tree: Any) -> Any:
        """A tree with its views as tensors; what is no dict, list or tuple stays as it is.

        Raises:
            NotInert: the file lacks a tensor's bytes, or the tree is deeper than any state is.
        """
        return self._of(tree, {}, 0)

    def _of(self, tree: Any, made: dict[int, Any], depth: int) -> Any:
        """made: by identity, for what is referred to again and again is spelt out once."""
        if isinstance(tree, inert.Tensor):
            return self.tensor(tree)
        if not isinstance(tree, dict | list | tuple):
            return tree
        if depth > DEEPEST:
            raise NotInert(f"has state of more than {DEEPEST} levels")
        if id(tree) not in made:
            if isinstance(tree, dict):
                made[id(tree)] = {key: self._of(item, made, depth + 1) for key, item in tree.items()}
            else:
                made[id(tree)] = type(tree)(self._of(item, made, depth + 1) for item in tree)
        return made[id(tree)]


def _typed(held: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as another type; torch.Tensor.view wants their place in the file divisible, which says nothing of memory."""
    return torch.empty(0, dtype=dtype).set_(held.untyped_storage())


def _start(held: torch.Tensor, dtype: torch.dtype) -> int:
    return held.storage_offset() // dtype.itemsize
