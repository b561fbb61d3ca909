"""Wherever a run is resumed, and whatever it was killed in the middle of, it ends as one that was left in peace.

Compared is everything: all tensors of all checkpoints that stand at the end, with averages, optimizer and what hooks and
metrics keep; epochs, counters, random streams and the loss scale; and the record of events against the plan.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import functools
import signal

import pytest

from tests.shell import jobs
from tests.shell.jobs import Doom, Way

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("way", [Way(scaled=True)], ids=str)
def test_resumed_at_any_update_a_run_ends_the_same(way, tmp_path):
    """From each of its checkpoints, one for every update; many lie within an epoch, some just after a validation."""
    resumed_everywhere(way, tmp_path)


def resumed_everywhere(way, root):
    """Resume once for each update; in one process, so that what a run leaves in memory is seen to mean nothing."""
    kept = dict(keep=-1, every=way.window)
    jobs.finish(way, way.config(root / "whole", **kept))
    expected = jobs.end(root / "whole")
    places = {at: root / str(at) for at in range(way.window, jobs.TOTAL, way.window)}
    for at, place in places.items():
        jobs.begun_at(root / "whole", place, at)
    jobs.finish(way, *(way.config(place, **kept) for place in places.values()))
    for at, place in places.items():
        jobs.same(jobs.end(place), expected)
        assert f"iter_{at}" in expected.standing


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """How a way's run ends that was left in peace."""

    @functools.cache
    def ended(way):
        root = tmp_path_factory.mktemp("peace")
        jobs.finish(way, way.config(root))
        return jobs.end(root)

    return ended


def killed_in(stage, nth):
    return dict(type="tests.shell.toys:KillIn", stage=stage, nth=nth)


WINDOWS, STEPS = Way(), Way(window=1)
MOMENTS = {
    "in the second of a window's three iterations": (WINDOWS, killed_in("before_train_iter", 13)),
    "between a save and the end of the one it retires": (WINDOWS, Doom(0, words=("os.rename", "/iter_12 ", "-gone-"))),
    "between the best's save and the end of the one before": (STEPS, Doom(0, words=("os.rename", "/best_hits_epoch_1 ", "-gone-"))),
    "between a save and the validation due there": (STEPS, killed_in("before_val_epoch", 1)),
    "between a validation and the best's save": (STEPS, Doom(0, words=("os.mkdir", ".tmp-best_hits_epoch_2"))),
    "between the best's save and the next": (STEPS, killed_in("before_train_iter", 34)),
}  # fmt: skip


@pytest.mark.parametrize(("way", "death"), MOMENTS.values(), ids=MOMENTS)
def test_killed_at_a_chosen_moment(way, death, peace, tmp_path):
    cfg = way.config(tmp_path)
    doom = death if isinstance(death, Doom) else None
    if doom is None:
        cfg["custom_hooks"] = [*cfg["custom_hooks"], death]
    with way.start(cfg, doom) as running:
        assert running.wait() == [-signal.SIGKILL]
    jobs.finish(way, cfg)
    jobs.same(jobs.end(tmp_path), peace(way))
