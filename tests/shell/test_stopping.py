"""Signals become a reason, and the ranks agree on it at the same step for under 1% of their time."""

import os
import signal
import sys
import threading
import time

import pytest
from attrs import field, frozen

from shell.processes import Group, joined
from shell.ranks import Rank
from shell.stopping import SEVERITY, StopAgreement, StopSignals, interval, severest
from tests.ranks import run_ranks, start_alone

CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.mark.parametrize(
    ("signum", "reason"),
    [(signal.SIGTERM, "preempted"), (signal.SIGUSR1, "preempted"), (signal.SIGINT, "interrupted")],
)
def test_the_first_signal_is_the_reason_and_former_handlers_come_back(signum, reason):
    before = [signal.getsignal(one) for one in CAUGHT]
    with StopSignals() as signals:
        assert signals.installed
        assert signals.reason is None
        os.kill(os.getpid(), signum)
        assert signals.reason == reason
        os.kill(os.getpid(), signum)  # its echo
        assert signals.reason == reason
    assert [signal.getsignal(one) for one in CAUGHT] == before


def hears(first, second, pause):
    with StopSignals():
        os.kill(os.getpid(), first)
        time.sleep(pause)
        os.kill(os.getpid(), second)
    sys.exit(0)


@pytest.mark.parametrize(
    ("first", "second", "pause", "code"),
    [
        (signal.SIGINT, signal.SIGINT, 0.4, 130),
        (signal.SIGINT, signal.SIGTERM, 0.0, 143),
        (signal.SIGTERM, signal.SIGTERM, 0.0, 0),
    ],
)
def test_a_second_signal_ends_at_once_but_an_echo_does_not(first, second, pause, code):
    assert start_alone(hears, first, second, pause).wait() == [code]


def test_off_the_main_thread_signals_stay_as_they_were():
    seen = []

    def inside():
        with StopSignals() as signals:
            seen.append((signals.installed, signals.reason, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, None, before)]


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        (0.0, 1),
        (float("nan"), 1),
        (float("inf"), 1),
        (-1.0, 1),
        (10.0, 1),
        (0.02, 1),
        (0.01, 2),
        (0.003, 7),
        (2e-5, 1000),
        (1e-9, 1000),
    ],
)
def test_agreeing_costs_under_a_percent(seconds, steps):
    assert interval(seconds) == steps
    if 2e-5 <= seconds < float("inf"):
        assert 200e-6 <= 0.01 * steps * seconds * 1.0001


def test_the_most_severe_reason_wins_in_whatever_order():
    assert severest(None, None) is None
    assert severest(None, "user text") == "requested"
    assert severest("time_limit", "early stop") == "time_limit"
    assert severest("preempted", "interrupted") == severest("interrupted", "preempted") == "preempted"
    assert severest("early_stopping: acc is no better", "enough: early_stopping") == "early_stopping"
    assert severest("preempted", "nonfinite: iteration 3") == "nonfinite"
    assert sorted(SEVERITY, key=SEVERITY.get) == [
        "requested", "early_stopping", "time_limit", "interrupted", "preempted", "nonfinite",
    ]  # fmt: skip


def test_alone_a_signal_or_a_wish_is_agreed_at_once():
    with StopSignals() as signals:
        agreement = StopAgreement(Group(), signals)
        assert agreement.next_check == 0
        assert agreement.agreed(1, 0.5) is None
        os.kill(os.getpid(), signal.SIGINT)
        assert agreement.agreed(2, 0.5, "early stop") == "interrupted"
        assert agreement.agreed(3, 0.5) == "interrupted"
    assert StopAgreement(Group(), StopSignals()).agreed(1, 0.5, "enough") == "requested"


@frozen(kw_only=True)
class Recorded(Group):
    """Rank 0 of two, and the other one's lines."""

    other: tuple[float, ...] = (0, 0.0)
    heard: list = field(factory=list)

    def max(self, values):
        self.heard.append(list(values))
        return [max(pair) for pair in zip(values, self.other, strict=True)]


def test_the_slowest_rank_sets_the_next_check_and_only_checks_communicate():
    group = Recorded(rank=Rank(world_size=2), other=(0, 0.002))
    agreement = StopAgreement(group, StopSignals())
    assert agreement.next_check == 1
    checks = [
        step for step in range(1, 25) if agreement.agreed(step, 0.001) or agreement.next_check == step + 10
    ]
    assert checks == [1, 11, 21]
    assert group.heard == [[0, 0.001]] * 3


def test_a_wish_between_checks_is_kept_for_the_next():
    group = Recorded(rank=Rank(world_size=2), other=(0, 0.002))
    agreement = StopAgreement(group, StopSignals())
    wishes = {4: "enough"}
    agreed = [agreement.agreed(step, 0.001, wishes.get(step)) for step in range(1, 13)]
    assert agreed == [None] * 10 + ["requested"] * 2
    assert len(group.heard) == 2


def test_another_ranks_reason_is_this_ones_and_force_asks_at_once():
    group = Recorded(rank=Rank(world_size=2), other=(SEVERITY["preempted"], 1.0))
    agreement = StopAgreement(group, StopSignals())
    agreement.next_check = 100
    assert agreement.agreed(5, 0.1, "enough") is None
    assert agreement.agreed(6, 0.1, force=True) == "preempted"


def test_a_checkpoint_that_is_due_by_one_ranks_clock_is_so_for_all_at_the_next_check():
    """And for the one call alone; without such a plan nothing of it goes round."""
    group = Recorded(rank=Rank(world_size=2), other=(0, 0.002, 0.0))
    agreement = StopAgreement(group, StopSignals())
    agreed = []
    for step in range(1, 13):
        agreement.agreed(step, 0.001, due=step > 3)
        agreed.append(agreement.save)
    assert agreed == [False] * 10 + [True, False]
    alone = StopAgreement(Group(), StopSignals())
    assert (alone.agreed(1, 0.1, due=True), alone.save) == (None, True)
    assert (alone.agreed(2, 0.1, due=False), alone.save) == (None, False)


def trains(rank):
    with StopSignals() as signals, joined("pytorch", "gloo", 30) as group:
        agreement = StopAgreement(group, signals)
        for step in range(1, 400):
            if (step, rank) == (20, 1):
                os.kill(os.getpid(), signal.SIGUSR1)
            if step >= agreement.next_check and agreement.agreed(step, 0.004 + 0.001 * rank):
                break
        return step, agreement.reason


def test_ranks_stop_after_the_same_step_for_the_same_reason():
    """The signal reaches rank 1 alone, at its step 20; checks are at 1, 5, 9, ..."""
    assert run_ranks(2, trains) == [(21, "preempted")] * 2
