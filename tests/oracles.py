"""What mmengine 0.10.7 did, as recorded under flexcore/oracles: a test claims the cases it checks, and none may be left.

python -m tests.oracles    prints how many cases each file holds and which tests check them
"""

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

Case = dict[str, Any]
HERE = Path(__file__).parent / "flexcore" / "oracles"
CHECKED_IN = (
    "tests.flexcore.test_mmengine",
    "tests.flexcore.test_stopping_early",
    "tests.shell.test_mmengine_runs",
)
# How many cases were recorded, so that none can be lost from a file.
RECORDED = {
    "o01": 11, "o02": 12, "o03": 35, "o04": 5, "o05": 11, "o06": 11, "o07": 13, "o08": 9, "o09": 4, "o10": 22, "o11": 16,
    "o12": 6, "o13": 7, "o14": 6, "o15": 3, "o16": 3, "o17": 60,
}  # fmt: skip
# (file, the case's id) -> the tests that check it. Filled as test modules are imported.
CLAIMS: dict[tuple[str, str], set[str]] = {}


@cache
def loaded(number: str) -> tuple[Case, ...]:
    (path,) = HERE.glob(f"{number}_*.json")
    return tuple(json.loads(path.read_text())["cases"])


def claimed(number: str, chosen: Callable[[Case], bool] = lambda _: True) -> Any:
    """A decorator: the test runs for each chosen case of a file, which counts as checked by it."""
    cases = [case for case in loaded(number) if chosen(case)]
    assert cases, f"no case of {number} is meant"

    def decorate(test: Any) -> Any:
        for case in cases:
            CLAIMS.setdefault((number, case["id"]), set()).add(test.__name__)
        return pytest.mark.parametrize("case", cases, ids=lambda case: case["id"])(test)

    return decorate


def every_case() -> Iterable[tuple[str, str]]:
    for path in sorted(HERE.glob("*.json")):
        number = path.name.partition("_")[0]
        yield from ((number, case["id"]) for case in loaded(number))


def claims() -> dict[tuple[str, str], set[str]]:
    """All claims of all modules."""
    for name in CHECKED_IN:
        import_module(name)
    return CLAIMS


def table() -> str:
    found, rows = claims(), []
    for path in sorted(HERE.glob("*.json")):
        number = path.name.partition("_")[0]
        ids = [case["id"] for case in loaded(number)]
        tests = dict.fromkeys(test for id in ids for test in sorted(found.get((number, id), ())))
        checked = sum(bool(found.get((number, id))) for id in ids)
        rows.append(f"{path.stem:<24}{len(ids):>6}{checked:>9}  {', '.join(tests)}")
    total = [len(list(every_case())), sum((number, id) in found for number, id in every_case())]
    return "\n".join(
        [f"{'recording':<24}{'cases':>6}{'checked':>9}  by", *rows, f"{'':<24}{total[0]:>6}{total[1]:>9}"]
    )


if __name__ == "__main__":
    from tests import oracles  # the one that the tests claim in, not this __main__

    print(oracles.table())
