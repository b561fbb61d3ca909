"""Facts that no machine can show are refused before anything rests on them, beside whatever is wrong with the config."""

import pytest
from attrs import evolve

import flexcore
from flexcore import ConfigError, Facts
from flexcore.checks import observed
from flexcore.facts import GroupFact, HookFact
from tests.flexcore.base import KNOWN, base, told
from tests.fuzz_inputs import FACTS

HOOK = HookFact(place=0, stages=("after_run",))


@pytest.fixture(autouse=True)
def _worked_out_anew():
    """What fits a field is worked out once a process; here in each test."""
    for kept in (observed._fields, observed._fits):
        kept.cache_clear()
    yield
    for kept in (observed._fields, observed._fits):
        kept.cache_clear()


OFF = {
    "world_size": (0, -1, 1.0, True, "2", 2**64), "train_samples": (-1, "x", 10**5000), "device_type": (3, ["cpu"]),
    "val_samples": (5, [5], (-5,), ("x",)), "environment": ({"RANK": "0"}, (("RANK", 0),), (("RANK",),)),
    "parameters": ("x", ({"name": "w"},), (evolve(FACTS["torchrun"].parameters[0], kind="x"),),
                   (evolve(FACTS["torchrun"].parameters[0], shape=(-1,)),)),
    "parameter_groups": (((("lr", 0.1),),), (GroupFact(values=(("lr", "x"),)),), (GroupFact(values=(("lr", True),)),)),
    "hooks": (7, (7,), *((evolve(HOOK, **wrong),) for wrong in (
        {"place": None}, {"place": -1}, {"place": 1.0}, {"priority": 1.5}, {"stages": ["a"]}, {"stages": (1,)}, {"stateful": 1}))),
    "checkpoints": ([],), "named_checkpoint": ("x",), "train_batch_size": (0,),
}  # fmt: skip


@pytest.mark.parametrize("name", OFF)
def test_what_cannot_have_been_observed_is_refused(name):
    for value in OFF[name]:
        with pytest.raises(ConfigError) as error:
            flexcore.plan(base(), evolve(KNOWN, **{name: value}))
        assert [(p.code, p.path) for p in error.value.problems] == [("FK024", ("facts", name))]


@pytest.mark.parametrize("name", FACTS)
def test_what_was_observed_is_not(name):
    assert not list(observed.observed(FACTS[name]))


def test_the_kinds_of_a_union_all_fit():
    hooks = (
        HOOK,
        evolve(HOOK, place="timer", priority="LOW"),
        evolve(HOOK, place=2**64 - 1, stages=(), priority=3),
    )
    values = (("lr", 0), ("momentum", -0.5))
    facts = evolve(
        KNOWN,
        hooks=hooks,
        parameter_groups=(GroupFact(values=values),),
        val_samples=(None, 0),
        environment=(),
    )
    assert not list(observed.observed(facts))


def test_the_message_names_field_kind_and_value():
    assert told(base(), Facts(world_size=0, device_type=3)) == [
        "facts.world_size: must be int | None of at least 1, got 0. Leave out what is unknown. [FK024]",
        "facts.device_type: must be str | None, got 3. Leave out what is unknown. [FK024]",
    ]
    assert told(base(), Facts(parameters="x", named_checkpoint=3)) == [
        "facts.parameters: must be tuple[ParameterFact, ...] | None, got 'x'. Leave out what is unknown. [FK024]",
        "facts.named_checkpoint: must be CheckpointFact | None, got 3. Leave out what is unknown. [FK024]",
    ]
    assert told(base(), "x") == ["facts: must be flexcore.Facts, got 'x'. Pass Facts(...). [FK024]"]


def test_it_is_said_beside_what_is_wrong_with_the_config():
    codes = [p.code for p in flexcore.lint(base(log_level="LOUD"), Facts(entropy=-1))]
    assert codes == ["FK011", "FR001", "FK024"] or codes == ["FK011", "FK024"]


def test_a_measured_scale_is_a_number_in_the_plan():
    """What JSON gives back is equal and of the same kind, so that digests agree."""
    wrapper = {
        "type": "AmpOptimWrapper",
        "dtype": "float16",
        "optimizer": {"type": "SGD", "lr": 0.1},
        "loss_scale": {"init_scale": 8},
    }
    plan = flexcore.plan(base(optim_wrapper=wrapper))
    assert type(plan.optimizers[0].precision.init_scale) is float
    assert flexcore.Plan.from_json(plan.to_json()).plan_digest == plan.plan_digest


def test_a_run_of_any_length_is_explained_in_bounded_time():
    """Schedules without a closed form are told as far as a walk is quick."""
    schedules = [{"type": "CosineAnnealingLR", "eta_min": 0.01}, {"type": "StepLR", "step_size": 100}]
    plan = flexcore.plan(
        base(train_cfg={"by_epoch": False, "max_iters": 10**15}, param_scheduler=schedules), KNOWN
    )
    (line,) = [line for line in str(plan).splitlines() if line.startswith("lr ")]
    assert line.endswith("@99999  then by the recursion")
    from flexcore.columns import side_by_side

    (row,) = [
        line.split() for line in side_by_side(plan, (1,)).splitlines() if line.startswith("lr at the end")
    ]
    assert row[-1] == "?"
