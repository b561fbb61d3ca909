"""What plan() puts together itself: names, hooks in order, what a mode and a smoke run leave out."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts
from flexcore.components import Component, Data
from flexcore.converting import parse
from flexcore.facts import HookFact
from flexcore.hooks import STAGES, Checkpoint
from flexcore.planning import planned_hooks
from flexcore.run_plan import Fresh, Names
from flexcore.strategies import Compile
from flexcore.timeline import SavePoints
from tests.flexcore.base import KNOWN, base, planned, said, told, validating
from tests.strategies import checkpoint

TESTS = {"test_dataloader": {"dataset": "pkg:D", "batch_size": 5}, "test_evaluator": "pkg:M", "test_cfg": {}}
WHOLE = {**validating(), **TESTS}


@pytest.mark.parametrize(("changes", "facts", "expected"), [
    ({}, {}, Names(experiment_name="base", work_dir="runs/base", timestamp=None, run_id=None)),
    ({"experiment_name": None}, {}, Names(experiment_name="experiment", work_dir="runs/base", timestamp=None, run_id=None)),
    ({"experiment_name": None, "work_dir": None}, {},
     Names(experiment_name="experiment", work_dir="work_dirs/experiment", timestamp=None, run_id=None)),
    ({"work_dir": None}, {}, Names(experiment_name="base", work_dir="work_dirs/base", timestamp=None, run_id=None)),
    ({"work_dir": None}, {"config_stem": "stem"},
     Names(experiment_name="base", work_dir="work_dirs/stem", timestamp=None, run_id=None)),
    ({"experiment_name": None, "work_dir": None}, {"config_stem": "stem"},
     Names(experiment_name="stem", work_dir="work_dirs/stem", timestamp=None, run_id=None)),
    ({"work_dir": "a/b//"}, {}, Names(experiment_name="base", work_dir="a/b", timestamp=None, run_id=None)),
    ({"work_dir": "X/"}, {}, Names(experiment_name="base", work_dir="X", timestamp=None, run_id=None)),
    ({"work_dir": "/"}, {}, Names(experiment_name="base", work_dir="/", timestamp=None, run_id=None)),
    ({}, {"started_at": "T", "entropy": 5},
     Names(experiment_name="base_T_156f1d", work_dir="runs/base", timestamp="T", run_id="156f1d")),
    ({"default_hooks": {"checkpoint": {"type": "CheckpointHook", "out_dir": "store"}}}, {},
     Names(experiment_name="base", work_dir="runs/base", timestamp=None, run_id=None, out_dir="store/base")),
])  # fmt: skip
def test_names(changes, facts, expected):
    seen = Facts(**facts)
    assert planned(seen, **changes).names == expected
    smoke = flexcore.plan(base(**changes), seen, smoke=True).names
    out_dir = None if expected.out_dir is None else expected.out_dir + "/smoke"
    assert smoke == evolve(expected, work_dir=expected.work_dir + "/smoke", out_dir=out_dir)


def test_the_run_id_is_six_digits_of_the_entropy():
    ids = {planned(Facts(entropy=entropy)).names.run_id for entropy in range(300)}
    assert len(ids) == 300
    assert all(len(one) == 6 and set(one) <= set("0123456789abcdef") for one in ids)
    assert any(one.startswith("0") for one in ids)


@pytest.mark.parametrize(("asked", "expected"), [
    (None, None), (False, None), (True, Compile()), ({"mode": "default"}, Compile(kwargs=Data((("mode", "default"),)))),
])  # fmt: skip
def test_compiling_is_a_switch_or_its_settings(asked, expected):
    assert planned(compile=asked).compile == expected


MODES = {"train": (True, True, False), "val": (False, True, False), "test": (False, False, True)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("smoke", [True, False])
def test_a_mode_has_its_parts_alone(mode, smoke):
    plan = flexcore.plan(WHOLE, KNOWN, mode=mode, smoke=smoke)
    trains, validates, tests = MODES[mode]
    assert (plan.mode, plan.smoke) == (mode, smoke)
    for part in (plan.train, plan.batching, plan.timeline, plan.saving):
        assert (part is not None) is trains
    assert bool(plan.optimizers) is trains
    assert (plan.validation is not None) is validates
    assert (plan.testing is not None) is (tests or smoke)
    for part in (plan.validation, plan.testing):
        assert part is None or part.loaders[0].max_batches == (1 if smoke else None)


def test_a_smoke_run_starts_fresh_and_saves_once():
    hook = {
        "type": "CheckpointHook",
        "interval": 2,
        "save_begin": 5,
        "save_last": False,
        "interval_minutes": 3,
    }
    config = {**WHOLE, "resume": True, "default_hooks": {"checkpoint": hook}}
    smoke, whole = (flexcore.plan(config, KNOWN, smoke=smoke) for smoke in (True, False))
    assert smoke.start == Fresh(because="a smoke run starts fresh")
    assert (smoke.saving.points, smoke.saving.every_seconds) == (SavePoints(interval=2, by_epoch=True), None)
    assert (whole.saving.points, whole.saving.every_seconds) == (
        SavePoints(interval=2, by_epoch=True, save_begin=5, save_last=False), 180.0,
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "missing", "text"), [
    ("train", ("train_cfg", "train_dataloader", "optim_wrapper"), "train"), ("val", (), "evaluate"), ("test", (), "evaluate"),
])  # fmt: skip
def test_a_mode_without_its_group_is_refused(mode, missing, text):
    config = {key: value for key, value in base().items() if key not in missing}
    expected = (
        f"{mode}_cfg: is missing, so there is nothing to {text}. "
        f"Add {mode}_dataloader, {mode}_cfg and the rest of its group. [FK021]"
    )
    assert told(config, mode=mode) == [expected]
    with pytest.raises(flexcore.ConfigError) as caught:
        flexcore.plan(config, KNOWN, mode=mode)
    assert str(caught.value) == expected


def test_there_is_a_model():
    problem = 'model: is missing. Add model=dict(type="pkg.module:Name"). [FK012]'
    assert told(base(model=None)) == [problem]
    assert all("model: is missing" not in text for text in told(base(model=5)))


def test_problems_come_in_the_order_of_the_keys_given():
    config = {"log_level": "LOUD", **base(), "compile": 5}
    assert [text.partition(":")[0] for text in told(config)] == ["log_level", "compile"]
    turned = {key: config[key] for key in reversed(config)}
    assert [text.partition(":")[0] for text in told(turned)] == ["compile", "log_level"]


def test_hooks_run_by_priority_and_tell_what_was_seen():
    custom = [{"type": "pkg:Late", "priority": 95}, {"type": "pkg:Own"}, {"type": "pkg:Unseen"}]
    facts = Facts(hooks=(
        HookFact(place=1, stages=("after_run", "before_run"), priority="VERY_HIGH", stateful=True),
        HookFact(place=0, stages=(), priority=3, stateful=False),
    ))  # fmt: skip
    plateau = {"type": "ReduceOnPlateauLR", "monitor": "acc"}
    config = parse(validating(custom_hooks=custom, param_scheduler=plateau))
    found = [(h.name, h.priority, h.place, h.stages, h.stateful, h.key) for h in planned_hooks(config, facts)]
    assert found == [
        ("RuntimeInfoHook", 10, "runtime_info", (), False, "RuntimeInfoHook"),
        ("Own", 10, 1, ("before_run", "after_run"), True, "pkg.Own"),
        ("IterTimerHook", 50, "timer", (), False, "IterTimerHook"),
        ("DistSamplerSeedHook", 50, "sampler_seed", ("before_train_epoch",), False, "DistSamplerSeedHook"),
        ("Unseen", 50, 2, None, None, "pkg.Unseen"),
        ("LoggerHook", 60, "logger", ("after_train_iter", "after_val_epoch", "after_test_epoch"), True, "LoggerHook"),
        ("ParamSchedulerHook", 70, "param_scheduler", ("before_train_iter", "after_val_epoch"), True, "ParamSchedulerHook"),
        ("CheckpointHook", 90, "checkpoint", Checkpoint.STAGES, True, "CheckpointHook"),
        ("Late", 95, 0, (), False, "pkg.Late"),
    ]  # fmt: skip
    still = planned_hooks(parse(base()), Facts())
    assert next(h.stages for h in still if h.place == "param_scheduler") == ("before_train_iter",)
    assert all(set(hook.stages) <= set(STAGES) for hook in still)


def test_a_config_is_planned_as_what_it_was_parsed_from():
    for facts in (Facts(), KNOWN):
        assert flexcore.plan(parse(WHOLE), facts) == flexcore.plan(WHOLE, facts)
    assert flexcore.plan(WHOLE, KNOWN).model == Component(type="pkg.models:Net", kwargs=Data((("width", 8),)))


def test_a_checkpoint_that_cannot_go_on_leaves_no_plan():
    config, facts = base(resume=True), evolve(KNOWN, checkpoints=(checkpoint(76),))
    text = (
        "resume: 'w/checkpoints/iter_76' has done 76 iterations and this run ends at 75. "
        "Train for longer, or start in another work_dir. [FC005]"
    )
    assert told(config, facts) == [text]
    with pytest.raises(flexcore.ConfigError) as caught:
        flexcore.plan(config, facts)
    assert str(caught.value) == text


def test_what_a_checkpoint_was_trained_with_is_held_against_the_plan():
    then = (("loss", '"y"'), ("data", "null"))
    facts = evolve(KNOWN, checkpoints=(checkpoint(50, trajectory=then),))
    (data, loss) = said(base(resume=True), facts)
    assert data.startswith("resume: 'w/checkpoints/iter_50' was trained with data null, this run has {")
    assert loss == (
        "resume: 'w/checkpoints/iter_50' was trained with loss \"y\", this run has null (trajectory-changing). "
        "Nothing to do if meant. [FC005]"
    )
    assert said(base(resume=True), evolve(KNOWN, checkpoints=(checkpoint(50),))) == []


def test_what_cannot_have_been_observed_is_told_after_what_is_no_config():
    assert [problem.path for problem in flexcore.lint([1], Facts(entropy=-1))] == [(), ("facts", "entropy")]


def test_a_model_is_shared_out_over_the_ranks():
    sharding = planned(
        evolve(KNOWN, world_size=4), strategy={"type": "FSDPStrategy", "shard_size": 2}
    ).sharding
    assert (sharding.shards, sharding.replicas) == (2, 2)
