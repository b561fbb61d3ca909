"""Killed with kill -9 at random moments, again and again, and run again: each run ends with the bits of one left in peace.

Half the moments are drawn over the whole time of a start, loading included; half fall at or shortly after one of the
file operations of a save. Of several ranks all are killed at once, or one and the others a little later.
"""

import random
import signal
import time
from collections import Counter

import pytest

from tests.torture import jobs
from tests.torture.conftest import amount

SINGLE, DDP, FSDP = jobs.Way(), jobs.Way(2, "DDPStrategy"), jobs.Way(2, "FSDPStrategy")
KILLS = 10  # landed in one test, over as many runs of the job as that takes
MOST = 6  # in one run of the job: one killed without end would never come to one
SHARES = {
    SINGLE: 700, jobs.Way(workers=2): 300,
    DDP: 70, jobs.Way(2, "DDPStrategy", workers=1): 30,
    FSDP: 100,
}  # fmt: skip
OPERATIONS = 60  # a save has so many, its retention included
LATER = 0.3  # seconds from one rank's death to the launcher's end of the others


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        cases = [
            pytest.param(way, number, id=f"{way}-{number}")
            for way, share in SHARES.items()
            for number in range(max(1, amount(metafunc.config, share) // KILLS))
        ]
        metafunc.parametrize(("way", "number"), cases)


@pytest.fixture(scope="session")
def peace(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


def test_ten_random_kills(way, number, seed, peace, tmp_path, record_property):
    """Counted are kills that found the run alive; what it ended with is compared after each run of the job."""
    (expected, seconds), landed = jobs.whole(peace, way), Counter()
    draw = random.Random(f"{seed} {way} {number}")
    while landed.total() < KILLS:
        work_dir = tmp_path / str(landed.total())
        cfg = way.config(work_dir)
        for _ in range(min(MOST, KILLS - landed.total())):
            kind, died = killed(way, cfg, draw, seconds)
            if not died:
                break
            landed[kind] += 1
        jobs.finish(way, cfg)
        same(jobs.end(work_dir), expected)
    record_property("counted", dict(landed))


def killed(way, cfg, draw, seconds):
    """(kind of moment, whether it found the run alive) of one start that is to be killed."""
    if draw.random() < 0.5:
        return "any time", by_clock(way, cfg, draw, seconds)
    rank = draw.choice((None, *range(way.ranks))) if way.ranks > 1 else None
    delay = draw.choice((0, draw.uniform(0, 0.003)))
    doom = jobs.Doom(nth=draw.randrange(OPERATIONS), delay=delay, saving=True, rank=rank)
    with way.start(cfg, doom) as running:
        return "in a save", ended(running, draw)


def by_clock(way, cfg, draw, seconds):
    with way.start(cfg) as running:
        time.sleep(seconds * draw.random())
        running.kill(signal.SIGKILL, draw.choice((None, *range(way.ranks))))
        return ended(running, draw)


def ended(running, draw):
    """Whether any rank was killed; once one has ended by force, so do the others, as a launcher sees to it."""
    while all(process.exitcode is None for process in running.processes):
        time.sleep(0.005)
    if any(process.exitcode != 0 for process in running.processes):
        time.sleep(draw.uniform(0, LATER) if len(running.processes) > 1 else 0)
        running.kill(signal.SIGKILL)
    return -signal.SIGKILL in running.wait()


def same(found, expected):
    for name in expected.__attrs_attrs__:
        assert getattr(found, name.name) == getattr(expected, name.name), name.name
    assert found.differences == []
