"""Log rules against plain counting, and log lines of a resumed run against those of one that was left in peace."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import math
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexcore.components import Data
from flexcore.log_rules import LogRule
from shell.log_windows import Tally
from tests.ranks import run_alone
from tests.shell import toys

MEASURED = ("time", "data_time", "eta")
HERE = "tests.shell.test_log_windows"


def spread(values, scale=1):
    """A statistic of one's own: what mmengine registers in HistoryBuffer."""
    return scale * (max(values) - min(values))


class Logs:
    """A hook that logs a value of its own at some iterations, as a number and as a tensor."""

    def after_train_iter(self, run, **_):
        if run.iter % 2:
            run.log("odd", float(run.iter))
        run.log("square", torch.tensor(float(run.iter**2)))


NAIVE = {
    "mean": lambda values: sum(values) / len(values), "min": min, "max": max, "current": lambda values: values[-1],
}  # fmt: skip


def expected(rule, history, epochs):
    """The rule over the whole history; epochs: the epoch of each value."""
    if rule.window == "epoch":
        values = [value for value, epoch in zip(history, epochs, strict=True) if epoch == epochs[-1]]
    else:
        values = history if rule.window == "global" else history[-rule.window :]
    if rule.method == f"{HERE}:spread":
        return spread(values, 3)
    return (
        math.nan if any(map(math.isnan, values)) and rule.method != "current" else NAIVE[rule.method](values)
    )


def rule_of(i, method, window):
    kwargs = Data((("scale", 3),)) if ":" in method else Data(())
    window = 1 if method == "current" else 2 if ":" in method and isinstance(window, str) else window
    return LogRule(source="x", name=str(i), method=method, window=window, kwargs=kwargs)


rules = st.lists(
    st.tuples(st.sampled_from([*NAIVE, f"{HERE}:spread"]), st.integers(1, 9) | st.sampled_from(["epoch", "global"])),
    min_size=1, max_size=5,
).map(lambda drawn: tuple(rule_of(i, *one) for i, one in enumerate(drawn)))  # fmt: skip
numbers = st.floats(-100, 100, width=32) | st.sampled_from([math.nan, math.inf, -math.inf])
kinds = st.sampled_from([float, torch.tensor, lambda v: torch.tensor([v])])


@given(
    rules, st.lists(st.tuples(numbers, kinds), min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 29)
)
@settings(max_examples=150, deadline=None)
def test_statistics_are_those_of_plain_counting_across_a_save(rules, drawn, length, saved):
    """Numbers and tensors, epochs of any length, and a state that went through JSON at some point."""
    tally, history, epochs = Tally(rules), [], []
    for i, (value, kind) in enumerate(drawn):
        if i == saved:
            state = json.loads(json.dumps(tally.state_dict()))
            tally = Tally(rules)
            tally.load_state_dict(state)
        if i % length == 0:
            tally.new_epoch()
        tally.take({"x": kind(value), "other": 1.0})
        history.append(value)
        epochs.append(i // length)
        if i % 3 == 0:
            told = tally.told()
            assert list(told) == [rule.name for rule in rules]
            for rule in rules:
                assert told[rule.name] == pytest.approx(expected(rule, history, epochs), nan_ok=True)


def test_what_is_no_single_number_is_left_out():
    tally = Tally((rule_of(0, "mean", "global"),))
    for value in (torch.zeros(2), "text", None, [1]):
        tally.take({"x": value})
    assert (tally.told(), tally.unseen()) == ({}, ["x"])


def test_a_function_of_ones_own_must_be_there_and_take_the_rules_arguments(tmp_path):
    def told(**rule):
        cfg = toys.config(
            tmp_path / "w", log_processor=dict(custom_cfg=[dict(data_src="loss", window_size=3, **rule)])
        )
        with pytest.raises(Exception) as caught:
            toys.trained(cfg)
        assert not (tmp_path / "w").exists()
        return str(caught.value)

    assert told(method_name=f"{HERE}:sprad") == (
        f'log_processor.custom_cfg.0.method_name: "{HERE}" has no "sprad". Did you mean "spread"? [FK013]'
    )
    assert told(method_name=f"{HERE}:spread", scael=2) == (
        f"log_processor.custom_cfg.0: {HERE}:spread cannot be called so: got an unexpected keyword argument 'scael'. "
        'Did you mean "scale"? [FK013]'
    )


RULES = [
    dict(data_src="loss", log_name="loss_all", method_name="mean", window_size="global"),
    dict(data_src="loss", log_name="loss_epoch", method_name="mean", window_size="epoch"),
    dict(data_src="loss", log_name="loss_long", method_name="max", window_size=12),
    dict(data_src="loss", log_name="spread", method_name=f"{HERE}:spread", window_size=5, scale=2),
    dict(data_src="lr", log_name="lr_top", method_name="max", window_size="epoch"),
    dict(data_src="odd", method_name="mean", window_size="epoch"),
    dict(data_src="grad_norm", log_name="norm_mean", method_name="mean", window_size=20),
    dict(data_src="hits", log_name="best", method_name="max", window_size="global"),
]


def config(work_dir, **changes):
    return toys.config(
        work_dir, log_processor=dict(custom_cfg=RULES, window_size=6),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01), clip_grad=dict(max_norm=1.0)),
        default_hooks=dict(logger=dict(type="LoggerHook", interval=4)), **changes,
    )  # fmt: skip


def log_lines(work_dir):
    """(iteration, every value but measured times), over all starts."""
    return [
        (event["iter"], {name: value for name, value in event["values"].items() if name not in MEASURED})
        for event in toys.recorded(work_dir, "log")
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(left in peace, ended by a signal inside an epoch and resumed)."""
    whole, parted = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parted")
    logs = dict(type=f"{HERE}:Logs")
    run_alone(toys.trained, config(whole, custom_hooks=[logs, dict(type="tests.shell.toys:Losses")]))
    stop = dict(type="tests.shell.toys:SignalAt", at=[[14, signal.SIGTERM]])
    cfg = config(parted, custom_hooks=[logs, stop])
    assert run_alone(toys.trained, cfg)["reason"] == "preempted"
    assert run_alone(toys.trained, cfg)["reason"] == "done"
    return whole, parted


@pytest.mark.slow
def test_a_resumed_run_shows_what_an_uninterrupted_one_shows(runs):
    """Windows, rules and values of hooks go on where they were; only measured times differ."""
    whole, parted = runs
    assert log_lines(parted) == log_lines(whole)
    assert len(log_lines(whole)) == 6
    assert toys.differences(parted) == toys.differences(whole) == []


@pytest.mark.slow
def test_log_lines_are_those_of_plain_counting(runs):
    losses = [float(line) for line in (runs[0] / "losses.0").read_text().split()]
    for at, values in log_lines(runs[0]):
        seen, first = losses[:at], (at - 1) // 9 * 9
        assert values["loss"] == pytest.approx(sum(seen[-6:]) / len(seen[-6:]))
        assert values["loss_all"] == pytest.approx(sum(seen) / at)
        assert values["loss_epoch"] == pytest.approx(sum(seen[first:]) / (at - first))
        assert values["loss_long"] == max(seen[-12:])
        assert values["spread"] == pytest.approx(2 * (max(seen[-5:]) - min(seen[-5:])))
        odd = [i for i in range(first, at) if i % 2]
        assert values["odd"] == pytest.approx(sum(odd) / len(odd))
        assert values["lr_top"] == pytest.approx(0.01 * (1 + math.cos(math.pi * first / 27)) / 2)


def test_a_rule_whose_source_is_never_logged_is_told_of_once(tmp_path):
    rule = dict(data_src="lsos", method_name="mean")
    cfg = toys.config(
        tmp_path, log_processor=dict(custom_cfg=[rule, dict(data_src="hits", method_name="max")]),
        train_cfg=dict(by_epoch=True, max_epochs=2),
    )  # fmt: skip
    _, text = run_alone(toys.told, cfg)
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == [
        "WARNING log_processor.custom_cfg: nothing is logged as 'lsos'"
    ]
