"""The launcher: exit codes keep their meaning, signals are passed on once, nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shell.launching import FAILURES, STOPS, launch, verdict

ROOT = Path(__file__).parents[2]
STAND_IN = "tests.shell.launched"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((0, 75), 75),
        ((75, 75), 75),
        ((130, 0), 130),
        ((130, 75), 75),
        ((1, 3), 3),
        ((-15, 6, 5), 6),
        ((75, 8), 8),
        ((1, -15), 1),
        ((-9, 1), 137),
        ((0, -6), 134),
        ((143, 75), 143),
        ((75, 1), 1),
        ((42,), 1),
        ((), 1),
    ],
)
def test_the_verdict_is_the_most_telling_code(codes, expected):
    assert verdict(codes) == expected


def test_every_code_of_our_own_survives_alone():
    assert [verdict((0, code)) for code in sorted(FAILURES | STOPS)] == sorted(FAILURES | STOPS)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("0", "0"), 0),
        (("75", "late:75"), 75),
        (("late:0", "75"), 75),
        (("late:3", "3"), 3),
        (("late:0", "1"), 1),
        (("late:0", "-9"), 137),
    ],
)
def test_exit_codes_are_mapped(codes, expected, capfd):
    """A rank that leaves in order does not cost the others their end; one that dies does."""
    assert launch(2, ["codes", *codes], module=STAND_IN) == expected
    said = capfd.readouterr().err
    if expected in FAILURES | STOPS | {0}:
        assert said == ""
    elif expected == 137:
        assert "flexcore: rank 1 was killed by SIGKILL\n" in said
        assert "=====" not in said


def test_a_crash_is_restarted_but_a_stop_is_not():
    assert launch(1, ["restart", "1"], module=STAND_IN, max_restarts=1) == 0
    assert launch(1, ["restart", "75"], module=STAND_IN, max_restarts=1) == 75
    assert launch(1, ["restart", "2"], module=STAND_IN, max_restarts=1) == 2


def test_workers_get_their_words_threads_and_a_session_of_their_own(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    words = ["a=$$b", "${local_rank}", "two words"]
    assert launch(2, ["tell", str(tmp_path), *words], module=STAND_IN) == 0
    told = json.loads((tmp_path / "told.1").read_text())
    cores = len(os.sched_getaffinity(0))
    assert told == {"words": words, "omp": str(max(1, cores // 2)), "session": True}
    assert dict(os.environ) == before
    assert sorted(capfd.readouterr().out.splitlines()) == ["rank 0 speaking", "rank 1 speaking"]


def test_given_threads_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launch(1, ["tell", str(tmp_path)], module=STAND_IN) == 0
    assert json.loads((tmp_path / "told.0").read_text())["omp"] == "7"


def test_launching_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^nproc: is 0, but must be at least 1\. Give a larger number\.$"):
        launch(0, [])


class Launched:
    """A launcher in a session of its own, as under a terminal."""

    def __init__(self, directory: Path, *argv: str) -> None:
        self.directory = directory
        call = f"import sys; from shell.launching import launch; sys.exit(launch(2, {list(argv)}, module={STAND_IN!r}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", call],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self):
        self.pids = [int(read(self.directory / f"ready.{rank}")) for rank in (0, 1)]
        return self

    def __exit__(self, *_error):
        for pid in (self.process.pid, *getattr(self, "pids", ())):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=10)

    def end(self):
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output

    def seen(self):
        return [json.loads(read(self.directory / f"seen.{rank}")) for rank in (0, 1)]


def read(path: Path, timeout: float = 40) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise TimeoutError(path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_is_passed_on_once_and_the_workers_end_by_themselves(tmp_path):
    with Launched(tmp_path, "stop", str(tmp_path), "1", "75") as launched:
        launched.process.send_signal(signal.SIGTERM)
        assert launched.end() == (75, "")
        assert launched.seen() == [["SIGTERM"], ["SIGTERM"]]


def test_a_terminals_ctrl_c_reaches_each_worker_once_and_so_does_a_second(tmp_path):
    with Launched(tmp_path, "stop", str(tmp_path), "2", "130") as launched:
        os.killpg(launched.process.pid, signal.SIGINT)
        time.sleep(1.0)
        assert launched.process.poll() is None
        os.killpg(launched.process.pid, signal.SIGINT)
        assert launched.end() == (130, "")
        assert launched.seen() == [["SIGINT", "SIGINT"]] * 2


def test_no_worker_outlives_a_killed_launcher(tmp_path):
    with Launched(tmp_path, "stop", str(tmp_path), "1", "75") as launched:
        launched.process.kill()
        launched.process.wait(10)
        deadline = time.monotonic() + 10
        while any(map(alive, launched.pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, launched.pids))


def test_a_run_told_to_stop_agrees_leaves_together_and_returns_75(tmp_path):
    with Launched(tmp_path, "train", str(tmp_path)) as launched:
        launched.process.send_signal(signal.SIGUSR1)
        assert launched.end() == (75, "")
        first, second = launched.seen()
        assert first == second
        assert first[0] == "preempted"
