"""What is shown and drawn: plain lines, a live terminal, and files TensorBoard itself reads back."""

import io
import logging
import os
import pty
import re
import struct
import sys
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import flexcore
from shell.loggers import tensorboard
from shell.loggers.console import Console
from shell.loggers.tensorboard import TensorBoardSink

VALUES = {"loss": 0.5, "lr": 0.00125, "time": 0.01, "data_time": 0.002, "eta": 3725.9, "acc": 1.0}


def plan_of(**changes):
    config = {
        "model": {"type": "tests.shell.parts:Net"},
        "train_dataloader": {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        **changes,
    }
    return flexcore.plan(config, flexcore.Facts(train_samples=10, world_size=1))


BY_ITER = {"train_cfg": {"by_epoch": False, "max_iters": 40}}
STATE = SimpleNamespace(epoch=1, completed=7, max_epochs=3, max_iters=15)


def lines(capsys, plan, rank=0, log_file=None, tell=lambda console: None):
    with Console(plan, rank, log_file) as console:
        tell(console)
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capsys.readouterr().err.splitlines()]


def tell(console):
    console.train_line(STATE, 7, VALUES)
    console.eval_line(STATE, "val", {"accuracy": 0.98765, "loss": 2})
    console.eval_line(STATE, "test", {"accuracy": 0.5})
    console.logger.error("trouble")


LINES = [
    "INFO epoch 2/3  iter 7/15  loss 0.5000  lr 1.2500e-03  0.0100 s/it  0.0020 s/it data  acc 1.0000  eta 1:02:05",
    "INFO validation after epoch 1  accuracy 0.9877  loss 2.0000",
    "INFO test  accuracy 0.5000",
    "ERROR trouble",
]


def test_plain_lines(capsys, tmp_path):
    assert lines(capsys, plan_of(), log_file=tmp_path / "run.log", tell=tell) == LINES
    kept = (tmp_path / "run.log").read_text().splitlines()
    assert [re.sub(r"^[\d-]{10} [\d:,]{12} ", "", line) for line in kept] == LINES


def test_lines_of_an_iteration_loop_count_iterations(capsys):
    found = lines(capsys, plan_of(**BY_ITER, log_processor={"num_digits": 2}), tell=tell)
    assert (
        found[0] == "INFO iter 7/15  loss 0.50  lr 1.25e-03  0.01 s/it  0.00 s/it data  acc 1.00  eta 1:02:05"
    )
    assert found[1] == "INFO validation after iter 7  accuracy 0.99  loss 2.00"


def test_other_ranks_say_only_errors(capsys):
    assert lines(capsys, plan_of(), rank=1, tell=tell) == ["ERROR trouble"]


def test_the_log_level_is_the_plans(capsys):
    assert lines(capsys, plan_of(log_level="WARNING"), tell=tell) == ["ERROR trouble"]


def test_a_console_leaves_no_handler_behind(capsys, tmp_path):
    logger = logging.getLogger("flexcore.rank0")
    before = list(logger.handlers)
    with Console(plan_of(), 0, tmp_path / "run.log"):
        assert len(logger.handlers) == len(before) + 2
    assert logger.handlers == before


def test_short_times():
    from shell.loggers.console import _clock

    assert [_clock(seconds) for seconds in (0, 59.9, 60, 3599, 3600, 90061)] == [
        "0:00", "0:59", "1:00", "59:59", "1:00:00", "25:01:01",
    ]  # fmt: skip


@contextmanager
def terminal(monkeypatch, shown):
    """sys.stderr is a pseudo-terminal; what it shows, without its control sequences, is added to `shown`."""
    ours, theirs = pty.openpty()
    stream = io.TextIOWrapper(os.fdopen(theirs, "wb", buffering=0), write_through=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    yield
    stream.close()
    seen = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while True:
            seen += os.read(ours, 65536)
    os.close(ours)
    shown.append(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", seen.decode()))


def test_a_terminal_shows_progress_and_whole_lines(monkeypatch):
    shown = []
    with terminal(monkeypatch, shown), Console(plan_of(), 0, None) as console:
        console.train_line(STATE, 7, VALUES)
        console.eval_line(STATE, "val", {"accuracy": 0.98765})
        assert (console._progress.tasks[0].completed, console._progress.tasks[0].total) == (7, 15)
    assert "epoch 2/3  iter 7/15  loss 0.5000  lr 1.2500e-03" in shown[0]
    assert "validation after epoch 1  accuracy 0.9877" in shown[0]
    assert re.search(r"epoch 2/3  loss 0\.5000 .*7/15", shown[0])


def test_a_terminal_shows_no_bar_for_an_evaluation(monkeypatch):
    plan = flexcore.plan(
        {
            "model": {"type": "tests.shell.parts:Net"},
            "val_dataloader": {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2},
            "val_evaluator": {"type": "tests.shell.parts:Accuracy"},
            "val_cfg": {},
        },
        mode="val",
    )
    shown = []
    with terminal(monkeypatch, shown), Console(plan, 0, None) as console:
        assert console._progress is None
        console.eval_line(STATE, "val", {"accuracy": 1})
    assert "validation  accuracy 1.0000" in shown[0]


def read_back(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_tensorboard_reads_what_was_written(tmp_path):
    sink = TensorBoardSink(tmp_path / "tb")
    for step in (10, 20, 30):
        sink.scalars({"train/loss": 1 / step, "train/lr": 0.5}, step)
    sink.scalars({"val/accuracy": 0.75}, 30)
    sink.close()
    assert read_back(tmp_path / "tb") == {
        "train/loss": [(step, pytest.approx(1 / step)) for step in (10, 20, 30)],
        "train/lr": [(10, 0.5), (20, 0.5), (30, 0.5)],
        "val/accuracy": [(30, 0.75)],
    }


def test_tensorboard_forgets_what_a_start_has_written_that_is_done_again(tmp_path):
    """A run killed after step 5 is resumed at step 3, in the same directory."""
    for completed, steps in ((0, range(1, 6)), (3, range(4, 8))):
        sink = TensorBoardSink(tmp_path)
        if completed:
            time.sleep(1.1)  # files are read in the order of the second they were opened in
            sink.goes_on(completed)
        for step in steps:
            sink.scalars({"loss": step + completed / 10}, step)
        sink.close()
    expected = [(step, pytest.approx(step + (0.3 if step > 3 else 0))) for step in range(1, 8)]
    assert read_back(tmp_path) == {"loss": expected}


def test_tensorboard_reads_long_names_late_steps_and_what_floats_cannot_hold(tmp_path):
    """Lengths and steps of several bytes; a value past single precision is infinite, not an error."""
    sink = TensorBoardSink(tmp_path)
    sink.scalars({"x" * 300: 2.5, "größe": -1e300}, 10**12)
    sink.close()
    assert read_back(tmp_path) == {"x" * 300: [(10**12, 2.5)], "größe": [(10**12, float("-inf"))]}


def test_what_was_flushed_is_readable_while_the_run_goes_on(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.scalars({"a": float("nan"), "b": float("inf")}, 1)
    sink.flush()
    found = read_back(tmp_path)
    assert found["b"] == [(1, float("inf"))]
    assert found["a"][0][1] != found["a"][0][1]
    sink.close()


def test_nothing_to_say_writes_no_file(tmp_path):
    sink = TensorBoardSink(tmp_path / "tb")
    sink.flush()
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_in_python_and_in_c_agree(tmp_path, monkeypatch):
    """Without google_crc32c the records are the same."""
    assert tensorboard.TensorBoardSink(tmp_path)  # loaded
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c

    google = pytest.importorskip("google_crc32c")
    assert [crc32c(data) for data in (b"", b"123456789")] == [google.value(b""), google.value(b"123456789")]
    assert google.value(b"123456789") == 0xE3069283  # the check value of CRC-32C
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    sink = TensorBoardSink(tmp_path / "slow")
    sink.scalars({"a": 1.0}, 3)
    sink.close()
    assert read_back(tmp_path / "slow") == {"a": [(3, 1.0)]}
    record = next((tmp_path / "slow").iterdir()).read_bytes()
    assert struct.unpack("<Q", record[:8])[0] < 64
