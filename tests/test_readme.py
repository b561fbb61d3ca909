"""The README shows what the commands really print. `python -m tests.test_readme` writes it anew."""

import contextlib
import io
import os
import pathlib
import re
import shlex
import shutil
import sys

import pytest

from shell.cli import main

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console\n\$ flexcore (?P<command>[^\n]*)\n(?P<output>.*?)\n```", re.DOTALL)
BROKEN = re.compile(r"Given `broken\.py`,\n\n```python\n(.*?)```", re.DOTALL)


def printed(command: str, folder: pathlib.Path) -> str:
    """What a flexcore command prints, run where only the examples and broken.py lie."""
    shutil.copytree(ROOT / "examples", folder / "examples", dirs_exist_ok=True)
    (folder / "broken.py").write_text(BROKEN.search(README.read_text())[1])
    before, out = pathlib.Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main(shlex.split(command))
    finally:
        os.chdir(before)
        sys.path[:] = [entry for entry in sys.path if entry]
    return out.getvalue().rstrip("\n")


@pytest.mark.parametrize("number", range(len(CONSOLE.findall(README.read_text()))))
def test_the_readme_shows_real_output(number, tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    example = list(CONSOLE.finditer(README.read_text()))[number]
    assert printed(example["command"], tmp_path) == example["output"]


def test_the_readme_names_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README.read_text())) <= targets | {"bench"}


def rewritten(folder: pathlib.Path) -> str:
    return CONSOLE.sub(
        lambda m: f"```console\n$ flexcore {m['command']}\n{printed(m['command'], folder)}\n```",
        README.read_text(),
    )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        README.write_text(rewritten(pathlib.Path(folder)))
