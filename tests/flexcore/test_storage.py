"""What checkpoints will take is counted from shapes; too little room is told before anything is trained."""

import pytest
from attrs import evolve

import flexcore
from flexcore.facts import ParameterFact
from flexcore.problems import ConfigError
from flexcore.storage import BASE, PER_PARAMETER, PER_RANK, STEP, checkpoint_bytes, kept
from tests.flexcore.base import KNOWN, base, validating

PARAMETERS = (
    ParameterFact(name="a", shape=(30, 20)),
    ParameterFact(name="b", shape=(10,), requires_grad=False),
    ParameterFact(name="c", shape=(30, 20), alias="a"),
)
BUILT = evolve(KNOWN, parameters=PARAMETERS, model_bytes=610 * 4)
FIXED = BASE + 2 * PER_PARAMETER + 610 * 4


def made(facts=BUILT, optimizer="AdamW", **changes):
    return flexcore.plan(base(optim_wrapper={"optimizer": {"type": optimizer, "lr": 1e-3}}, **changes), facts)


def hook(**settings):
    return {"checkpoint": {"type": "CheckpointHook", **settings}}


@pytest.mark.parametrize(
    ("optimizer", "values"), [("AdamW", 1200), ("SGD", 0), ("Adafactor", 30 + 20), ("pkg:Mine", 1200)]
)
def test_a_checkpoint_is_its_model_its_optimizer_and_a_manifest(optimizer, values):
    assert checkpoint_bytes(made(optimizer=optimizer)) == FIXED + values * 4 + STEP + PER_RANK


def test_averages_count_once_more_and_weights_alone_are_all():
    only = made(default_hooks=hook(save_optimizer=False), custom_hooks=["EMAHook"])
    assert checkpoint_bytes(only) == FIXED + 610 * 4
    assert checkpoint_bytes(evolve(made(), saving=None)) is None
    for unknown in ("parameters", "model_bytes"):
        assert checkpoint_bytes(made(evolve(BUILT, **{unknown: None}))) is None


def test_narrow_numbers_take_narrow_states_and_a_model_without_parameters_none():
    half = made(evolve(BUILT, model_bytes=610 * 2))
    assert checkpoint_bytes(half) == FIXED - 610 * 2 + 1200 * 2 + STEP + PER_RANK
    buffers = made(evolve(BUILT, parameters=(PARAMETERS[1],), model_bytes=40))
    assert checkpoint_bytes(buffers) == BASE + PER_PARAMETER + 40 + PER_RANK


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 5), ({"interval": 2}, 3), ({"interval": 2, "save_last": False}, 2), ({"max_keep_ckpts": 2}, 2),
        ({"max_keep_ckpts": 9}, 5), ({"interval": -1}, 1), ({"save_best": ["acc", "loss"]}, 7),
        ({"max_keep_ckpts": 2, "interval_minutes": 1}, 4), ({"interval_minutes": 1}, 5),
        ({"by_epoch": False, "interval": 50}, 3),
    ],
)  # fmt: skip
def test_how_many_stand_at_once(settings, expected):
    config = validating(train_cfg={"by_epoch": True, "max_epochs": 5}, default_hooks=hook(**settings))
    assert kept(flexcore.plan(config, KNOWN)) == expected


def test_of_a_run_whose_length_is_not_known_the_best_alone_are_counted():
    iterations = {"by_epoch": False, "max_iters": 100, "val_interval": 10}
    config = validating(train_cfg=iterations, default_hooks=hook(save_best="acc"))
    plan = flexcore.plan(config, KNOWN)
    assert kept(plan) == 10 + 1
    assert kept(evolve(plan, timeline=None)) == 1


def test_room_for_less_than_one_is_refused():
    size = checkpoint_bytes(made())
    with pytest.raises(ConfigError) as caught:
        made(evolve(BUILT, free_disk=size - 1))
    assert [str(p) for p in caught.value.problems] == [
        "work_dir: runs/base has 32.9 KiB free, and one checkpoint takes about 32.9 KiB. Make room, or name another place. [FC017]"
    ]
    with pytest.raises(ConfigError, match=r"default_hooks\.checkpoint\.out_dir: big/base has 1 B free"):
        made(evolve(BUILT, free_disk=1), default_hooks=hook(out_dir="big"))


def test_room_for_fewer_than_are_kept_is_told():
    size = checkpoint_bytes(made())

    def told(free, **changes):
        return [str(p) for p in made(evolve(BUILT, free_disk=free), **changes).notices if p.code == "FC018"]

    assert told(4 * size, train_cfg={"by_epoch": True, "max_epochs": 3}) == []
    assert told(4 * size - 1, train_cfg={"by_epoch": True, "max_epochs": 3}) == [
        "work_dir: runs/base has 131 KiB free, and 4 more checkpoints of about 32.9 KiB, one of them being written, take 131 KiB. Make room, or keep fewer: max_keep_ckpts, interval. [FC018]"
    ]
    assert told(2 * size, default_hooks=hook(max_keep_ckpts=1)) == []
