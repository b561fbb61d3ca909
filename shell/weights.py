"""Weights from files that others wrote: safetensors, or PyTorch's own, read without executing anything in them."""

import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import safetensors
import torch

from shell.results import CheckpointRefused
from shell.tensor_files import read_file

SUFFIX = ".safetensors"
NESTED = ("state_dict", "model")
"""Keys under which training checkpoints of others keep the weights."""

WRAPPED = "module."
"""How DataParallel and its kin begin every name."""


def is_file(path: str) -> bool:
    return pathlib.Path(path).is_file()


def check(path: str) -> None:
    """Raise CheckpointRefused for a file that `read` would refuse; tensors stay on disk."""
    if pathlib.Path(path).suffix != SUFFIX:
        read(path)
        return
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def read(path: str) -> dict[str, torch.Tensor]:
    """The tensors by parameter name, on the CPU.

    Raises:
        CheckpointRefused: not such a file, or one that holds more than weights.
    """
    file = pathlib.Path(path)
    try:
        found = read_file(file) if file.suffix == SUFFIX else _torch_file(file)
    except pickle.UnpicklingError as error:
        raise CheckpointRefused(
            f"{path} holds more than weights, and reading that could execute it: nothing was loaded. "
            'Save its "state_dict" alone, as .safetensors.'
        ) from error
    except Exception as error:  # torch.load raises whatever a damaged file leads it into
        raise _unreadable(path, error) from error
    return _named(path, found)


def _torch_file(file: pathlib.Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def _named(path: str, found: Any) -> dict[str, torch.Tensor]:
    nested = [
        found[key] for key in NESTED if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)
    ]
    state = nested[0] if nested else found
    if not isinstance(state, Mapping) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        what = (
            f"a mapping with {', '.join(map(str, list(state)[:5]))}"
            if isinstance(state, Mapping)
            else "no mapping"
        )
        raise CheckpointRefused(f"{path} holds {what}, not tensors by name. Save the model's state_dict.")
    cut = len(WRAPPED) if all(str(name).startswith(WRAPPED) for name in state) else 0
    return {str(name)[cut:]: tensor for name, tensor in state.items()}


def _unreadable(path: str, error: Exception) -> CheckpointRefused:
    reason = (str(error).splitlines() or [""])[0]
    return CheckpointRefused(
        f"{path} is no file of weights: {type(error).__name__}: {reason}. Name a checkpoint, .safetensors or a state_dict."
    )
