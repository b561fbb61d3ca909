"""One full plan, compared whole; `python -m tests.flexcore.test_golden` writes the files anew after a wanted change."""

import json
from pathlib import Path

from attrs import evolve

import flexcore
from flexcore import Facts, GroupFact, HookFact
from tests.flexcore.base import DIGITS

GOLDEN = Path(__file__).parent / "golden"
FACTS = Facts(
    environment=(("RANK", "0"), ("WORLD_SIZE", "2")), world_size=2, local_world_size=2, device_type="cpu",
    train_samples=1437, val_samples=(360, 360), entropy=12345, started_at="20260102_030405", config_stem="digits",
    parameter_groups=(GroupFact(values=(("lr", 0.1), ("momentum", 0.9))),), checkpoints=(),
    hooks=(HookFact(place=0, stages=("before_run", "after_train_iter"), priority="VERY_LOW"),),
)  # fmt: skip


def written() -> dict[str, str]:
    full, bare = flexcore.plan(DIGITS, FACTS), flexcore.plan(DIGITS)
    smoke = flexcore.plan(DIGITS, evolve(FACTS, world_size=None), smoke=True)
    return {
        "digits.txt": flexcore.explain(full),
        "digits.json": full.to_json(indent=1) + "\n",
        "digits_unknown.txt": flexcore.explain(bare),
        "digits_smoke.txt": flexcore.explain(smoke),
    }  # fmt: skip


def test_the_digits_plan_is_the_one_checked_in():
    for name, text in written().items():
        assert text == (GOLDEN / name).read_text(), name


def test_the_checked_in_json_is_a_plan():
    plan = flexcore.Plan.from_json((GOLDEN / "digits.json").read_text())
    assert plan == flexcore.plan(DIGITS, FACTS)
    assert json.loads(plan.to_json())["kind"] == "flexcore.plan"


if __name__ == "__main__":
    for name, text in written().items():
        (GOLDEN / name).write_text(text)
