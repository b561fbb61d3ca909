"""custom_cfg read as rules, and each thing that can be wrong with one, whole."""

import pytest

from flexcore.components import Data, freeze
from flexcore.log_rules import LONGEST, LogRule, problems, rules


def rule(**more):
    return {"data_src": "loss", "method_name": "mean", **more}


def told(*asked, epochs=None):
    given = tuple(freeze(one) for one in asked)
    return [f"{p} {p.severity}" for p in problems(given, ("cfg",), epochs=epochs)]


def test_rules_are_read_with_what_they_leave_out():
    given = (
        rule(),
        rule(log_name="now", method_name="current"),
        rule(method_name="pkg:f", window_size=5, weight=2),
    )
    assert rules(tuple(freeze(one) for one in given)) == (
        LogRule(source="loss", name="loss", method="mean", window="global"),
        LogRule(source="loss", name="now", method="current", window=1),
        LogRule(source="loss", name="loss", method="pkg:f", window=5, kwargs=Data((("weight", 2),))),
    )
    assert rules(None) == rules(()) == ()
    assert told() == list(problems(None, (), epochs=None)) == []


@pytest.mark.parametrize(
    "asked",
    [
        rule(window_size=1), rule(window_size=LONGEST), rule(window_size="epoch"), rule(window_size="global"),
        rule(method_name="pkg:f", window_size=3, anything=1), {"data_src": "lr", "method_name": "mean"},
        {"data_src": "lr", "log_name": "lr", "method_name": "max"},
    ],
)  # fmt: skip
def test_what_fits(asked):
    assert told(asked) == []


KNOWN = "Known: data_src, log_name, method_name, window_size. [FK010] error"
WIDTH = 'must be at least 1 and at most 1,000,000, which is all that is kept, got {}. Correct the value, or use "global". [FK020] error'


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ['cfg.0: lacks the key "data_src". Add "data_src". [FK012] error',
              'cfg.0: lacks the key "method_name". Add "method_name". [FK012] error']),
        (rule(log_name=""), ["cfg.0.log_name: must be text, got ''. Correct the value. [FK011] error"]),
        (rule(data_src=3, method_name=""), ["cfg.0.data_src: must be text, got 3. Correct the value. [FK011] error",
                                            "cfg.0.method_name: must be text, got ''. Correct the value. [FK011] error"]),
        (rule(method_name="zzz"),
         ['cfg.0.method_name: \'zzz\' is no known statistic. Known: mean, min, max, current, or "pkg.module:name". [FK013] error']),
        (rule(method_name="maen"), ["cfg.0.method_name: 'maen' is no known statistic. Did you mean \"mean\"? [FK013] error"]),
        (rule(widnow_size=3, zzz=1), ['cfg.0.widnow_size: is no argument of mean. Did you mean "window_size"? [FK010] error',
                                      f"cfg.0.zzz: is no argument of mean. {KNOWN}"]),
        (rule(method_name="current", window_size=0),
         ["cfg.0.window_size: does nothing, as current is the last value alone. Remove it, or use another method_name. [FK019] error"]),
        (rule(window_size=0), [f"cfg.0.window_size: {WIDTH.format(0)}"]),
        (rule(window_size=LONGEST + 1), [f"cfg.0.window_size: {WIDTH.format(1000001)}"]),
        (rule(window_size=2.0),
         ['cfg.0.window_size: must be an integer, "epoch" or "global", got 2.0. Correct the value. [FK011] error']),
        (rule(method_name="pkg:f", window_size="epoch"),
         ["cfg.0.window_size: is epoch, and a function of one's own needs every value of it at once. Give a number of values. [FK020] error"]),
        (rule(method_name="pkg:f"),
         ["cfg.0.window_size: is global, and a function of one's own needs every value of it at once. Give a number of values. [FK020] error"]),
        ({"data_src": "loss", "log_name": "eta", "method_name": "mean"},
         ["cfg.0.log_name: 'eta' is what the run itself logs under that name. Use another log_name. [FK019] error"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_a_rule(asked, expected):
    assert told(asked) == expected


def test_a_name_is_written_once():
    """By whichever came first; a rule without log_name writes its source."""
    assert told(rule(), rule(log_name="a"), rule(data_src="a"), rule(log_name="loss"), rule()) == [
        "cfg.2.data_src: 'a' is written by entry 1 already. Give each entry a log_name of its own. [FK004] error",
        "cfg.3.log_name: 'loss' is written by entry 0 already. Give each entry a log_name of its own. [FK004] error",
        "cfg.4.data_src: 'loss' is written by entry 0 already. Give each entry a log_name of its own. [FK004] error",
    ]


def test_a_window_of_an_epoch_needs_epochs():
    assert told(rule(window_size="epoch"), epochs="there are none") == [
        'cfg.0.window_size: counts epochs, and there are none. Use a number, or "global". [FS003] error'
    ]
