"""shell: carries out what flexcore planned. Names load on first use, so that planning needs no torch."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shell.execute import execute as execute
    from shell.execute import run as run
    from shell.results import RunResult as RunResult

_HOME_OF = {"execute": "shell.execute", "run": "shell.execute", "RunResult": "shell.results"}
__all__ = ["RunResult", "execute", "run"]


class _Surface(ModuleType):
    """The package, whose public names stay what they are although importing shell.run would make `run` a module."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'shell' has no attribute {name!r}")
        return getattr(import_module(_HOME_OF[name]), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Surface
