"""Weights from files that others wrote: safetensors, whole or in shards, or PyTorch's own; nothing in them is executed."""

import errno
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import safetensors
import torch

from flexcore.problems import shown
from shell import inert, torch_files
from shell.inert import NotInert
from shell.manifests import MANIFEST, name_problem
from shell.mapped import Mapped
from shell.results import CheckpointRefused
from shell.tensor_files import read_file, unescaped

SUFFIX = ".safetensors"
INDEXED = f"{SUFFIX}.index.json"
WHOLE, INDEX = f"model{SUFFIX}", f"model{INDEXED}"
"""What a directory in Hugging Face's layout holds: one file, or shards and the table of what is in which."""
MAX_INDEX_BYTES = 2**28
NESTED = ("state_dict", "model")
"""Keys under which training checkpoints of others keep the weights."""

REMEDY = "Name a checkpoint, .safetensors or a state_dict."
QUOTES = "\"'"
WRAPPED = "module."
"""How DataParallel and its kin begin every name."""


def is_foreign(path: str) -> bool:
    """Whether others wrote what is there: a file, or a directory in Hugging Face's layout and no checkpoint of ours."""
    place = pathlib.Path(path)
    return place.is_file() or (
        not (place / MANIFEST).exists() and any((place / name).is_file() for name in (WHOLE, INDEX))
    )


def check(path: str) -> None:
    """Raise CheckpointRefused for what `read` would refuse; tensors stay on disk, save PyTorch's own."""
    file = _file(path)
    if file.name.endswith(INDEXED):
        _shards(file)
    elif file.suffix == SUFFIX:
        _names(file)
    else:
        read(path)


def _file(path: str) -> pathlib.Path:
    """The one file to begin with."""
    place = pathlib.Path(path)
    if place.is_dir():
        return place / (INDEX if (place / INDEX).is_file() else WHOLE)
    return place


def _names(file: pathlib.Path) -> set[str]:
    try:
        _check_regular(file)
        with safetensors.safe_open(file, framework="pt") as opened:
            return {unescaped(key) for key in opened.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(str(file), error) from error


def _check_regular(file: pathlib.Path) -> None:
    """A pipe or a device, which could be read for ever, is none; a link to a file is, as caches have them."""
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(file))


class BadIndex(Exception):  # noqa: N818 - named for what it is
    """A table of shards that tells none, and why."""


def indexed(index: pathlib.Path) -> dict[str, str]:
    """The file beside an index in which each tensor is, by the table alone.

    Raises:
        BadIndex: it cannot be read, or names what is no such file.
    """
    try:
        with index.open("rb") as opened:
            placed = dict(json.loads(opened.read(MAX_INDEX_BYTES))["weight_map"].items())
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise BadIndex(f"cannot be read: {type(error).__name__}: {error}") from error
    for file in placed.values():
        if name_problem(file) or not file.endswith(SUFFIX):
            raise BadIndex(f"names {file!r}, which is no {SUFFIX} file beside it")
    return placed


def _shards(index: pathlib.Path) -> dict[pathlib.Path, set[str]]:
    """The files beside an index, with the tensors it places in each, which are there."""
    try:
        placed = indexed(index)
    except BadIndex as error:
        raise _no_index(index, str(error)) from error
    found: dict[pathlib.Path, set[str]] = {}
    for name, file in placed.items():
        found.setdefault(index.parent / file, set()).add(name)
    for shard, names in found.items():
        missing = names - _names(shard)
        if missing:
            raise _no_index(index, f"places {min(missing)!r} in {shard.name}, which lacks it")
    return found


def _no_index(index: pathlib.Path, what: str) -> CheckpointRefused:
    return CheckpointRefused(f"{index} {what}. Fetch the files again, all from one revision.")


def read(path: str) -> dict[str, torch.Tensor]:
    """The tensors by parameter name, on the CPU.

    Raises:
        CheckpointRefused: not such a file, or one that holds more than weights.
    """
    file = _file(path)
    if file.name.endswith(INDEXED):
        return {
            name: tensor
            for shard, names in _shards(file).items()
            for name, tensor in read_file(shard).items()
            if name in names
        }
    try:
        found = read_file(file) if file.suffix == SUFFIX else _torch_file(file)
    except NotInert as error:
        raise CheckpointRefused(f"{path} {error}. {REMEDY}") from error
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error
    return unwrapped(found)


def unwrapped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without what DataParallel and its kin put before every name."""
    cut = len(WRAPPED) if all(name.startswith(WRAPPED) for name in tensors) else 0
    return {name[cut:]: tensor for name, tensor in tensors.items()}


def _torch_file(file: pathlib.Path) -> dict[str, torch.Tensor]:
    """The weights in PyTorch's own file, as views of it."""
    opened = torch_files.read(file)
    damage = opened.damaged()
    if damage:
        raise NotInert(damage)
    views, mapped = named(str(file), opened.tree), Mapped(opened)
    return {name: mapped.tensor(view) for name, view in views.items()}


def named(path: str, tree: Any) -> dict[str, inert.Tensor]:
    """The views of a file's weights by parameter name.

    Raises:
        CheckpointRefused: it holds something else.
    """
    nested = [tree[key] for key in NESTED if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping)]
    state = nested[0] if nested else tree
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(one, inert.Tensor) for one in state.values())
    ):
        raise CheckpointRefused(
            f"{path} holds {_described(state)}, not tensors by name. Save the model's state_dict."
        )
    return {str(name): tensor for name, tensor in state.items()}


def _described(state: Any) -> str:
    if isinstance(state, Mapping) and state:
        return f"a mapping with {', '.join(shown(key, 40).strip(QUOTES) for key in list(state)[:5])}"
    if isinstance(state, inert.Made) and isinstance(state.of, inert.Named):
        return f"a {shown(state.of.path).strip(QUOTES)}"
    return f"a {type(state).__name__}"


def _unreadable(path: str, error: Exception) -> CheckpointRefused:
    reason = (str(error).splitlines() or [""])[0]
    return CheckpointRefused(f"{path} is no file of weights: {type(error).__name__}: {reason}. {REMEDY}")
