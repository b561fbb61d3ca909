"""A checkpoint moved to another layout is loaded to the bit and trained on as if it had never moved.

A sample in which all are arrived at and all but two ZeRO stages left; `make torture` has every layout under every other.
"""

import importlib.util
import os

import pytest

from tests.shell import moves

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # before deepspeed's first import, which looks for others
ENGINES = importlib.util.find_spec("deepspeed") is not None
MOVES = [("Single@1", "HSDP@4"), ("DDP@2", "FSDP2@2"), ("FSDP2@2", "DDP@1"), ("HSDP@4", "Single@1")]
MOVES += [
    ("DDP@2", "ZeRO1@2"), ("ZeRO1@2", "FSDP2@2"), ("HSDP@4", "ZeRO3@2"), ("ZeRO3@2", "Single@1"),
    ("ZeRO3@2", "ZeRO2@2"), ("ZeRO1@2", "ZeRO0@2"),
] * ENGINES  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """(where, what was saved, the work_dir of each move), in two starts of each number of ranks."""
    root = tmp_path_factory.mktemp("moved")
    pairs = [(moves.LAYOUTS[here], moves.LAYOUTS[there]) for here, there in MOVES]
    saved = moves.save(root, dict.fromkeys(here for here, _ in pairs))
    return root, saved, moves.resume(root, saved, pairs)


@pytest.mark.parametrize(("here", "there"), MOVES)
def test_a_move_changes_nothing(here, there, moved):
    """Every tensor of model and optimizer, the next ten losses, the samples of each iteration, and the plan kept to."""
    root, saved, places = moved
    move = moves.LAYOUTS[here], moves.LAYOUTS[there]
    moves.check(root, saved, move, places[move])
