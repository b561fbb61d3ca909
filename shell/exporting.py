"""`flexcore export`: a checkpoint's weights as safetensors for other programs, in one file or in Hugging Face's layout."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import safetensors
import torch

from flexcore.problems import is_url
from shell import manifests
from shell.checkpoints import whole
from shell.hooks.ema import saved_averages
from shell.manifests import SUFFIX, Manifest, sync_directory
from shell.remote import Parts, RemoteFailed, send
from shell.results import CheckpointRefused
from shell.tensor_files import chunks, delete, unescaped, write_file
from shell.weights import INDEX, WHOLE

HEADER: Mapping[str, str] = {"format": "pt"}

Tensors = Mapping[str, torch.Tensor]


class ExportRefused(Exception):  # noqa: N818 - named for what happened
    """Where the weights were to go, and why nothing was written there."""


def export(checkpoint: pathlib.Path, target: str | pathlib.Path, *, averages: bool, max_shard: int) -> int:
    """Write the weights and return how many tensors they are; every byte read is verified before.

    target: a path or a URL. Ending in .safetensors it becomes one file; any other becomes a directory as Hugging Face's
    libraries read it: model.safetensors, or shards of at most `max_shard` bytes (a larger tensor has one of its own)
    with their index. averages: an EMAHook's in place of the weights they average.

    Raises:
        DamagedCheckpoint, CheckpointRefused: the checkpoint is not whole, or has no averages. ExportRefused: the target
            is there already, or cannot be written. Either way nothing is left behind.
    """
    target = str(target)
    if not is_url(target) and os.path.lexists(target):
        raise ExportRefused(f"{target} is there already. Name a new file or directory, or remove it.")
    manifest = whole(checkpoint)
    with _weights(manifest) as stored:
        weights = {**stored, **_averages(manifest)} if averages else stored
        alone = target.endswith(SUFFIX)
        files = {"": chunks(weights, HEADER)} if alone else dict(_in_directory(weights, max_shard))
        if is_url(target):
            try:
                send(target, files)
            except RemoteFailed as error:
                raise ExportRefused(str(error)) from error
        else:
            _write(pathlib.Path(target), files)
        return len(weights)


def _write(target: pathlib.Path, files: Mapping[str, Parts]) -> None:
    """Under a temporary name, which is its own once all is written."""
    temporary = target.with_name(f"{manifests.TEMPORARY}{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        delete(temporary)
        if "" not in files:
            temporary.mkdir()
        for name, parts in files.items():
            write_file(temporary / name if name else temporary, parts)
        if "" not in files:
            sync_directory(temporary)
        temporary.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise ExportRefused(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        delete(temporary)


@contextmanager
def _weights(manifest: Manifest) -> Iterator[Tensors]:
    """Views of the file itself, so that no more than one tensor need be in memory."""
    with ExitStack() as stack:
        path = pathlib.Path(manifest.path, WHOLE)
        file = stack.enter_context(safetensors.safe_open(path, framework="pt", device="cpu"))
        yield {unescaped(key): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _averages(manifest: Manifest) -> Tensors:
    found = saved_averages(manifest)
    if found is None:
        raise CheckpointRefused(f"{manifest.path} holds no averaged weights. Leave --averages out.")
    averaged: Tensors = found["averaged"]
    return averaged


def _in_directory(weights: Tensors, max_shard: int) -> Iterator[tuple[str, Parts]]:
    """(name, bytes) of each file, the index last."""
    shards = list(_shards(weights, max_shard))
    names = (
        [WHOLE]
        if len(shards) == 1
        else [f"model-{i:05}-of-{len(shards):05}{SUFFIX}" for i in range(1, len(shards) + 1)]
    )
    for name, shard in zip(names, shards, strict=True):
        yield name, chunks(shard, HEADER)
    if len(shards) > 1:
        total = sum(_size(tensor) for tensor in weights.values())
        placed = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        yield INDEX, [json.dumps(index, indent=2).encode()]


def _shards(weights: Tensors, most: int) -> Iterator[Tensors]:
    """In the file's order, each full before the next begins."""
    shard: dict[str, torch.Tensor] = {}
    held = 0
    for name, tensor in weights.items():
        if shard and held + _size(tensor) > most:
            yield shard
            shard, held = {}, 0
        shard[name] = tensor
        held += _size(tensor)
    yield shard


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
