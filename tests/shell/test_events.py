"""The record of a run: columns go in and come out, and a kill costs at most what a resume repeats."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shell import events

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
