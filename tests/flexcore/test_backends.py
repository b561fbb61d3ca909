"""DeepSpeed is told everything the plan decides, in its own keys, and nothing is left open; the expected is written by hand."""

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts, backends
from flexcore.components import Component
from flexcore.config import AmpOptim, ClipGrad, PlainOptim
from flexcore.converting import dump, parse
from flexcore.plan_training import Precision
from tests.flexcore.base import KNOWN, base, planned

TWO = evolve(KNOWN, world_size=2, supports_fp16=True)
PLAIN = {
    "train_batch_size": 8, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1,
    "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}, "bf16": {"enabled": False}, "fp16": {"enabled": False},
    "torch_autocast": {"enabled": False}, "steps_per_print": 10**13, "timers": {"throughput": {"enabled": False}},
    "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
}  # fmt: skip


def native(settings, facts=TWO, wrapper=None, **changes):
    wrapper = {"optimizer": {"type": "AdamW", "lr": 0.1}, **(wrapper or {})}
    strategy = {"type": "DeepSpeedStrategy", **settings}
    return backends.native(planned(facts, strategy=strategy, optim_wrapper=wrapper, **changes))


def test_what_nobody_asked_for_is_written_as_off():
    """DeepSpeed would clip at 1.0 where nothing is written."""
    assert native({}) == PLAIN


def test_the_batch_identity_is_the_plans():
    three = native({}, wrapper={"accumulative_counts": 3})
    assert (three["train_batch_size"], three["gradient_accumulation_steps"]) == (24, 3)
    whole = native({}, global_batch_size=32)
    assert (
        whole["train_batch_size"],
        whole["train_micro_batch_size_per_gpu"],
        whole["gradient_accumulation_steps"],
    ) == (32, 4, 4)


@pytest.mark.parametrize(
    ("settings", "wrapper", "changed"),
    [
        ({"gradient_clipping": 0.5}, {}, {"gradient_clipping": 0.5}),
        ({"config": {"gradient_clipping": 2}}, {}, {"gradient_clipping": 2.0}),
        ({}, {"clip_grad": {"max_norm": 0.25}}, {"gradient_clipping": 0.25}),
        ({"gradient_clipping": "auto"}, {"clip_grad": {"max_norm": 0.25}}, {"gradient_clipping": 0.25}),
        ({"gradient_clipping": 0.25}, {"clip_grad": {"max_norm": 0.25}}, {"gradient_clipping": 0.25}),
        ({"gradient_clipping": 0.0}, {}, {}),
        ({"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}, {}, {
            "zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}),
        ({"zero_optimization": {"stage": 1}, "bf16": {"enabled": "auto"}}, {"type": "AmpOptimWrapper", "dtype": "bfloat16"}, {
            "zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}),
        ({"bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}, {}, {}),
        ({"config": {"zero_optimization": {"stage": 2}, "fp16": {"enabled": True, "loss_scale": 128}}}, {}, {
            "zero_optimization": {"stage": 2}, "fp16": {"enabled": True, "loss_scale": 128}}),
        ({}, {"type": "AmpOptimWrapper", "dtype": "bfloat16"}, {
            "torch_autocast": {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}}),
        ({"zero_optimization": {"overlap_comm": False}}, {}, {"zero_optimization": {"stage": 0, "overlap_comm": False}}),
        ({"steps_per_print": 5, "config": {"timers": {"throughput": {"enabled": True}}, "zero_force_ds_cpu_optimizer": True}}, {}, {
            "steps_per_print": 5, "timers": {"throughput": {"enabled": True}}, "zero_force_ds_cpu_optimizer": True}),
        ({"bf16": {"enabled": True, "immediate_grad_update": True}, "zero_optimization": {"stage": 1}}, {}, {
            "bf16": {"enabled": True, "immediate_grad_update": True}, "zero_optimization": {"stage": 1}}),
        ({}, {"type": "AmpOptimWrapper"}, {
            "torch_autocast": {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}}),
        ({"config": {"bf16": None, "timers": None, "zero_optimization": None, "steps_per_print": None}}, {}, {}),
        ({"zero_optimization": {"stage": None, "overlap_comm": None}, "fp16": {"enabled": None}}, {}, {}),
        ({"activation_checkpointing": {"profile": True}, "config": {"activation_checkpointing": {"profile": True}}}, {}, {"activation_checkpointing": {"profile": True}}),
    ],
)  # fmt: skip
def test_what_is_asked_changes_exactly_its_own_keys(settings, wrapper, changed):
    assert native(settings, wrapper=wrapper) == PLAIN | changed


OPTIMIZER = Component(type="AdamW")
HALF, FULL = AmpOptim(optimizer=OPTIMIZER, dtype="float16"), PlainOptim(optimizer=OPTIMIZER)
AMP = AmpOptim(optimizer=OPTIMIZER)
CUDA = Facts(device_type="cuda")


def strategy(**settings):
    return parse({"strategy": {"type": "DeepSpeedStrategy", **settings}}).strategy


def test_as_written_an_auto_that_the_plan_settles_is_not_there():
    config = {"gradient_clipping": "auto", "prescale_gradients": "auto", "wall_clock_breakdown": None,
              "data_types": {"keep_in_fp32_modules": "auto"}, "torch_autocast": {"enabled": "auto", "dtype": "auto"},
              "zero_optimization": {"stage": 1}}  # fmt: skip
    assert backends.asked(strategy(config=config, bf16={"enabled": "auto"}, zero_optimization={"stage": 2})) == {
        "prescale_gradients": "auto", "data_types": {"keep_in_fp32_modules": "auto"}, "torch_autocast": {"dtype": "auto"},
        "bf16": {}, "zero_optimization": {"stage": 2},
    }  # fmt: skip
    assert backends.asked(strategy(config="ds.json")) == {}


@pytest.mark.parametrize(("section", "stage"), [(None, 0), ({}, 0), ({"stage": 3}, 3), ({"stage": "3"}, 0)])
def test_a_stage_is_a_whole_number(section, stage):
    assert backends.stage(strategy(zero_optimization=section)) == stage


@pytest.mark.parametrize(
    ("settings", "wrapper", "facts", "expected"),
    [
        ({"fp16": {"enabled": "auto"}}, HALF, Facts(), Precision(dtype="float16", casts_model=True)),
        ({"fp16": {"enabled": "auto"}}, FULL, Facts(), Precision()),
        ({"bf16": {"enabled": "auto"}}, HALF, Facts(), Precision(dtype="float16")),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, FULL, Facts(), Precision(dtype="bfloat16", casts_model=True)),
        ({}, AMP, CUDA, Precision(dtype="float16")), ({}, AMP, Facts(), Precision(dtype="bfloat16")),
        ({}, evolve(AMP, dtype="bfloat16"), CUDA, Precision(dtype="bfloat16")),
    ],
)  # fmt: skip
def test_precision_is_the_sections_then_the_wrappers(settings, wrapper, facts, expected):
    assert backends.precision(strategy(**settings), wrapper, facts) == expected


@pytest.mark.parametrize(
    ("written", "own", "norm"), [(1.0, None, 1.0), (0, None, None), ("auto", None, None), (None, None, None), (1.0, 2.0, 2.0)]
)  # fmt: skip
def test_clipping_is_the_wrappers_then_the_engines(written, own, norm):
    wrapper = evolve(FULL, clip_grad=None if own is None else ClipGrad(max_norm=own))
    expected = None if norm is None else ClipGrad(max_norm=norm)
    assert backends.clipping(strategy(gradient_clipping=written), wrapper) == expected


def test_clipping_and_precision_of_the_engine_are_the_plans():
    """So the text, the trajectory and the engine say one thing."""
    strategy = {
        "type": "DeepSpeedStrategy",
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": 2},
        "bf16": {"enabled": True},
    }
    made = planned(TWO, strategy=strategy, optim_wrapper={"optimizer": "AdamW"})
    assert made.optimizer.clip_grad == ClipGrad(max_norm=0.5)
    text = str(made)
    assert "ZeRO stage 2: ranks share optimizer state and gradients" in text
    assert "AdamW(); clip norm 0.5; model in bfloat16" in text
    told = next(line for line in text.splitlines() if line.startswith("deepspeed"))
    assert json.loads(told.removeprefix("deepspeed")) == backends.native(made)
    plain = planned(TWO, strategy={"type": "DeepSpeedStrategy"}, optim_wrapper={"optimizer": "AdamW"})
    same, other = dict(plain_fields(plain)), dict(plain_fields(made))
    assert {key for key in same if same[key] != other[key]} == {"optimizer settings", "precision"}


def plain_fields(made):
    from flexcore.plan_files import trajectory

    return trajectory(made)


def test_another_engine_changes_nothing_of_the_trajectory():
    """So a checkpoint goes from one to another."""
    deep = planned(
        TWO,
        strategy={"type": "DeepSpeedStrategy", "zero_optimization": {"stage": 3}},
        optim_wrapper={"optimizer": "AdamW"},
    )
    assert (
        deep.trajectory_digest
        == planned(TWO, strategy="DDPStrategy", optim_wrapper={"optimizer": "AdamW"}).trajectory_digest
    )


def test_nothing_is_told_while_a_batch_size_is_unknown_or_the_engine_is_another():
    assert native({}, Facts(), launcher="pytorch") is None
    assert backends.native(planned(TWO)) is None
    made = planned(TWO, strategy="DeepSpeedStrategy", optim_wrapper={"optimizer": "AdamW"})
    assert backends.native(made) is not None
    assert backends.native(evolve(made, batching=None)) is None
    assert backends.native(evolve(made, optimizers=())) is None
    assert backends.native(flexcore.plan(base(
        strategy="DeepSpeedStrategy", val_dataloader={"dataset": "pkg:D", "batch_size": 1}, val_cfg={},
        val_evaluator="pkg:M",
    ), TWO, mode="val")) is None  # fmt: skip


def test_flexible_runners_spellings():
    """Both names of the strategy and DeepSpeedOptimWrapper are read, and written as the one name."""
    config = parse(
        base(
            strategy="MMDeepSpeedStrategy",
            optim_wrapper={"type": "DeepSpeedOptimWrapper", "optimizer": "AdamW"},
        )
    )
    assert dump(config)["strategy"] == {"type": "DeepSpeedStrategy"}
    assert dump(config)["optim_wrapper"]["type"] == "OptimWrapper"
    assert parse(dump(config)) == config


def openings(value):
    """Every "auto" in a tree."""
    if isinstance(value, dict):
        return [found for item in value.values() for found in openings(item)]
    return [value] if value == "auto" else []


numbers = st.sampled_from(["auto", 1, 0.5])
sections = st.fixed_dictionaries({}, optional={
    "gradient_clipping": numbers, "bf16": st.fixed_dictionaries({}, optional={"enabled": st.sampled_from(["auto", False])}),
    "train_micro_batch_size_per_gpu": st.sampled_from(["auto", 4]), "gradient_accumulation_steps": st.sampled_from(["auto", 1]),
    "zero_optimization": st.fixed_dictionaries({}, optional={
        "stage": st.integers(0, 3), "reduce_bucket_size": st.sampled_from(["auto", 5])}),
})  # fmt: skip


@given(sections, sections)
def test_a_plan_leaves_nothing_open(beside, inside):
    """Whatever is accepted has no "auto" left, and its batch keys multiply out."""
    config = base(
        strategy={"type": "DeepSpeedStrategy", "config": inside, **beside},
        optim_wrapper={"optimizer": "AdamW"},
    )
    if any(problem.severity == "error" for problem in flexcore.lint(config, TWO)):
        assert openings({"inside": inside, "beside": beside}) or inside != beside
        return
    told = backends.native(flexcore.plan(config, TWO))
    assert openings(told) == []
    assert (
        told["train_batch_size"]
        == told["train_micro_batch_size_per_gpu"] * told["gradient_accumulation_steps"] * 2
    )
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    "settings", [{"gradient_clipping": float("nan")}, {"config": {"gradient_clipping": float("inf")}},
                 {"fp16": {"enabled": False, "loss_scale": float("-inf")}}],
)  # fmt: skip
def test_numbers_are_finite(settings):
    strategy = {"type": "DeepSpeedStrategy", **settings}
    codes = {(p.code, p.message.split(",")[0]) for p in flexcore.lint(base(strategy=strategy), KNOWN)}
    assert ("FK020", "must be finite") in codes
