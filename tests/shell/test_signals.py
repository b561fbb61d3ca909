"""A run that is asked to end does so after whole updates, saved, with the exit code that says why."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import signal
import subprocess
import sys
import time

import pytest

from shell.locking import WorkDirLocked
from shell.report import report
from tests.ranks import run_alone, run_ranks, start_alone, start_ranks
from tests.shell import toys

TERM, INT, USR1 = signal.SIGTERM.value, signal.SIGINT.value, signal.SIGUSR1.value


def signalled(work_dir, *at, rank=0, **changes):
    """A config whose process gets signal numbers before 0-based iterations."""
    hook = dict(type="tests.shell.toys:SignalAt", at=[list(pair) for pair in at], rank=rank)
    return toys.config(work_dir, custom_hooks=[hook], **changes)


@pytest.mark.parametrize(
    ("signum", "reason", "code"),
    [(TERM, "preempted", 75), (USR1, "preempted", 75), (INT, "interrupted", 130)],
)
def test_a_signal_ends_the_run_after_its_step_saved(signum, reason, code, tmp_path):
    """The step the signal arrives in is finished; a rerun goes on from there and matches an undisturbed run."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    result = run_alone(toys.trained, signalled(stopped, (12, signum)))
    assert (result["reason"], result["iter"], result["code"]) == (reason, 13, code)
    assert result["checkpoints"][-1] == "stopped_iter_13"
    assert run_alone(toys.trained, toys.config(stopped))["reason"] == "done"
    run_alone(toys.trained, toys.config(whole))
    assert toys.weights(stopped) == toys.weights(whole)
    assert toys.differences(stopped) == []
    assert not (stopped / "checkpoints" / "stopped_iter_13").exists()


def test_a_signal_at_a_planned_save_saves_once(tmp_path):
    """The last step of an epoch: its checkpoint is the stop's, and the validation due there is the next start's."""
    result = run_alone(toys.trained, signalled(tmp_path, (8, TERM)))
    assert (result["iter"], result["checkpoints"]) == (9, ["epoch_1"])
    run_alone(toys.trained, toys.config(tmp_path))
    assert [event["iter"] for event in toys.recorded(tmp_path, "validate")] == [9, 18, 27]
    assert toys.differences(tmp_path) == []


def test_a_signal_in_the_last_step_leaves_the_validation_to_a_rerun(tmp_path):
    """All steps are done and saved, but the run is not: there may be no time for the validation it owes."""
    result = run_alone(toys.trained, signalled(tmp_path, (26, TERM)))
    assert (result["reason"], result["iter"], result["code"]) == ("preempted", 27, 75)
    assert result["checkpoints"][-1] == "epoch_3"
    result = run_alone(toys.trained, toys.config(tmp_path))
    assert (result["reason"], result["iter"], result["checkpoints"]) == ("done", 27, [])
    assert [event["iter"] for event in toys.recorded(tmp_path, "validate")] == [9, 18, 27]
    assert toys.differences(tmp_path) == []


def test_a_second_signal_ends_at_once_and_leaves_a_good_checkpoint(tmp_path):
    """Inside one step no time passes for saving: exit code 128 + signal, and epoch 1's checkpoint serves."""
    running = start_alone(toys.exits, signalled(tmp_path, (12, INT), (13, TERM), optim_wrapper=dict(
        optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=4,
    )))  # fmt: skip
    assert running.wait() == [128 + TERM]
    assert run_alone(toys.trained, toys.config(tmp_path, optim_wrapper=dict(
        optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=4,
    )))["reason"] == "done"  # fmt: skip
    assert [event["iter"] for event in toys.recorded(tmp_path, "start")] == [0, 12]
    assert toys.differences(tmp_path) == []


def test_a_signal_to_one_of_two_ranks_stops_both_at_the_same_step(tmp_path):
    """Rank 1 alone is told; both end with 75 where they agreed, and a rerun ends as planned."""
    slow = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=0.004), batch_size=4)
    both = dict(train_dataloader=slow)
    running = start_ranks(2, toys.exits_rank, signalled(tmp_path, (11, TERM), rank=1, **both))
    assert running.wait() == [75, 75]
    (stop,) = toys.recorded(tmp_path, "stop")
    assert stop["reason"] == "preempted"
    assert 12 <= stop["iter"] < 20
    results = run_ranks(2, toys.trained_rank, toys.config(tmp_path, **both))
    assert [(result["reason"], result["iter"]) for result in results] == [("done", 24)] * 2
    assert [event["iter"] for event in toys.recorded(tmp_path, "start")] == [0, stop["iter"]]
    assert toys.differences(tmp_path) == []


def test_ranks_with_windows_stop_at_the_windows_end(tmp_path):
    slow = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=0.004), batch_size=4)
    wrapper = dict(optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=3)
    both = dict(train_dataloader=slow, optim_wrapper=wrapper)
    running = start_ranks(2, toys.exits_rank, signalled(tmp_path, (10, TERM), rank=1, **both))
    assert running.wait() == [75, 75]
    (stop,) = toys.recorded(tmp_path, "stop")
    assert stop["iter"] in (12, 15, 18)
    run_ranks(2, toys.trained_rank, toys.config(tmp_path, **both))
    assert toys.differences(tmp_path) == []


def test_wall_time_ends_the_run(tmp_path):
    """max_time: saved, exit code 0, and a rerun has the same time again."""
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=34, slow=0.005), batch_size=4)
    limited = dict(train_dataloader=data, train_cfg=dict(by_epoch=True, max_epochs=3, max_time=0.2))
    result = run_alone(toys.trained, toys.config(tmp_path, **limited))
    assert (result["reason"], result["code"]) == ("time_limit", 0)
    assert 1 <= result["iter"] <= 15
    run_alone(toys.trained, toys.config(tmp_path, train_dataloader=data))
    assert toys.differences(tmp_path) == []


@pytest.mark.parametrize(("ranks", "accumulate", "saved"), [(1, 1, 5), (1, 4, 8), (2, 1, 5)])
def test_a_hook_may_ask_for_a_checkpoint_and_for_the_end(ranks, accumulate, saved, tmp_path):
    """A checkpoint as the window closes, under its own name; then a stop; neither is a difference to the plan."""
    wishes = dict(type="tests.shell.toys:Wishes", checkpoint=4, stop=10)
    wrapper = dict(optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=accumulate)
    cfg = toys.config(tmp_path, custom_hooks=[wishes], optim_wrapper=wrapper)
    results = [run_alone(toys.trained, cfg)] if ranks == 1 else run_ranks(2, toys.trained_rank, cfg)
    assert results[0]["reason"] == "requested"
    assert results[0]["code"] == 0
    assert results[0]["iter"] % accumulate == 0
    assert 11 <= results[0]["iter"] < 15
    wished = [event["iter"] for event in toys.recorded(tmp_path, "save") if event["name"] == "wished"]
    assert wished == [saved]
    cfg = toys.config(tmp_path, optim_wrapper=wrapper)
    if ranks == 1:
        run_alone(toys.trained, cfg)
    else:
        run_ranks(2, toys.trained_rank, cfg)
    assert toys.differences(tmp_path) == []


def test_a_second_run_in_the_work_dir_is_refused(tmp_path):
    """While the first lives the second opens no log of its own; afterwards the directory is free."""
    slow = dict(dataset=dict(type="tests.shell.toys:Points", n=34, slow=0.05), batch_size=4)
    cfg = toys.config(tmp_path, train_dataloader=slow, custom_hooks=[dict(type="tests.shell.toys:Started")])
    with start_alone(toys.trained, cfg) as first:
        deadline = time.monotonic() + 30
        while not (tmp_path / "started.0").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(WorkDirLocked, match="one run at a time may write to a work_dir"):
            run_alone(toys.trained, cfg)
        assert len(list(tmp_path.glob("*/run.log"))) == 1
        first.kill(signal.SIGKILL)
        first.wait()
    assert run_alone(toys.trained, toys.config(tmp_path))["reason"] == "done"


@pytest.mark.slow
def test_the_command_ends_with_the_codes_of_its_ranks(tmp_path):
    """`python -m shell run --nproc 2`: 75 on SIGTERM, then 130 on SIGINT, then 0; and the report finds nothing."""
    slow = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=0.004), batch_size=4)
    file = tmp_path / "config.json"
    started = tmp_path / "run" / "started.0"
    cfg = toys.config(tmp_path / "run", train_dataloader=slow, custom_hooks=[dict(type="tests.shell.toys:Started")],
                      train_cfg=dict(by_epoch=True, max_epochs=16))  # fmt: skip
    file.write_text(json.dumps(cfg))
    command = [sys.executable, "-m", "shell", "run", str(file), "--nproc", "2", "--quiet"]
    for signum, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130), (None, 0)):
        started.unlink(missing_ok=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            if signum is not None:
                _wait_for(started, process)
                process.send_signal(signum)
            output, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
        assert process.returncode == code, output
    text, differs = report(tmp_path / "run")
    assert differs == 0, text
    assert "3 starts" in text
    assert "128 iterations" in text


def _wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.1)
