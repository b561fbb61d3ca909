"""Gathers Facts: what the environment, the work_dir and (second round) the built objects show. Decides nothing."""

import datetime
import importlib.metadata
import os
import pathlib
import secrets
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from flexcore import launchers
from flexcore.config import Config
from flexcore.facts import CheckpointFact, Facts
from shell import manifests

VERSIONS = ("torch", "numpy", "flexcore", "safetensors")


def environment(given: Facts = Facts(), environ: Mapping[str, str] = os.environ) -> Facts:  # noqa: B008
    """`given` with every unknown the process environment can tell filled in. No torch."""
    seen = tuple(sorted((name, environ[name]) for name in launchers.VARIABLES if name in environ))
    now = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    launcher = launchers.infer(dict(seen))
    local = environ.get("LOCAL_WORLD_SIZE", "")
    found: dict[str, Any] = {
        "environment": seen, "entropy": secrets.randbits(64), "started_at": now,
        "world_size": launchers.world_size(launcher, dict(seen)) if launcher != "none" else 1,
        "local_world_size": int(local) if local.isdigit() else None,
        "versions": _versions(),
    }  # fmt: skip
    return _filled(given, found)


def _filled(given: Facts, found: Mapping[str, Any]) -> Facts:
    return evolve(given, **{name: value for name, value in found.items() if getattr(given, name) is None})


def _versions() -> tuple[tuple[str, str], ...]:
    rows = [("python", sys.version.split()[0])]
    for name in VERSIONS:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(rows)


def device(given: Facts) -> Facts:
    """The device facts. Imports torch."""
    import torch

    kind = given.device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {"device_type": kind, "supports_bf16": True, "supports_fp16": kind == "cuda"}
    if kind == "cuda" and torch.cuda.is_available():
        found |= {"device_count": torch.cuda.device_count(), "supports_bf16": torch.cuda.is_bf16_supported(),
                  "device_memory": torch.cuda.get_device_properties(0).total_memory}  # fmt: skip
    return _filled(given, found)


def checkpoints(given: Facts, config: Config, work_dir: str) -> Facts:
    """What stands in work_dir, and the checkpoint the config names, by their manifests; no tensor is read."""
    complete = tuple(fact_of(manifest) for manifest in manifests.scan(pathlib.Path(work_dir) / "checkpoints").complete)
    path = config.resume if isinstance(config.resume, str) else config.load_from
    named = manifests.read(pathlib.Path(path)) if path is not None else None
    fact = fact_of(named) if isinstance(named, manifests.Manifest) else None
    free = shutil.disk_usage(_existing(pathlib.Path(work_dir))).free
    return evolve(given, checkpoints=complete, named_checkpoint=fact and evolve(fact, path=str(path)), free_disk=free)


def _existing(path: pathlib.Path) -> pathlib.Path:
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def fact_of(manifest: manifests.Manifest) -> CheckpointFact:
    fields = manifest.fields
    trajectory = fields.get("trajectory")
    return CheckpointFact(
        path=manifest.path, name=manifest.name, epoch=int(fields.get("epoch", 0)), iter=int(fields.get("iter", 0)),
        resumable=bool(fields.get("resumable", False)), validated=bool(fields.get("validated", False)),
        trajectory=None if trajectory is None else tuple((str(name), str(text)) for name, text in trajectory),
        world_size=fields.get("world_size"), strategy=fields.get("strategy"), best=bool(fields.get("best", False)),
    )  # fmt: skip


def differences(planned: Facts, found: Facts) -> list[tuple[str, object, object]]:
    """(fact, planned, found) of each known fact that a run may not differ in."""
    fixed = ("world_size", "device_type", "train_samples", "train_batches", "train_batch_size", "val_samples", "test_samples")
    return [
        (name, getattr(planned, name), getattr(found, name))
        for name in fixed
        if getattr(planned, name) is not None and getattr(planned, name) != getattr(found, name)
    ]
