"""A folder of config files and what reading one of them gives. No reader is replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexcore.problems import ConfigError, Problem
from shell.files import Source, read


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, text: str) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def source(self, text: str, name: str = "c.py", overrides: tuple[str, ...] = ()) -> Source:
        return read(self.put(name, text), overrides)

    def data(self, text: str, name: str = "c.py", overrides: tuple[str, ...] = ()) -> dict[str, Any]:
        return self.source(text, name, overrides).data

    def problems(self, text: str, name: str = "c.py", overrides: tuple[str, ...] = ()) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            self.source(text, name, overrides)
        return caught.value.problems

    def message(self, text: str, name: str = "c.py", overrides: tuple[str, ...] = ()) -> str:
        """All problems as text, with the folder left out."""
        found = self.problems(text, name, overrides)
        return "\n".join(map(str, found)).replace(f"{self.root}/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


Read = Callable[..., dict[str, Any]]
