"""A run that stands still is ended with 5, its standing rank named and its stacks kept; one that is slow is not."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from shell.hangs import Others, Sight, Verdict, judged
from shell.watchdog import standing
from tests.ranks import start_alone, start_ranks
from tests.shell import toys

STILL, MOVING = 10.0, 3.0
FEW = dict(dataset=dict(type="tests.shell.toys:Points", n=64), batch_size=4)


def seen(rank, still=STILL, completed=7, place="loop.py:1 (run)", waits=True, left=False):
    return Sight(rank=rank, word=1, still=still, completed=completed, place=place, waits=waits, left=left)


@pytest.mark.parametrize(
    ("own", "heard", "silent", "faults"),
    [
        (seen(0), [seen(1, MOVING)], (), None),
        (seen(0), [seen(1), seen(2, MOVING)], (), None),
        (seen(0), [seen(1, MOVING)], (1,), ((1, "does not answer: it is stopped, stuck or gone"),)),
        (seen(0), [seen(2, waits=False)], (1,), ((1, "does not answer: it is stopped, stuck or gone"),)),
        (seen(0), [seen(1, completed=6, place="data.py:9 (get)")], (), ((1, "is at iteration 6, in data.py:9 (get)"),)),
        (seen(0, place="a", waits=False), [seen(1, completed=9)], (), ((0, "is at iteration 7, in a"),)),
        (seen(0), [seen(1, place="b", waits=False), seen(2)], (), ((1, "stands in b"),)),
        (seen(0), [seen(1), seen(2)], (), ()),
        (seen(0), [seen(1, MOVING, left=True)], (), ()),
        (seen(0, place="c", waits=False), [], (), ((0, "stands in c"),)),
        (seen(0), [seen(1, STILL - 0.9)], (), ()),
    ],
)  # fmt: skip
def test_the_rank_at_fault_is_the_one_the_others_wait_for(own, heard, silent, faults):
    verdict = judged(own, {sight.rank: sight for sight in heard}, silent, STILL, 0.5)
    assert (None if verdict is None else verdict.faults) == faults


def test_a_verdict_is_told_in_words():
    verdict = Verdict(timeout=10.0, completed=7, faults=((1, "stands in b"), (2, "stands in c")))
    assert Verdict.read(verdict.text()) == verdict
    assert verdict.lines(pathlib.Path("log/stacks")) == [
        "flexcore: no progress for 10 s (env_cfg.hang_timeout), at iteration 7:",
        "flexcore:   rank 1 stands in b",
        "flexcore:   rank 2 stands in c",
        "flexcore: stacks of every rank that answers in log/stacks; ending with 5",
    ]
    nobody = Verdict(timeout=300.0, completed=7, faults=()).lines(pathlib.Path("s"))
    assert nobody[1] == "flexcore:   every rank waits for others: no one stands out"


class Notes:
    """A board in memory."""

    def __init__(self):
        self.notes = {}

    def put(self, name, text):
        self.notes[name] = text

    def get(self, name):
        return self.notes.get(name)

    def remove(self, name):
        self.notes.pop(name, None)


def test_ranks_speak_only_once_one_of_them_asks():
    board = Notes()
    ranks = [Others(rank, 3, board, keeper=None) for rank in range(3)]
    for others in ranks:
        others.talk(seen(others.rank), suspicious=False)
    assert board.notes == {}
    for _ in range(2):
        for rank in (0, 1):  # 2 has stopped
            ranks[rank].talk(seen(rank), suspicious=rank == 0)
            ranks[rank].age(1.0, suspicious=rank == 0)
    assert ranks[0].silent(2.0) == (2,)
    assert ranks[0].heard.keys() == {1}
    assert ranks[1].quiet == {0: 0.0, 2: 0.0}
    ranks[0].talk(seen(0), suspicious=False)
    assert "question" not in board.notes


def test_a_verdict_reaches_whoever_is_asked():
    board, verdict = Notes(), Verdict(timeout=1.0, completed=2, faults=((0, "sleeps"),))
    one, two = Others(0, 2, board, None), Others(1, 2, board, None)
    one.talk(seen(0), suspicious=True)
    board.put("verdict", verdict.text())
    two.talk(seen(1), suspicious=False)
    assert two.verdict == verdict


def test_where_nobody_is_heard_the_keeper_of_the_board_is_the_one():
    """Its stop silences all; without it among the ranks each is as silent as the next."""
    for keeper, expected in ((0, (0,)), (None, (0, 1, 3))):
        others = Others(2, 4, None, keeper)
        others.age(3.0, suspicious=True)
        assert others.silent(2.0) == expected
    others.heard[1] = seen(1, left=True)
    assert others.silent(2.0) == (0, 3)


def test_a_place_is_the_innermost_code_that_is_not_torchs():
    place, waits = standing(sys._current_frames()[threading.get_ident()])
    assert place.startswith("shell/test_watchdog.py:")
    assert place.endswith("(test_a_place_is_the_innermost_code_that_is_not_torchs)")
    assert not waits
    assert standing(None) == ("an unknown place", False)


def logged(work_dir):
    (log,) = work_dir.glob("*/run.log")
    return log.read_text()


def stacks(work_dir):
    return {file.stem: file.read_text() for file in work_dir.glob("*/stacks/*.txt")}


@pytest.mark.parametrize("stopped", toys.sampled([0, 1], without=[1]))
def test_a_stopped_rank_is_named_and_all_end_with_5(stopped, tmp_path):
    """Rank 0 keeps the ranks' store besides. The stopped one is woken to leave its stacks, and killed if it is late."""
    halt = dict(type="tests.shell.toys:SignalAt", at=[[10, signal.SIGSTOP.value]], rank=stopped)
    cfg = toys.config(tmp_path, train_dataloader=FEW, custom_hooks=[halt], env_cfg=dict(hang_timeout=4.0))
    codes = start_ranks(2, toys.exits_rank, cfg).wait(90)
    assert codes[1 - stopped] == 5
    assert codes[stopped] in (5, -9)
    assert "no progress for 4 s (env_cfg.hang_timeout), at iteration 10:\n" in logged(tmp_path)
    assert f"flexcore:   rank {stopped} does not answer: it is stopped, stuck or gone\n" in logged(tmp_path)
    assert "_engine_run_backward" in stacks(tmp_path)[f"rank_{1 - stopped}"]
    assert codes[stopped] == -9 or "in train" in stacks(tmp_path)[f"rank_{stopped}"]


def test_a_rank_that_does_something_of_its_own_is_named_with_its_place(tmp_path):
    sleep = dict(type="tests.shell.toys:SleepAt", at=10, seconds=600, rank=1)
    cfg = toys.config(tmp_path, train_dataloader=FEW, custom_hooks=[sleep], env_cfg=dict(hang_timeout=3.0))
    assert start_ranks(2, toys.exits_rank, cfg).wait(90) == [5, 5]
    assert "flexcore:   rank 1 stands in shell/toys.py:" in logged(tmp_path)
    assert logged(tmp_path).count("no progress") == 1
    assert stacks(tmp_path).keys() == {"rank_0", "rank_1"}


def test_a_rank_that_is_slow_holds_the_others_up_but_hangs_nothing(tmp_path):
    """Nor does a run that is suspended as a whole, for longer than the timeout."""
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=0.02), batch_size=4)
    hooks = [
        dict(type="tests.shell.toys:SleepAt", at=3, seconds=2.0, rank=1),
        dict(type="tests.shell.toys:Started"),
    ]
    cfg = toys.config(tmp_path, train_dataloader=data, custom_hooks=hooks, env_cfg=dict(hang_timeout=3.5))
    with start_ranks(2, toys.exits_rank, cfg) as running:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("started.*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.kill(signal.SIGSTOP)
        time.sleep(6)
        running.kill(signal.SIGCONT)
        assert running.wait(90) == [0, 0]
    assert "no progress" not in logged(tmp_path)


def test_alone_in_anothers_process_a_run_is_not_ended(tmp_path):
    sleep = dict(type="tests.shell.toys:SleepAt", at=5, seconds=2.0)
    cfg = toys.config(tmp_path, custom_hooks=[sleep], env_cfg=dict(hang_timeout=0.5))
    assert start_alone(toys.exits, cfg).wait() == [0]


def test_a_command_that_stands_still_ends_with_5(tmp_path):
    """One process, its data never comes: named with its place."""
    import json
    import subprocess

    sleep = dict(type="tests.shell.toys:SleepAt", at=5, seconds=600)
    cfg = toys.config(tmp_path / "run", custom_hooks=[sleep], env_cfg=dict(hang_timeout=2.0))
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    command = [sys.executable, "-m", "shell", "run", str(tmp_path / "cfg.json"), "--quiet"]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))  # fmt: skip
    assert done.returncode == 5
    assert "flexcore:   rank 0 stands in shell/toys.py:" in done.stderr
    assert "in before_train_iter" in stacks(tmp_path / "run")["rank_0"]
