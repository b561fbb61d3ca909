"""Gathers Facts: what the environment, the work_dir and (second round) the built objects show. Decides nothing."""

import errno
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from flexcore import launchers
from flexcore.config import Config, weights_of
from flexcore.facts import CheckpointFact, Facts
from flexcore.problems import ConfigError, Path
from flexcore.rules import problem
from flexcore.run_plan import Names

if TYPE_CHECKING:  # loaded where there are checkpoints to look at
    from shell.manifests import Manifest

VERSIONS = ("torch", "numpy", "flexcore", "safetensors")
FIXED = (
    "world_size", "device_type", "train_samples", "train_batches", "train_iterable", "train_batch_size", "val_samples", "test_samples",
)  # fmt: skip


def environment(given: Facts = Facts(), environ: Mapping[str, str] = os.environ) -> Facts:  # noqa: B008
    """`given` with every unknown the process environment can tell filled in. No torch."""
    seen = tuple(sorted((name, environ[name]) for name in launchers.VARIABLES if name in environ))
    launcher = launchers.infer(dict(seen))
    local = environ.get("LOCAL_WORLD_SIZE", "")
    found: dict[str, Any] = {
        "environment": seen,
        "entropy": int.from_bytes(os.urandom(8)),
        "started_at": time.strftime("%Y%m%d_%H%M%S"),
        "world_size": launchers.world_size(launcher, dict(seen)) if launcher != "none" else 1,
        "local_world_size": int(local) if local.isascii() and local.isdigit() and len(local) < 10 else None,
    }
    return _filled(given, found)


def _filled(given: Facts, found: Mapping[str, Any]) -> Facts:
    return evolve(given, **{name: value for name, value in found.items() if getattr(given, name) is None})


def _versions() -> tuple[tuple[str, str], ...]:
    import importlib.metadata

    rows = [("python", sys.version.split()[0])]
    for name in VERSIONS:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(rows)


def device(given: Facts) -> Facts:
    """The device facts, and the versions of what will run on it. Imports torch."""
    import torch

    kind = given.device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {
        "device_type": kind,
        "supports_bf16": True,
        "supports_fp16": kind == "cuda",
        "versions": _versions(),
    }
    if kind == "cuda" and torch.cuda.is_available():
        found |= {
            "device_count": torch.cuda.device_count(),
            "supports_bf16": torch.cuda.is_bf16_supported(),
            "device_memory": torch.cuda.get_device_properties(0).total_memory,
        }
    return _filled(given, found)


def checkpoints(given: Facts, config: Config, names: Names) -> Facts:
    """What stands where this run saves, and the checkpoint the config names, by their manifests; no tensor is read.

    Raises:
        ConfigError: work_dir, or where checkpoints go, cannot be looked into.
    """
    looked = names.out_dir or names.work_dir
    try:
        free, complete = _free(pathlib.Path(looked)), _standing(pathlib.Path(names.checkpoint_dir))
    except OSError as error:
        text = f"{looked} cannot be looked into: {error.strerror or error}."
        remedy = "Name a directory that can be read and written."
        path: Path = ("work_dir",) if names.out_dir is None else ("default_hooks", "checkpoint", "out_dir")
        raise ConfigError([problem("FC010", path, text, remedy)]) from error
    weights = weights_of(config)
    path = config.resume if isinstance(config.resume, str) else weights and weights.path
    named = None if path is None else _named(path, resumes=config.resume is not False)
    return evolve(given, checkpoints=complete, named_checkpoint=named, free_disk=free)


def _standing(root: pathlib.Path) -> tuple[CheckpointFact, ...]:
    if not root.exists():
        return ()
    from shell import manifests

    return tuple(fact_of(manifest) for manifest in manifests.scan(root).complete)


def _named(path: str, *, resumes: bool) -> CheckpointFact | None:
    from shell import manifests

    found = manifests.read(pathlib.Path(path))
    if isinstance(found, manifests.Manifest):
        return evolve(fact_of(found), path=path)
    if not resumes or not pathlib.Path(path).is_file():
        return None
    from shell import mmengine_files

    return mmengine_files.fact(path)


def _free(path: pathlib.Path) -> int:
    """Bytes left where `path` is, or will be."""
    path = path.absolute()
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{nearest.name} is a file")
    found = os.statvfs(nearest)
    return found.f_bavail * found.f_frsize


def fact_of(manifest: "Manifest") -> CheckpointFact:
    fields = manifest.fields
    trajectory = fields.get("trajectory")
    return CheckpointFact(
        path=manifest.path,
        name=manifest.name,
        epoch=int(fields.get("epoch", 0)),
        iter=int(fields.get("iter", 0)),
        resumable=bool(fields.get("resumable", False)),
        validated=bool(fields.get("validated", False)),
        trajectory=None if trajectory is None else tuple((str(name), str(text)) for name, text in trajectory),
        world_size=fields.get("world_size"),
        strategy=fields.get("strategy"),
        best=bool(fields.get("best", False)),
        hooks=_hook_keys(fields.get("state")),
        record=fields.get("record"),
    )


def _hook_keys(state: Any) -> tuple[str, ...] | None:
    hooks = state.get("hooks") if isinstance(state, Mapping) else None
    return tuple(str(key) for key in hooks) if isinstance(hooks, Mapping) else None


def differences(planned: Facts, found: Facts) -> list[tuple[str, object, object]]:
    """(fact, planned, found) of each known fact that a run may not differ in."""
    return [
        (name, getattr(planned, name), getattr(found, name))
        for name in FIXED
        if getattr(planned, name) is not None and getattr(planned, name) != getattr(found, name)
    ]
