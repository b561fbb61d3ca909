"""Stages, priorities, state keys and the order of hooks, by hand."""

import pytest

from flexcore.components import Component
from flexcore.hooks import (
    BUILTIN_HOOKS,
    DEFAULT_SLOTS,
    EMA,
    PRIORITIES,
    STAGES,
    Checkpoint,
    EarlyStopping,
    EmptyCache,
    HookSlot,
    IterTimer,
    Logger,
    UserHook,
    hook_name,
    merged,
    priority_of,
    stages_of,
    state_keys,
    valid_priority,
)

MINE = UserHook(component=Component(type="pkg.hooks:Mine"))
LOW = UserHook(component=Component(type="pkg.hooks.Mine"), priority="LOW")


def test_state_is_filed_by_type_and_number():
    assert state_keys([MINE, Logger(), LOW, Logger(), MINE, EMA()]) == (
        "pkg.hooks.Mine", "LoggerHook", "pkg.hooks.Mine#2", "LoggerHook#2", "pkg.hooks.Mine#3", "EMAHook",
    )  # fmt: skip
    assert state_keys([]) == ()


def test_a_default_is_replaced_in_its_place_removed_or_added_to():
    names = list(DEFAULT_SLOTS)
    assert merged([], []) == tuple(DEFAULT_SLOTS.items())
    slots = [
        HookSlot(key="mine", hook=MINE),
        HookSlot(key="timer", hook=None),
        HookSlot(key="logger", hook=Logger(interval=3)),
    ]
    found = merged(slots, [LOW, EMA()])
    assert [place for place, _ in found] == [*(n for n in names if n != "timer"), "mine", 0, 1]
    assert dict(found) == {
        **{name: hook for name, hook in DEFAULT_SLOTS.items() if name != "timer"},
        "logger": Logger(interval=3), "mine": MINE, 0: LOW, 1: EMA(),
    }  # fmt: skip


@pytest.mark.parametrize(("hook", "own", "expected"), [
    (MINE, None, 50), (MINE, "HIGH", 30), (MINE, 0, 0), (LOW, "HIGH", 70), (LOW, None, 70),
    (UserHook(component=Component(type="a:B"), priority=0), 33, 0), (Checkpoint(), None, 90), (IterTimer(), None, 50),
    (Checkpoint(priority="VERY_HIGH"), None, 10), (EMA(priority=45), None, 45),
])  # fmt: skip
def test_a_priority_is_ones_own_else_the_classs_else_normal(hook, own, expected):
    assert priority_of(hook, own) == expected


@pytest.mark.parametrize(("priority", "valid"), [
    (None, True), (0, True), (100, True), (-1, False), (101, False), ("NORMAL", True), ("normal", False), ("", False),
    *((name, True) for name in PRIORITIES),
])  # fmt: skip
def test_a_priority_is_a_known_name_or_up_to_a_hundred(priority, valid):
    assert valid_priority(priority) is valid


def test_a_hook_is_called_by_its_class():
    assert (hook_name(MINE), hook_name(LOW), hook_name(Logger())) == ("Mine", "Mine", "LoggerHook")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("epoch", [True, False])
@pytest.mark.parametrize("iteration", [True, False])
def test_an_emptied_cache_listens_where_it_is_asked_to(before, epoch, iteration):
    kinds = ("train", "val", "test")
    expected = {
        *(f"before_{kind}_epoch" for kind in kinds if before), *(f"after_{kind}_epoch" for kind in kinds if epoch),
        *(f"after_{kind}_iter" for kind in kinds if iteration),
    }  # fmt: skip
    found = stages_of(EmptyCache(before_epoch=before, after_epoch=epoch, after_iter=iteration))
    assert set(found) == expected
    assert len(found) == len(expected)


def test_the_others_listen_to_their_stages():
    for kind in BUILTIN_HOOKS:
        if kind is not EmptyCache:
            hook = kind(monitor="acc") if kind is EarlyStopping else kind()
            assert stages_of(hook) == kind.STAGES
            assert set(kind.STAGES) <= set(STAGES)
