"""What a training checkpoint of mmengine's says of itself, read as inert data: where it stands, its best scores. No torch.

Both runners of mmengine 0.10 write one file: meta, state_dict, optimizer, param_schedulers, message_hub and, with an
EMAHook, ema_state_dict. FlexibleRunner saves again after a validation that finds a best, and counts one epoch or
iteration too many then; the message hub knows the last iteration that began.
"""

import pathlib
import struct
from collections.abc import Mapping
from typing import Any

from flexcore.facts import CheckpointFact
from shell import torch_files
from shell.inert import Made, Named, NotInert
from shell.results import CheckpointRefused
from shell.torch_files import TorchFile

REMEDY = "Name a checkpoint of flexcore's or mmengine's."


def opened(path: str) -> TorchFile:
    """The file, every byte that has a checksum verified.

    Raises:
        CheckpointRefused: it is damaged, or holds nothing to resume.
    """
    try:
        file = torch_files.read(pathlib.Path(path))
        damage = file.damaged()
    except (NotInert, OSError) as error:
        raise CheckpointRefused(f"{path} {_told(error)}. {REMEDY}") from error
    if damage is not None:
        raise CheckpointRefused(f"{path} is damaged: {damage}. Resume another checkpoint.")
    if completed(file.tree) is None:
        raise CheckpointRefused(
            f"{path} holds no training state: neither flexcore's nor mmengine's meta. Take its weights: load_from, resume=False."
        )
    return file


def _told(error: Exception) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def fact(path: str) -> CheckpointFact | None:
    """What planning needs to know; None where the file is none of mmengine's training checkpoints."""
    try:
        tree = torch_files.read(pathlib.Path(path)).tree
    except (NotInert, OSError):
        return None
    done = completed(tree)
    if done is None:
        return None
    return CheckpointFact(
        path=path, name=pathlib.Path(path).name, epoch=_whole(_part(tree, "meta").get("epoch")) or 0, iter=done,
        resumable=bool(_part(tree, "optimizer")), writer="mmengine",
    )  # fmt: skip


def completed(tree: Any) -> int | None:
    """Iterations done; None if the tree does not say."""
    told = _whole(_part(tree, "meta").get("iter"))
    if told is None or not isinstance(_part(tree, "state_dict"), dict):
        return None
    last = _whole(_runtime(tree).get("iter"))
    return told if last is None or abs(last + 1 - told) > 1 else last + 1


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**60 else None


def _part(tree: Any, key: str) -> Mapping[Any, Any]:
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}


def _runtime(tree: Any) -> Mapping[Any, Any]:
    return _part(_part(tree, "message_hub"), "runtime_info")


def best(tree: Any) -> dict[str | None, float]:
    """The best score of each metric watched; None as the name of the only one, which mmengine does not name."""
    found: dict[str | None, float] = {}
    for key, value in _runtime(tree).items():
        score = number(value)
        if isinstance(key, str) and key.startswith("best_score") and score is not None:
            found[key.removeprefix("best_score").removeprefix("_") or None] = score
    return found


def number(value: Any) -> float | None:
    """A number, Python's or numpy's, as which metrics come: scalar(dtype(code), bytes)."""
    if type(value) in (int, float):
        return float(value)
    match value:
        case Made(of=Named(path=called), arguments=(Made(arguments=(str() as code, *_)), data)) if (
            called.endswith(".scalar")
        ):
            raw = data if isinstance(data, bytes) else _encoded(data)
            form = FORMS.get(code)
            if raw is not None and form is not None and len(raw) == struct.calcsize(form):
                return float(struct.unpack(form, raw)[0])
    return None


FORMS: Mapping[str, str] = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u1": "<B"}
"""numpy's codes of dtypes in struct's words."""


def _encoded(value: Any) -> bytes | None:
    """Protocol 2 has no bytes: they are written as a call of _codecs.encode(text, "latin1")."""
    match value:
        case Made(of=Named(path="_codecs.encode"), arguments=(str() as text, "latin1")) if len(text) <= 8:
            return text.encode("latin1", "replace")
    return None
