"""Sharded tensors as whole ones and back, so that a checkpoint never shows how its tensors were laid over ranks."""

from collections import OrderedDict
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, on every rank; collective for a sharded one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tree: Any, *, keep: bool) -> Any:
    """A tree of state with its sharded tensors whole and on the host; one at a time, and every rank must call.

    keep: False on ranks that only take part: their sharded tensors come back as None.
    """
    if isinstance(tree, DTensor):
        full = tree.full_tensor()
        return full.cpu() if keep else None
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, gathered(item, keep=keep)) for key, item in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(gathered(item, keep=keep) for item in tree)
    return tree


def placed(value: Any, like: Any) -> Any:
    """A whole tensor laid over ranks as `like` is; each rank cuts its own share, nothing is sent."""
    if not isinstance(value, torch.Tensor):
        return value
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
