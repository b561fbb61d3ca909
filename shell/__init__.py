"""shell: carries out what flexcore planned. Names load on first use, so that planning needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shell.execute import execute as execute
    from shell.execute import run as run
    from shell.results import RunResult as RunResult

_HOME_OF = {"execute": "shell.execute", "run": "shell.execute", "RunResult": "shell.results"}
__all__ = ["RunResult", "execute", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shell' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
