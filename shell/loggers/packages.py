"""Which packages the backends of a config need; they are looked for, never imported."""

from collections.abc import Mapping
from importlib.util import find_spec

from flexcore.config import Config
from flexcore.log_specs import MLflowBackend, TensorBoardBackend, WandbBackend
from flexcore.problems import Path, Problem
from flexcore.reporting import backends
from flexcore.rules import problem

NEEDED: Mapping[type, tuple[tuple[str, ...], str]] = {
    TensorBoardBackend: (("google_crc32c", "tensorboard"), "flexcore[train]"),
    WandbBackend: (("wandb",), "flexcore[loggers]"),
    MLflowBackend: (("mlflow",), "flexcore[loggers]"),
}
"""Backend -> (modules one of which it needs, what installs them)."""


def missing(config: Config) -> list[Problem]:
    """Backends whose packages are not installed. Looks for them, imports none."""
    found = []
    for i, backend in backends(config):
        names, install = NEEDED.get(type(backend), ((), ""))
        if names and not any(map(installed, names)):
            text = f"{backend.NAME} needs the package {' or '.join(names)}, which is not installed."
            found.append(
                problem("FK013", place_of(i), text, f'pip install "{install}", or remove the backend.')
            )
    return found


def place_of(index: int | None) -> Path:
    return ("visualizer", "vis_backends") if index is None else ("visualizer", "vis_backends", index)


def installed(name: str) -> bool:
    """A directory of that name, as wandb leaves them, is no package."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None
