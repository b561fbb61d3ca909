"""Random configs actually run: steps, events, saves and what stands at the end are as planned.

FLEXCORE_RANDOM_CONFIGS=200 runs that many in all; a seed of the day is FLEXCORE_RANDOM_SEED.
"""

import os

from tests.ranks import run_alone, run_ranks
from tests.shell.random_configs import run_many

COUNT = int(os.environ.get("FLEXCORE_RANDOM_CONFIGS", "50"))
SEED = int(os.environ.get("FLEXCORE_RANDOM_SEED", "0"))


def test_random_configs_run_as_planned_on_one_device(tmp_path):
    assert run_alone(run_many, 0, SEED, COUNT - COUNT // 4, str(tmp_path), timeout=900) == []


def test_random_configs_run_as_planned_on_two_ranks(tmp_path):
    wrong = run_ranks(2, run_many, SEED + 1, COUNT // 4, str(tmp_path), timeout=900)
    assert wrong == [[], []]
