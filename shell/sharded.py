"""Sharded tensors as whole ones and back, so that a checkpoint never shows how its tensors were laid over ranks."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

Written = Callable[[str, torch.Tensor], torch.Tensor]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, on every rank; collective for a sharded one."""
    if not isinstance(tensor, DTensor):
        return tensor
    for dim in range(tensor.device_mesh.ndim - 1):  # one at a time: cut last, joined first
        kept = (*(Replicate() for _ in range(dim + 1)), *tensor.placements[dim + 1 :])
        tensor = tensor.redistribute(placements=kept)
    return tensor.full_tensor()


def gathered(tree: Any, *, keep: bool, written: Written | None = None, name: str = "") -> Any:
    """A tree of state with its sharded tensors whole and on the host; one at a time, and every rank must call.

    keep: False on ranks that only take part: their sharded tensors come back as None.
    written: of a whole tensor under the name of a parameter, its rows as the model was written.
    """
    if isinstance(tree, DTensor):
        full = whole(tree)
        return None if not keep else (full if written is None or not full.ndim else written(name, full)).cpu()
    if type(tree) in (dict, OrderedDict):
        return type(tree)(
            (key, gathered(item, keep=keep, written=written, name=_inner(name, key)))
            for key, item in tree.items()
        )
    if type(tree) in (list, tuple):
        return type(tree)(gathered(item, keep=keep, written=written, name=name) for item in tree)
    return tree


def _inner(name: str, key: object) -> str:
    """The parameter a place in a tree belongs to: the innermost key with a dot in it."""
    return key if isinstance(key, str) and "." in key else name


def placed(value: Any, like: Any) -> Any:
    """A whole tensor laid over ranks as `like` is; each rank cuts its own share, nothing is sent."""
    if not isinstance(value, torch.Tensor):
        return value
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
