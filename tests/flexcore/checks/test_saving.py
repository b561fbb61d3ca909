"""Hooks' places and priorities, and what a CheckpointHook may be set to: every finding, whole, and the values just inside."""

from math import inf

import pytest
from attrs import evolve

from flexcore.facts import HookFact
from tests.flexcore.base import KNOWN, base, said, validating


def saving(**settings):
    return base(default_hooks={"checkpoint": {"type": "CheckpointHook", **settings}})


def template(text):
    return saving(filename_tmpl=text)


def best(*names, **more):
    return validating(
        default_hooks={"checkpoint": {"type": "CheckpointHook", "save_best": list(names), **more}}
    )


def beside(work_dir):
    return {**saving(out_dir="big"), "work_dir": work_dir}


CASES = {
    "every value": (base(default_hooks={"logger": {"type": "LoggerHook", "interval": 1}}), KNOWN, []),
    "a second logger under a key of its own": (base(default_hooks={"mine": {"type": "LoggerHook"}}), KNOWN, [
        "default_hooks.mine: is a second LoggerHook; the run has one of each built-in. Set it in default_hooks under its own key. [FK019]",
    ]),
    "a class of no priority under a key": (
        base(default_hooks={"mine": {"type": "pkg:H"}}), evolve(KNOWN, hooks=(HookFact(place="mine", stages=(), priority=101),)), [
        "default_hooks.mine: has a class of priority 101; it must be 0-100 or a priority's name. Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]",
    ]
    ),
    "keeping fewer than none": (saving(max_keep_ckpts=-2), KNOWN, [
        "default_hooks.checkpoint.max_keep_ckpts: must be -1 (all) or at least 1, got -2. Correct the value. [FK020]",
    ]),
    "keeping all": (saving(max_keep_ckpts=-1), KNOWN, []),
    "half a minute": (saving(interval_minutes=0.5), KNOWN, []),
    "never by time": (saving(interval_minutes=inf), KNOWN, [
        "default_hooks.checkpoint.interval_minutes: must be a finite number > 0, got inf. Correct the value. [FK020]",
    ]),
    "never again": (saving(retry_minutes=0.0), KNOWN, [
        "default_hooks.checkpoint.retry_minutes: must be a finite number > 0, got 0.0. Correct the value. [FK020]",
    ]),
    "not again": (saving(retry_minutes=None), KNOWN, []),
    "no interval, no last": (saving(interval=0, save_last=False), KNOWN, [
        "default_hooks.checkpoint: saves nothing: no interval, no last, no best. Set interval or save_last=True. [FC006]",
    ]),
    "an interval, no last": (saving(interval=1, save_last=False), KNOWN, []),
    "the best alone": (best("acc", interval=-1, save_last=False), KNOWN, []),
    "published": (saving(published_keys=["zzz", "metta", "meta"], save_optimizer=False), KNOWN, [
        "default_hooks.checkpoint.published_keys: 'zzz' is nothing a checkpoint holds. Known: state_dict, model, optimizer, hooks, meta. [FK020]",
        "default_hooks.checkpoint.published_keys: 'metta' is nothing a checkpoint holds. Did you mean \"meta\"? [FK020]",
    ]),
    "an optimizer that is not saved": (saving(published_keys="optimizer", save_optimizer=False), KNOWN, [
        "default_hooks.checkpoint.published_keys: names the optimizer, which save_optimizer=False leaves out. Set save_optimizer=True, or leave it out. [FK019]",
    ]),
    "an optimizer that is": (saving(published_keys="optimizer"), KNOWN, []),
    "beside the root": (beside("/"), KNOWN, [
        "default_hooks.checkpoint.out_dir: takes the last part of work_dir, and '/' ends in none. Write work_dir with a name at its end. [FC010]",
    ]),
    "beside here": (beside("runs/."), KNOWN, [
        "default_hooks.checkpoint.out_dir: takes the last part of work_dir, and 'runs/.' ends in none. Write work_dir with a name at its end. [FC010]",
    ]),
    "two counters": (template("{}_{}"), KNOWN, [
        "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got '{}_{}'. Write, for example, \"epoch_{}\". [FC004]",
    ]),
    "a number padded": (template("X{0:06d}"), KNOWN, []),
    "a counter of another kind": (template("{!r}"), KNOWN, [
        "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got '{!r}'. Write, for example, \"epoch_{}\". [FC004]",
    ]),
    "a name that signals have": (template("stopped_iter_{}"), KNOWN, [
        "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got 'stopped_iter_{}'. Write, for example, \"epoch_{}\". [FC004]",
    ]),
    "a name with a separator": (template("a\\{}"), KNOWN, [
        "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got 'a\\\\{}'. Write, for example, \"epoch_{}\". [FC004]",
    ]),
    "a name of 200 characters": (template("a" * 181 + "{}"), KNOWN, []),
    "a name of 201": (template("a" * 182 + "{}"), KNOWN, [
        "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.... Write, for example, \"epoch_{}\". [FC004]",
    ]),
    "a metric twice, after another": (best("acc", "loss", "loss"), KNOWN, [
        "default_hooks.checkpoint.save_best: names 'loss' twice. Name each metric once. [FC002]",
    ]),
    "rules": (best("acc", "loss", rule=["greater", "less"]), KNOWN, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_saving(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
