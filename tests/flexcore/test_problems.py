"""How a problem is said."""

import pytest

from flexcore.problems import ConfigError, Problem, did_you_mean, dotted, located, shown, usable

ODD = Problem(code="FK010", path=("a", 0, "b"), message="is odd.", remedy="Mend it.")


def test_a_problem_names_its_place_value_remedy_and_code():
    assert str(ODD) == "a.0.b: is odd. Mend it. [FK010]"
    assert str(located(ODD, "f.py:3")) == "a.0.b (f.py:3): is odd. Mend it. [FK010]"
    top = Problem(code="FK010", path=(), message="is odd.", remedy="Mend it.")
    assert str(located(top, "f.py")) == "config (f.py): is odd. Mend it. [FK010]"
    assert located(ODD, None) is ODD
    error = ConfigError(iter([ODD, top]))
    assert error.problems == (ODD, top)
    assert str(error) == "a.0.b: is odd. Mend it. [FK010]\nconfig: is odd. Mend it. [FK010]"
    assert error.args == ((ODD, top),)
    assert dotted(("val", 0, "x")) == "val.0.x"


@pytest.mark.parametrize(("wrong", "candidates", "said"), [
    ("LR", ["lr"], ' Did you mean "lr"?'), ("lr", ["LR"], ' Did you mean "LR"?'), ("lr", [], ""),
    ("momentun", ["lr", "momentum", "moments"], ' Did you mean "momentum"?'), ("abcde", ["abcxy"], ' Did you mean "abcxy"?'),
    ("abcd", ["abxy"], ""), ("z" * 200 + "momentum", ["momentum"], ""), ("x" * 99, ["x" * 80], f' Did you mean "{"x" * 80}"?'),
    ("x" * 36 + "y" * 44 + "z", ["x" * 36 + "w" * 4], f' Did you mean "{"x" * 36}wwww"?'),
    ("x" * 36 + "y" * 44, ["x" * 36 + "w" * 5], ""),
])  # fmt: skip
def test_the_nearest_name_is_suggested_if_near_enough(wrong, candidates, said):
    assert did_you_mean(wrong, candidates) == said


class Rude:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(("value", "limit", "text"), [
    ("x", 60, "'x'"), ("x" * 58, 60, f"'{'x' * 58}'"), ("x" * 59, 60, f"'{'x' * 56}..."), ([1, 2, 3], 5, "[1..."),
    (Rude(), 60, "a Rude too large to print"), ([10**5000], 60, "a list too large to print"),
    ("ä", 60, "'ä'"), ("\ud800", 60, r"'\ud800'"), ("\n", 60, r"'\n'"),
])  # fmt: skip
def test_a_value_is_shown_short_and_printable(value, limit, text):
    assert shown(value, limit) == text
    assert len(text) <= limit


def test_what_cannot_be_printed_is_escaped():
    class Bell:
        def __repr__(self):
            return "a\x07\u2028ä"

    assert shown(Bell()) == "a\x07\\u2028\\xe4"


@pytest.mark.parametrize(("text", "can_be"), [
    ("a", True), ("ä b", True), ("", False), (" \t", False), ("a\0b", False), ("a\ud800", False),
])  # fmt: skip
def test_which_texts_can_name_a_file(text, can_be):
    assert usable(text) is can_be
