"""Sharded tensors as whole ones and back, so that a checkpoint never shows how its tensors were laid over ranks."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from shell.pieces import Piece, as_it_is

Written = Callable[[str, torch.Tensor], torch.Tensor]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, on every rank; collective for a sharded one."""
    if not isinstance(tensor, DTensor):
        return tensor
    for dim in range(tensor.device_mesh.ndim - 1):  # one at a time: cut last, joined first
        kept = (*(Replicate() for _ in range(dim + 1)), *tensor.placements[dim + 1 :])
        tensor = tensor.redistribute(placements=kept)
    return tensor.full_tensor()


def in_pieces(tree: Any, written: Written | None = None, name: str = "") -> Any:
    """A tree of state with this rank's pieces in place of sharded tensors; nothing is sent.

    written: of a whole tensor under the name of a parameter, its rows as the model was written.
    """
    if isinstance(tree, DTensor):
        return piece(tree, partial(written, name) if written is not None and tree.ndim else as_it_is)
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, in_pieces(item, written, _inner(name, key))) for key, item in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(in_pieces(item, written, name) for item in tree)
    return tree


def piece(tensor: DTensor, written: Callable[[torch.Tensor], torch.Tensor] = as_it_is) -> Piece:
    """What this rank holds; one of several ranks that hold the same tells it, in the mesh that rank 0 is in."""
    held, offset = tensor.detach().to_local(), _offset(tensor)
    own = _leads(tensor)
    return Piece(tensor.shape, tensor.dtype, tuple(tensor.shape), held if own else None, offset, written)


def _leads(tensor: DTensor) -> bool:
    mesh, here = tensor.device_mesh, tensor.device_mesh.get_coordinate()
    if here is None or 0 not in mesh.mesh:
        return False
    return not any(at for at, kind in zip(here, tensor.placements, strict=True) if kind.is_replicate())


def _offset(tensor: DTensor) -> tuple[int, ...]:
    """Where this rank's part begins: the last dimension of a mesh cuts first, into equal chunks but the last ones."""
    begins, lengths = [0] * tensor.ndim, list(tensor.shape)
    here = tensor.device_mesh.get_coordinate()
    for mesh_dim in reversed(range(tensor.device_mesh.ndim)):
        kind = tensor.placements[mesh_dim]
        if kind.is_replicate() or here is None:
            continue
        dim = kind.dim  # type: ignore[attr-defined] - of a shard, strided or not
        chunk = -(-lengths[dim] // tensor.device_mesh.size(mesh_dim))
        ahead = min(here[mesh_dim] * chunk, lengths[dim])
        begins[dim], lengths[dim] = begins[dim] + ahead, min(chunk, lengths[dim] - ahead)
    if tuple(lengths) != tuple(tensor.to_local().shape):
        raise AssertionError(f"{tensor.placements} of {tuple(tensor.shape)} is not cut as torch.chunk cuts")
    return tuple(begins)


def _inner(name: str, key: object) -> str:
    """The parameter a place in a tree belongs to: the innermost key with a dot in it."""
    return key if isinstance(key, str) and "." in key else name


def placed(value: Any, like: Any) -> Any:
    """A copy of a whole tensor laid over ranks as `like` is; each rank cuts its own share, nothing is sent."""
    if not isinstance(value, torch.Tensor):
        return value
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value.to(like.device, copy=True)
    shared = distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    own = shared.to_local().clone()  # a share, and not the whole that it was cut from, stays in memory
    return DTensor.from_local(
        own, like.device_mesh, like.placements, run_check=False, shape=shared.shape, stride=shared.stride()
    )
