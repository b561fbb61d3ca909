"""`flexcore report`: the starts of a run in order, differences found, and records that cannot be read."""

import json
import os
import shutil

import pytest

from shell import events
from shell.execute import run
from shell.report import read_segments, report
from tests.shell.parts import Accuracy  # noqa: F401  (named by the config)

CONFIG = {
    "model": {"type": "tests.shell.parts:Net"},
    "loss": {"type": "torch.nn:CrossEntropyLoss"},
    "train_dataloader": {"dataset": {"type": "tests.shell.parts:Pairs", "n": 9}, "batch_size": 2},
    "train_cfg": {"by_epoch": True, "max_epochs": 2},
    "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
    "visualizer": {"vis_backends": [{"type": "LocalVisBackend"}]},
    "randomness": {"seed": 1},
    "log_level": "ERROR",
}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A finished run of two starts: two epochs, then a third."""
    work_dir = tmp_path_factory.mktemp("run")
    run({**CONFIG, "work_dir": str(work_dir)})
    longer = {
        **CONFIG,
        "work_dir": str(work_dir),
        "resume": True,
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
    }
    run(longer)
    return work_dir


@pytest.fixture
def finished(once, tmp_path):
    shutil.copytree(once, tmp_path / "wd")
    return tmp_path / "wd"


def records(work_dir):
    return sorted(
        work_dir.glob(f"*/{events.FILE}"), key=lambda file: json.loads(file.open().readline())["iter"]
    )


def test_a_finished_run_shows_no_difference(finished):
    text, code = report(finished)
    assert code == 0, text
    assert text.splitlines()[0] == f"Plan versus actual: {finished}, finished"
    assert text.splitlines()[2] == "  differences  0"


def test_starts_are_put_in_the_order_they_happened(finished):
    """Whatever a copy has done to the files' times, as long as they did not start in the same second."""
    first, second = records(finished)
    plan = second.parent / "plan.json"
    plan.write_text(plan.read_text().replace('"timestamp": "2', '"timestamp": "3'))
    os.utime(first, (2e9, 2e9))
    assert [segment.resumed for segment in read_segments(finished)] == [0, 10]


def test_older_runs_in_the_work_dir_are_left_out(finished):
    first, second = records(finished)
    shutil.copytree(first.parent, finished / "older")
    older = finished / "older" / "plan.json"
    older.write_text(older.read_text().replace('"timestamp": "2', '"timestamp": "1'))
    assert [segment.resumed for segment in read_segments(finished)] == [0, 10]
    shutil.rmtree(second.parent)
    assert [segment.resumed for segment in read_segments(finished)] == [0]


def altered(file, change):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_step_with_another_lr_is_a_difference(finished):
    def change(lines):
        steps = next(line for line in lines if line["event"] == "steps")
        steps["lr"] = [0, 0.3, events.unpacked(steps["lr"]).__len__()]

    altered(records(finished)[0], change)
    text, code = report(finished)
    assert code == 1
    assert "0.3" in text


def test_many_differences_are_counted_and_cut_short(finished):
    def change(lines):
        for line in lines:
            if line["event"] == "steps":
                line["samples"] = [0, 7, len(events.unpacked(line["samples"]))]

    for file in records(finished):
        altered(file, change)
    text, code = report(finished)
    assert code == 1
    number = int(text.splitlines()[2].split()[1])
    assert number >= 1
    assert len(text.splitlines()) <= 3 + 21


def test_what_never_started_or_has_no_plan_is_no_record(finished, tmp_path):
    for file in records(finished):
        altered(file, lambda lines: lines.clear())
    assert report(finished) == (
        f"flexcore: {finished}: no recorded run. Give the work_dir of `flexcore run`.",
        2,
    )
    (tmp_path / "empty").mkdir()
    assert report(tmp_path / "empty")[1] == 2


def test_records_that_cannot_be_read_are_told(finished):
    first, second = records(finished)
    first.write_text("gone\n" + first.read_text())
    assert report(finished) == (
        f"flexcore: {first}: line 1 is not an event; the record was changed after the run.",
        2,
    )
    first.write_text(second.read_text())
    plan = second.parent / "plan.json"
    plan.write_text("{}")
    text, code = report(finished)
    assert code == 2
    assert text.startswith(f"flexcore: config ({plan}): ")


def test_a_killed_run_is_not_finished(finished):
    first, second = records(finished)
    shutil.rmtree(second.parent)
    file = first.read_text().splitlines(keepends=True)
    stop = next(i for i, line in enumerate(file) if '"stop"' in line)
    first.write_text("".join(file[:stop]) + '{"event": "st')
    text, code = report(finished)
    assert text.splitlines()[0] == f"Plan versus actual: {finished}, not finished (killed)"
    assert code == 0, text
