"""What the built-in hooks may be set to: every finding, whole, and the values just inside."""

from math import inf

import pytest

from flexcore.checks.hooks import stays_inside
from tests.flexcore.base import KNOWN, base, said, validating


def hooked(kind, checkpoint=None, **settings):
    slots = {"checkpoint": {"type": "CheckpointHook", "priority": checkpoint}} if checkpoint else None
    return base(custom_hooks=[{"type": kind, **settings}], default_hooks=slots)


def guarded(dtype, **settings):
    wrapper = {"type": "AmpOptimWrapper", "dtype": dtype, "optimizer": {"type": "SGD", "lr": 0.1}}
    return {**hooked("NaNGuardHook", **settings), "optim_wrapper": wrapper}


CASES = {
    "no new weights": (hooked("EMAHook", momentum=0.0), KNOWN, [
        "custom_hooks.0.momentum: must be above 0 and below 1, got 0.0. It is the share of the new weights, such as 0.0002. [FK020]",
    ]),
    "an average after saving": (hooked("EMAHook", priority=90), KNOWN, [
        "custom_hooks.0.priority: is 90, which runs after CheckpointHook (90); it must run before. Leave it out (NORMAL, 50). [FK020]",
    ]),
    "an average of no priority": (hooked("EMAHook", priority="MIDDLE"), KNOWN, [
        "custom_hooks.0.priority: must be 0-100 or a priority's name, got 'MIDDLE'. Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]",
    ]),
    "an average before a saving of none": (hooked("EMAHook", checkpoint="MIDDLE"), KNOWN, [
        "default_hooks.checkpoint.priority: must be 0-100 or a priority's name, got 'MIDDLE'. Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]",
    ]),
    "an average as early as saving, registered before": (
        base(default_hooks={"timer": {"type": "EMAHook", "priority": 90}}), KNOWN, []
    ),
    "a watch over a validation that did not parse": (
        validating(custom_hooks=[{"type": "EarlyStoppingHook", "monitor": "acc"}], val_cfg=3), KNOWN, [
        "val_cfg: must be a mapping or None, got 3. Correct the value. [FK011]",
    ]
    ),
    "a guard that skips": (hooked("NaNGuardHook", action="skip", interval=2), KNOWN, [
        'custom_hooks.0.interval: is 2; action="skip" can only leave out updates it looks at. Set interval=1, or action="stop". [FK019]',
    ]),
    "a guard that looks at each": (hooked("NaNGuardHook", action="skip", interval=1), KNOWN, []),
    "a guard of gradients in bfloat16": (guarded("bfloat16", check="gradient"), KNOWN, []),
    "a guard of gradients in float16": (guarded("float16", check="gradient"), KNOWN, [
        "custom_hooks.0.check: is 'gradient'; with float16 the loss scale meets infinite gradients and skips them itself. Use check=\"loss\", or dtype=\"bfloat16\". [FK019]",
    ]),
    "a guard of the loss in float16": (guarded("float16", check="loss"), KNOWN, []),
    "emptied after epochs": (hooked("EmptyCacheHook"), KNOWN, []),
    "emptied never": (hooked("EmptyCacheHook", after_epoch=False), KNOWN, [
        "custom_hooks.0: empties nothing: every moment is off. Set one, or remove it. [FK019]",
    ]),
    "little work": (hooked("ThroughputHook", flops_per_sample=0.5, peak_flops=0.5), KNOWN, []),
    "no end of work": (hooked("ThroughputHook", flops_per_sample=inf, peak_flops=0), KNOWN, [
        "custom_hooks.0.flops_per_sample: must be a finite number > 0, got inf. Correct the value. [FK020]",
        "custom_hooks.0.peak_flops: must be a finite number > 0, got 0.0. Correct the value. [FK020]",
    ]),
    "nothing to say of the others": (hooked("DistSamplerSeedHook"), KNOWN, [
        "custom_hooks.0: is a second DistSamplerSeedHook; the run has one of each built-in. Set it in default_hooks under its own key. [FK019]",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_built_in_hooks(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected


@pytest.mark.parametrize(
    ("path", "inside"),
    [("trace.json", True), ("a/b", True), ("X", True), ("a" * 200, True), ("a" * 201, False), ("a\\b", False), ("./a", False),
     ("a/../b", False), ("/a", False), ("a//b", False), ("", False), ("a\nb", False)],
)  # fmt: skip
def test_what_stays_inside_a_directory(path, inside):
    assert stays_inside(path) is inside
