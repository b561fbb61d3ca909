"""`make torture`: how much of it, from which seed, and a record of what passed, so that an interrupted one goes on.

A test that passed is left out of the next run while the sources are the same; --portion below 1 takes that share
of every amount, for a look. Tests draw from `seed` and their own parameters alone, so a failure repeats by its name.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import CONTEXT

ROOT = Path(__file__).resolve().parents[2]
LOADED = (
    "pytest", "numpy", "torch", "torch.distributed", "torch._dynamo", "torch.nn.parallel", "torch.distributed.fsdp",
    "torch.distributed.tensor", "safetensors.torch", "shell.execute", "shell.strategies.ddp", "shell.strategies.fsdp",
)  # fmt: skip
"""By the server that processes are forked from: a thousand starts load nothing."""

CONTEXT.set_forkserver_preload(list(LOADED))
SOURCES = ("flexcore", "shell", "tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("torture")
    group.addoption("--portion", type=float, default=1.0, help="of each full amount, at least one")
    group.addoption("--torture-seed", type=int, default=0, help="what is drawn at random is drawn from it")
    group.addoption("--state", type=Path, default=None, help="file of what passed; left out when run again")


def amount(config: pytest.Config, full: int) -> int:
    """How many of `full` this run is to do."""
    return max(1, round(full * config.getoption("portion")))


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("torture_seed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Passed(config), "torture-passed")


class Passed:
    """The tests that passed under these sources, seed and portion, one a line after the line that says which.

    What a test told by record_property("counted", {name: number}) is summed up at the end, over all runs; of a name
    that begins with "worst", the largest counts.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.path: Path | None = config.getoption("state")
        self.reads_only = hasattr(
            config, "workerinput"
        )  # pytest-xdist's workers; their reports reach the first process
        told = {"seed": config.getoption("torture_seed"), "portion": config.getoption("portion")}
        self.head = json.dumps({**told, "sources": sources()})
        self.done: dict[str, Any] = self._read()

    def _read(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        if lines[:1] == [self.head]:
            return dict(json.loads(line) for line in lines[1:])
        if not self.reads_only:
            self.path.write_text(self.head + "\n")
        return {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left = [item for item in items if item.nodeid not in self.done]
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self.done])
        items[:] = left

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or not report.passed:
            return
        counted = dict(report.user_properties).get("counted", {})
        told = {"seconds": round(report.duration, 2), **counted}
        self.done[report.nodeid] = told
        if self.path is not None and not self.reads_only:
            with self.path.open("a") as file:
                file.write(json.dumps([report.nodeid, told]) + "\n")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: Any) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.done:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for name, told in sorted(self._sums().items()):
            terminalreporter.write_line(
                f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in told.items())
            )

    def _sums(self) -> dict[str, dict[str, float]]:
        """What was counted, by test function and by the first word of its parameters."""
        sums: dict[str, dict[str, float]] = {}
        for name, told in self.done.items():
            function, _, parameters = name.partition("[")
            place = f"{function.rpartition('/')[2]} {parameters.partition('-')[0].rstrip(']')}".rstrip()
            total = sums.setdefault(place, {})
            for key, value in {"passed": 1, **told}.items():
                before = total.get(key, 0)
                total[key] = max(before, value) if key.startswith("worst") else before + value
        return sums


def sources() -> str:
    """The SHA-256 of every Python file that a result rests on."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
