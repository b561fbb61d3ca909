"""Every case recorded from mmengine is checked by some test, and none was lost from the files."""

from collections import Counter

from tests.oracles import RECORDED, claims, every_case


def test_every_recorded_case_is_there():
    assert Counter(number for number, _ in every_case()) == RECORDED
    assert len(set(every_case())) == sum(RECORDED.values())


def test_every_recorded_case_is_checked():
    assert set(claims()) == set(every_case())
