"""A checkpoint's state finds its owners again: hooks by their type, wherever they are registered."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json

from tests.ranks import run_alone
from tests.shell import toys

COUNTING, TALLYING = (dict(type=f"tests.shell.toys:{name}") for name in ("Counting", "Tallying"))


def counted(work_dir, name):
    return json.loads((work_dir / f"{name}.0").read_text())


def trained(work_dir, hooks, epochs):
    cfg = toys.config(work_dir, custom_hooks=hooks, train_cfg=dict(by_epoch=True, max_epochs=epochs))
    return run_alone(toys.noticed, cfg)


def test_reordered_hooks_keep_their_own_state(tmp_path):
    """Two types change places, one is spelt otherwise and moves to default_hooks: each goes on with its own."""
    trained(tmp_path, [COUNTING, TALLYING], 1)
    moved = dict(logger=dict(type="LoggerHook", interval=4), mine=dict(type="tests.shell.toys.Counting"))
    cfg = toys.config(tmp_path, custom_hooks=[TALLYING], default_hooks=moved,
                      train_cfg=dict(by_epoch=True, max_epochs=2))  # fmt: skip
    assert not [told for told in run_alone(toys.noticed, cfg) if "FC01" in told]
    assert counted(tmp_path, "counted") == [18, sum(range(18))]
    assert counted(tmp_path, "tallied") == [180, 10 * sum(range(18))]


def test_two_hooks_of_one_type_are_told_apart_by_their_order(tmp_path):
    trained(tmp_path, [COUNTING], 1)
    trained(tmp_path, [COUNTING, COUNTING], 2)
    manifest = json.loads((tmp_path / "checkpoints" / "epoch_2" / "manifest.json").read_text())
    hooks = manifest["state"]["hooks"]
    first, second = hooks["tests.shell.toys.Counting"], hooks["tests.shell.toys.Counting#2"]
    assert (first["seen"], second["seen"]) == (18, 9)


def test_a_hook_that_is_gone_and_one_that_is_new_are_told(tmp_path):
    """The plan of the run that resumes says both, and the new one starts from nothing."""
    trained(tmp_path, [COUNTING], 1)
    told = trained(tmp_path, [TALLYING], 2)
    path = f"'{tmp_path}/checkpoints/epoch_1'"
    path = path if len(path) <= 60 else path[:57] + "..."
    assert [text for text in told if "FC01" in text] == [
        (
            f"custom_hooks: has no tests.shell.toys.Counting, whose state {path} holds; it is left behind. "
            "Register the hook again, or nothing if meant. [FC011]"
        ),
        (
            f"custom_hooks.0: is tests.shell.toys.Tallying, of which {path} has no state; it starts anew. "
            "Nothing to do if meant. [FC012]"
        ),
    ]
    assert counted(tmp_path, "tallied") == [90, 10 * sum(range(9, 18))]
