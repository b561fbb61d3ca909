"""Killed with kill -9 at random moments, again and again, and run again: each run ends with the bits of one left in peace.

Half the moments are drawn over the whole time of a start, loading included; half fall at or shortly after one of the
file operations of a save. Of several ranks all are killed at once, or one and the others a little later.
"""

import functools
import random
import signal
import sys
import time
from collections import Counter

import pytest

from tests.ranks import start_alone
from tests.shell import jobs
from tests.shell.jobs import Doom, Way
from tests.shell.test_every_update import resumed_everywhere
from tests.torture.conftest import amount

KILLS = 10  # landed in one test, over as many runs of the job as that takes
MOST = 6  # in one run of the job: one killed without end would never come to one
ASIDE = {"background": True}
SHARES = {
    Way(): 300, Way(scaled=True): 150, Way(workers=2): 150, Way(window=1, by_epoch=False): 200, Way(window=1, **ASIDE): 200,
    Way(2, "DDPStrategy"): 50, Way(2, "DDPStrategy", scaled=True, **ASIDE): 30, Way(2, "DDPStrategy", workers=1): 20,
    Way(2, "FSDPStrategy"): 50, Way(2, "FSDPStrategy", window=1, **ASIDE): 50,
}  # fmt: skip
"""How many kills each way of carrying out the job has to stand: 1,000 in one process, 100 under DDP, 100 under FSDP2."""

OPERATIONS = 150  # half of what the job does to files after its first save began
LATER = 0.3  # seconds from one rank's death to the launcher's end of the others


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        cases = [
            pytest.param(way, number, id=f"{way}-{number}")
            for way, share in SHARES.items()
            for number in range(max(1, amount(metafunc.config, share) // KILLS))
        ]
        metafunc.parametrize(("way", "number"), cases)
    if "part" in metafunc.fixturenames:
        parts = [
            pytest.param(way, part, id=f"{way}-{part}")
            for way in PLACES
            for part in range(amount(metafunc.config, PARTS))
        ]
        metafunc.parametrize(("way", "part"), parts)


@pytest.fixture(scope="session")
def peace(tmp_path_factory):
    """Of the run left in peace, for each way: how it ended and the seconds it took."""

    @functools.cache
    def ended(way):
        root = tmp_path_factory.mktemp("peace")
        jobs.finish(way, way.config(root / "first"))  # loads what is loaded once
        seconds = jobs.finish(way, way.config(root / "second"))
        jobs.same(jobs.end(root / "first"), jobs.end(root / "second"))
        return jobs.end(root / "second"), seconds

    return ended


def test_ten_random_kills(way, number, seed, peace, tmp_path, record_property):
    """Counted are kills that found the run alive; what it ended with is compared after each run of the job."""
    (expected, seconds), landed = peace(way), Counter()
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
        jobs.same(jobs.end(work_dir), expected)
    record_property("counted", dict(landed))


def killed(way, cfg, draw, seconds):
    """(kind of moment, whether it found the run alive) of one start that is to be killed."""
    if draw.random() < 0.5:
        return "any time", by_clock(way, cfg, draw, seconds)
    rank = draw.choice((None, *range(way.ranks))) if way.ranks > 1 else None
    delay = draw.choice((0, draw.uniform(0, 0.003)))
    doom = Doom(nth=draw.randrange(OPERATIONS), delay=delay, saving=True, rank=rank)
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


PLACES = (Way(scaled=True), Way(window=1), Way(window=1, **ASIDE))
PARTS = 15


@pytest.fixture(scope="session")
def operations(tmp_path_factory):
    """How many file operations a whole run makes."""

    @functools.cache
    def counted(way):
        cfg = way.config(tmp_path_factory.mktemp("counted"))
        with start_alone(counting, cfg) as running:
            return running.results()[0]

    return counted


def counting(cfg):
    reaper = jobs.Reaper(Doom(nth=sys.maxsize), cfg["work_dir"])
    sys.addaudithook(reaper)
    jobs.carried_out(0, [cfg])
    return reaper.seen


def test_at_every_file_operation(way, part, peace, operations, tmp_path, record_property):
    """Once before each of them; a part takes every fifteenth."""
    (expected, _), points, killed = peace(way), range(part, operations(way), PARTS), 0
    for nth in points:
        cfg = way.config(tmp_path / str(nth))
        with way.start(cfg, Doom(nth=nth)) as running:
            killed += running.wait() == [-signal.SIGKILL]
        jobs.finish(way, cfg)
        jobs.same(jobs.end(tmp_path / str(nth)), expected)
    assert killed >= len(points) - way.background  # where two threads work, one may make an operation less
    record_property("counted", {"kills": killed})


EVERYWHERE = (
    Way(), Way(window=1), Way(workers=2), Way(2, "DDPStrategy"), Way(2, "DDPStrategy", workers=1, scaled=True),
    Way(2, "FSDPStrategy"), Way(2, "FSDPStrategy", **ASIDE),
)  # fmt: skip


@pytest.mark.parametrize("way", EVERYWHERE, ids=str)
def test_resumed_at_any_update(way, tmp_path):
    resumed_everywhere(way, tmp_path)
