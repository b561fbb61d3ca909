"""The record of a run: columns go in and come out, and a kill costs at most what a resume repeats."""

import json
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shell import appending, events
from shell.events import Recorder, read

VALUES = st.integers(-5, 10**9) | st.floats(allow_nan=False) | st.booleans()


@given(st.lists(VALUES))
def test_a_column_comes_back(values):
    assert events.unpacked(json.loads(json.dumps(events.packed(values)))) == values


@given(st.integers(2, 50))
def test_one_repeated_value_is_three_numbers(count):
    assert events.packed([0.1] * count) == [0, 0.1, count]


def write(directory, *, cut=0):
    with events.Recorder(directory) as recorder:
        recorder.event("start", iter=4)
        recorder.begin(4)
        for i in range(3):
            recorder.rates(None)(0.1 * i)
            recorder.samples.append(8)
        recorder.event("save", name="a")
        recorder.rates(None)(0.5)
        recorder.samples.append(7)
    file = directory / events.FILE
    if cut:
        file.write_bytes(file.read_bytes()[:-cut])
    return file


WRITTEN = [
    {"event": "start", "iter": 4},
    {"event": "steps", "first": 4, "lr": [3, 0.0, 0.1, 0.2], "samples": [0, 8, 3]},
    {"event": "save", "name": "a"},
    {"event": "steps", "first": 7, "lr": [0, 0.5, 1], "samples": [0, 7, 1]},
]


def test_steps_stand_before_the_event_that_follows_them(tmp_path):
    assert list(events.read(write(tmp_path))) == WRITTEN


@pytest.mark.parametrize("cut", [2, 3, 30, 55])
def test_a_last_line_cut_short_is_left_out(tmp_path, cut):
    assert list(events.read(write(tmp_path, cut=cut))) == WRITTEN[:3]


def test_a_missing_newline_costs_nothing(tmp_path):
    assert list(events.read(write(tmp_path, cut=1))) == WRITTEN


@pytest.mark.parametrize("damage", [b"{", b"3\n", b"[]\n", b"\xff\xfe\n", b"\n", b"{}\n"])
def test_damage_inside_is_told_by_its_line(tmp_path, damage):
    file = write(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + damage.removesuffix(b"\n") + b"\n" + b"".join(lines[1:]))
    with pytest.raises(events.DamagedRecord) as caught:
        list(events.read(file))
    assert str(caught.value) == f"{file}: line 2 is not an event; the record was changed after the run."


def test_events_reach_the_system_at_once_and_log_lines_within_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(events, "monotonic", lambda: now[0])
    file = tmp_path / events.FILE
    with events.Recorder(tmp_path) as recorder:
        recorder.event("start")
        assert len(file.read_text().splitlines()) == 1
        recorder.log(iter=1)
        assert len(file.read_text().splitlines()) == 1
        now[0] += 1.5
        recorder.log(iter=2)
        assert [event.get("iter") for event in events.read(file)] == [None, 1, 2]
        recorder.rates(None)(0.1)
        recorder.samples.append(1)
        recorder.hand_over()
        assert len(file.read_text().splitlines()) == 4


def test_other_ranks_record_nothing(tmp_path):
    with events.Recorder(None) as recorder:
        recorder.rates(None)(0.1)
        recorder.samples.append(1)
        recorder.event("start")
        recorder.log(iter=1)
        recorder.hand_over()
    assert recorder.lr == {None: []}
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_written_waits_and_is_whole_in_the_end(tmp_path):
    """Cut off in the middle of a line by a limit on its size, told once, and marked until the rest is written."""
    told, file = [], tmp_path / "events.jsonl"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Recorder(tmp_path) as recorder:
        recorder.complain_to(told.append)
        recorder.event("a", text="x" * 30)
        resource.setrlimit(resource.RLIMIT_FSIZE, (70, hard))
        try:
            recorder.event("b", text="y" * 30)
            recorder.event("c", text="z")
            assert file.stat().st_size == 70
            assert (tmp_path / "events.jsonl.incomplete").exists()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert told == [f"{file} cannot be written: File too large; its lines wait in memory"]
        recorder.event("d")
    assert [event["event"] for event in read(file)] == ["a", "b", "c", "d"]
    assert told[1:] == [f"{file} is written again, whole"]
    assert not (tmp_path / "events.jsonl.incomplete").exists()


def test_what_still_waits_at_the_end_is_counted_and_stays_marked(tmp_path):
    told, file = [], tmp_path / "events.jsonl"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(tmp_path)
    recorder.complain_to(told.append)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with recorder:
            recorder.event("a")
            recorder.event("b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert told[1:] == [f"{file}: its last 2 lines could not be written"]
    assert (tmp_path / "events.jsonl.incomplete").exists()


def test_more_than_memory_should_hold_is_lost_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(appending, "MOST_WAITING", 100)
    told = []
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Recorder(tmp_path) as recorder:
        recorder.complain_to(told.append)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        try:
            for number in range(20):
                recorder.event("a", number=number)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        recorder.event("b")
    numbers = [event.get("number") for event in read(tmp_path / "events.jsonl")]
    assert numbers == [0, 1, 2, 3, None]
    assert told[1:] == [f"{tmp_path}/events.jsonl is written again; lines are missing"]
    assert (tmp_path / "events.jsonl.incomplete").exists()
