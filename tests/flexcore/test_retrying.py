"""Pauses double up to the longest; whatever their number they are finite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.retrying import LONGEST, pause, retried_name


@pytest.mark.parametrize(
    ("first", "failures", "expected"),
    [
        (30.0, 1, 30.0),
        (30.0, 2, 60.0),
        (30.0, 7, 1920.0),
        (30.0, 8, 3600.0),
        (7200.0, 3, 7200.0),
        (0.001, 900, 3600.0),
    ],
)
def test_pauses(first, failures, expected):
    assert pause(first, failures) == expected


@given(st.floats(1e-6, 1e6), st.integers(1, 40))
def test_they_are_those_of_doubling_one_by_one(first, failures):
    naive = first
    for _ in range(failures - 1):
        naive = min(naive * 2, max(first, LONGEST))
    assert pause(first, failures) == pytest.approx(naive)


def test_names():
    assert retried_name(57) == "retried_iter_57"
