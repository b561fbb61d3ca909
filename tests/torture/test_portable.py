"""Every layout's checkpoint under every other: parameters and optimizer hash-equal once loaded, then the same training."""

import importlib.util
import os
import random

import pytest

from tests.shell import moves
from tests.torture.conftest import amount

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # before deepspeed's first import, which looks for others
ENGINES = importlib.util.find_spec("deepspeed") is not None
LAYOUTS = [one for one in moves.LAYOUTS.values() if ENGINES or not one.name.startswith("ZeRO")]


def chosen(config):
    """All layouts, or a portion of them, drawn."""
    count = min(len(LAYOUTS), 1 + amount(config, len(LAYOUTS)))
    return random.Random(config.getoption("torture_seed")).sample(LAYOUTS, count)


def pytest_generate_tests(metafunc):
    if "there" in metafunc.fixturenames:
        metafunc.parametrize("there", chosen(metafunc.config), ids=str)


@pytest.fixture(scope="module")
def saved(pytestconfig, tmp_path_factory):
    """(where, the checkpoint each layout saved)."""
    root = tmp_path_factory.mktemp("saved")
    return root, moves.save(root, chosen(pytestconfig))


def test_from_every_layout(there, saved, record_property):
    """One start of ranks carries out the moves from all of them to this one."""
    root, checkpoints = saved
    moved = moves.resume(root, checkpoints, [(here, there) for here in checkpoints])
    worst = [moves.check(root, checkpoints, move, place) for move, place in moved.items()]
    record_property("counted", {"pairs": len(worst), "worst loss difference": max(worst)})
