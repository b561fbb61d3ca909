"""What a plan answers and tells: questions, slots, text, names."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied
from flexcore.components import Component, Items
from flexcore.converting import dump, parse, structure
from flexcore.facts import HookFact
from flexcore.plan_files import config_digest
from flexcore.problems import Problem, did_you_mean, located, shown
from flexcore.questions import with_world_size
from flexcore.saving import is_better
from tests.flexcore.base import DIGITS, KNOWN, base, planned, validating


def supplied_everywhere() -> dict:
    loader = {"dataset": Supplied(), "batch_size": 2}
    return validating(
        model=Supplied(), loss=Supplied(), train_dataloader=loader, val_dataloader={"a": loader, "b": Supplied()},
        val_evaluator=Supplied(), optim_wrapper={"optimizer": Supplied()},
    )  # fmt: skip


def test_supplied_slots_are_named_and_marked_for_whoever_reads_the_plan():
    plan = flexcore.plan(supplied_everywhere())
    slots = ("model", "loss", "train_dataset", "optimizer", "val_dataloader", "val_dataset", "val_evaluator")
    assert plan.supplied == slots
    again = flexcore.Plan.from_json(plan.to_json())
    assert again == plan
    assert again.supplied == slots
    assert parse(dump(plan.config)) == plan.config
    assert plan.plan_digest == flexcore.plan(supplied_everywhere()).plan_digest
    assert plan.validation.metrics[0].name == "metric"
    assert flexcore.value_at(plan).reason == "lr is not in the config and the optimizer has not been built"
    text = str(plan)
    assert "model        supplied at run time\n" in text
    assert "validation   b: its own loader\n" in text


def test_a_supplied_loader_is_counted_by_its_own_length():
    config = base(train_dataloader=Supplied())
    plan = flexcore.plan(config, evolve(KNOWN, train_batches=7, train_batch_size=3, train_samples=None))
    assert (plan.timeline.max_iters, plan.batching.global_batch_size, plan.train.opaque) == (21, 3, True)
    assert "             order of its own\n" in str(plan)
    with pytest.raises(ValueError, match=r"the order is the loader's own\."):
        next(flexcore.sample_indices(plan, epoch=0))
    assert ("timeline.epoch_length", "train_batches") in [
        (u.field, u.fact) for u in flexcore.plan(config).unresolved
    ]


def test_samples_wait_for_their_number_and_a_seed():
    with pytest.raises(ValueError, match=r"the order needs train_samples and a seed\."):
        next(flexcore.sample_indices(planned(), epoch=0))
    unseeded = flexcore.plan(base(randomness={}), Facts(train_samples=9))
    assert unseeded.train.order is None
    own = {"dataset": "pkg:D", "batch_size": 3, "sampler": {"type": "DefaultSampler", "seed": 4}}
    seeded = flexcore.plan(base(randomness={}, train_dataloader=own), Facts(train_samples=9))
    assert sorted(flexcore.sample_indices(seeded, epoch=2)) == list(range(9))
    assert (
        list(flexcore.sample_indices(seeded, epoch=2, start=4))
        == list(flexcore.sample_indices(seeded, epoch=2))[4:]
    )


def test_an_evaluation_keeps_the_order_of_its_dataset():
    plan = flexcore.plan(validating(), KNOWN)
    assert plan.validation.loaders[0].order.shuffle is False
    shuffled = validating(
        val_dataloader={"dataset": "pkg:D", "batch_size": 5, "sampler": "DefaultSampler"}, randomness={}
    )
    assert flexcore.plan(shuffled, evolve(KNOWN, entropy=None)).validation.loaders[0].order is None
    own = validating(val_dataloader={"dataset": "pkg:D", "batch_size": 5, "sampler": {"type": "pkg:S"}})
    assert flexcore.plan(own, KNOWN).validation.loaders[0].order is None


def test_a_plan_to_evaluate_has_nothing_to_train_with():
    config = {"model": "pkg:M", **{k: v for k, v in validating().items() if k.startswith("val")}}
    plan = flexcore.plan(config, KNOWN, mode="val")
    assert (plan.train, plan.batching, plan.timeline, plan.optimizer, plan.saving) == (None,) * 5
    assert flexcore.value_at(plan).reason == "a val plan has no optimizer"
    assert (list(flexcore.validations(plan)), list(flexcore.saves(plan)), flexcore.kept(plan, 9)) == (
        [],
        [],
        (),
    )
    assert flexcore.Plan.from_json(plan.to_json()) == plan
    assert len(plan.trajectory_digest) == 64
    assert "hooks" in str(plan)
    tests = {key.replace("val", "test", 1): value for key, value in config.items()}
    assert flexcore.plan(tests, KNOWN, mode="test").testing.loaders[0].order.samples == 10
    with pytest.raises(ValueError, match="the order needs"):
        next(flexcore.sample_indices(plan, epoch=0))


def test_best_checkpoints_are_conditional_and_come_after_regular_ones():
    hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 2, "save_best": ["top/1", "loss"]}}
    plan = flexcore.plan(validating(default_hooks=hooks), KNOWN)
    assert [(s.name, s.epoch, s.iter, s.conditional) for s in flexcore.saves(plan)] == [
        ("best_top_1_epoch_1", 1, 25, True), ("best_loss_epoch_1", 1, 25, True), ("epoch_2", 2, 50, False),
        ("best_top_1_epoch_2", 2, 50, True), ("best_loss_epoch_2", 2, 50, True), ("epoch_3", 3, 75, False),
        ("best_top_1_epoch_3", 3, 75, True), ("best_loss_epoch_3", 3, 75, True),
    ]  # fmt: skip
    assert list(flexcore.saves(flexcore.plan(validating(default_hooks=hooks)))) == []


@pytest.mark.parametrize(("rule", "score", "best", "better"), [
    ("greater", 1.0, None, True), ("greater", 1.0, 0.5, True), ("greater", 1.0, 1.0, False),
    ("less", 1.0, 2.0, True), ("less", 1.0, 0.5, False), ("less", float("nan"), None, False),
])  # fmt: skip
def test_a_score_is_better_or_not(rule, score, best, better):
    assert is_better(rule, score, best) is better


def test_a_removed_hook_does_nothing():
    plan = flexcore.plan(base(default_hooks={"checkpoint": None, "logger": None}), KNOWN)
    assert (plan.saving, plan.logging.interval) == (None, None)
    assert flexcore.kept(plan, 75) == ()
    assert list(flexcore.saves(plan)) == []


def test_a_built_in_hook_may_move_to_custom_hooks():
    config = base(
        default_hooks={"checkpoint": None}, custom_hooks=[{"type": "CheckpointHook", "interval": 2}]
    )
    assert flexcore.plan(config, KNOWN).saving.points.interval == 2


def test_a_user_hook_may_take_a_default_slot():
    config = base(default_hooks={"checkpoint": {"type": "pkg:Saver", "priority": "LOW", "every": 3}})
    facts = evolve(KNOWN, hooks=(HookFact(place="checkpoint", stages=("after_run", "before_run")),))
    plan = flexcore.plan(config, facts)
    (hook,) = [hook for hook in plan.hooks if hook.place == "checkpoint"]
    assert (hook.name, hook.priority, hook.stages) == ("Saver", 70, ("before_run", "after_run"))
    assert plan.saving is None
    assert hook in plan.hooks_at("after_run")
    assert hook not in plan.hooks_at("after_train")
    assert parse(dump(plan.config)) == plan.config


def test_the_iteration_loop_saves_as_often_as_it_validates():
    plan = flexcore.plan(
        validating(train_cfg={"by_epoch": False, "max_iters": 50, "val_interval": 20}), KNOWN
    )
    assert [save.name for save in flexcore.saves(plan)] == ["iter_20", "iter_40", "iter_50"]
    assert "length       50 iterations; 50 optimizer steps\n" in str(plan)


def test_precision_follows_the_device_and_the_settings():
    def precision(device=None, **more):
        wrapper = {"type": "AmpOptimWrapper", "optimizer": {"type": "SGD"}, **more}
        return flexcore.plan(base(optim_wrapper=wrapper), Facts(device_type=device)).optimizer.precision

    assert (precision("cuda").dtype, precision("cuda").loss_scale) == ("float16", "dynamic")
    assert (precision("cpu").dtype, precision("cpu").loss_scale) == ("bfloat16", None)
    assert precision(dtype="float16", loss_scale=512).loss_scale == 512.0
    made = precision(dtype="float16", loss_scale={"init_scale": 4, "growth_interval": 7})
    assert (made.init_scale, made.growth_interval, made.growth_factor, made.loss_scale) == (
        4,
        7,
        2.0,
        "dynamic",
    )
    unknown = flexcore.plan(base(optim_wrapper={"type": "AmpOptimWrapper", "optimizer": "SGD"}))
    assert ("optimizer.precision", "device_type") in [(u.field, u.fact) for u in unknown.unresolved]


def test_the_same_request_on_more_ranks():
    plan = flexcore.plan(base(global_batch_size=16), KNOWN)
    assert (plan.batching.gradient_accumulation_steps, plan.timeline.max_iters) == (4, 21)
    two = with_world_size(plan, 2)
    assert (two.strategy.NAME, two.batching.gradient_accumulation_steps, two.timeline.max_iters) == (
        "DDPStrategy",
        2,
        21,
    )
    assert two.trajectory_digest == plan.trajectory_digest
    with pytest.raises(flexcore.ConfigError):
        with_world_size(plan, 3)
    slurm = flexcore.plan(base(launcher="slurm"), evolve(KNOWN, world_size=2))
    assert with_world_size(slurm, 4).batching.global_batch_size == 16


def test_starts_are_told():
    assert "starts       from the weights of w.pth\n" in str(planned(load_from="w.pth"))
    assert "starts       by resuming c: resume names it\n" in str(planned(resume="c"))
    config = base(resume=True, load_from="x")
    assert "load_from names it and work_dir has not been looked at" in str(flexcore.plan(config))


def test_a_compiled_model_is_told():
    assert "(compiled)" in str(planned(compile=True))
    assert planned(compile={"mode": "default"}).compile.kwargs.get("mode") == "default"


def test_an_empty_run_is_planned_as_one():
    plan = flexcore.plan(
        validating(train_cfg={"by_epoch": True, "max_epochs": 0}, param_scheduler={"type": "PolyLR"}), KNOWN
    )
    assert (plan.timeline.max_iters, plan.timeline.optimizer_steps) == (0, 0)
    assert list(flexcore.saves(plan)) == list(flexcore.validations(plan)) == []
    assert "lr           Poly: ?\n" in str(plan)
    assert "validates    never\n" in str(plan)


def test_a_billion_epochs_cost_what_ten_do():
    import time

    def cost(epochs):
        config = {**DIGITS, "train_cfg": {"by_epoch": True, "max_epochs": epochs}}
        started = time.perf_counter()
        for _ in range(20):
            plan = flexcore.plan(config, evolve(KNOWN, train_samples=1437, val_samples=(1, 2)))
            str(plan)
            flexcore.kept(plan, 10**8)
        return time.perf_counter() - started

    cost(10)
    assert min(cost(10**9) for _ in range(3)) < 5 * min(cost(10) for _ in range(3)) + 0.05


def test_the_request_has_a_digest_of_its_own():
    one, other = planned(), flexcore.plan(base(), KNOWN)
    assert config_digest(one) == config_digest(other) != config_digest(planned(work_dir="elsewhere"))


def test_data_reads_like_a_mapping():
    data = parse(base(model={"type": "pkg:M", "a": {"x": 1, 2: [3]}})).model.kwargs["a"]
    assert (data["x"], data[2], data.get("z", 5), "x" in data, list(data), len(data)) == (
        1,
        Items((3,)),
        5,
        True,
        ["x", 2],
        2,
    )
    with pytest.raises(KeyError):
        data["z"]
    assert Component(type="a.b:C").is_import_path
    assert not Component(type="BN").is_import_path


def test_small_words():
    problem = Problem(code="FK010", path=("a",), message="is odd.", remedy="Mend it.")
    assert str(located(problem, "f.py:3")) == "a (f.py:3): is odd. Mend it. [FK010]"
    assert located(problem, None) is problem
    assert did_you_mean("LR", ["lr"]) == ' Did you mean "lr"?'
    assert shown(10**5000) == "a int too large to print"
    assert shown("x" * 100) == "'" + "x" * 56 + "..."


def test_names_of_the_package():
    assert set(flexcore.__all__) <= set(dir(flexcore))
    with pytest.raises(AttributeError, match="module 'flexcore' has no attribute 'nothing'"):
        flexcore.nothing
    with pytest.raises(flexcore.ConfigError):
        parse({"model": 5})


def test_types_may_be_written_as_mmengine_or_torch_write_them():
    plan = flexcore.plan(base(default_hooks={"logger": {"type": "mmengine.hooks.LoggerHook", "interval": 3}}))
    assert plan.logging.interval == 3
    plan = flexcore.plan(base(log_processor={"type": "mmengine.runner.LogProcessor"}))
    assert plan.logging.window == 10
    (problem,) = flexcore.lint(base(log_processor={"type": "pkg:Mine"}), KNOWN)
    assert str(problem) == (
        "log_processor.type: 'pkg:Mine': a type of your own here is known but not built yet. Use LogProcessor. [FK014]"
    )


def test_log_processor_may_say_what_the_loop_does_anyway():
    assert planned(log_processor={"by_epoch": True}).logging.window == 10


def test_a_component_is_a_mapping_with_a_type_or_a_name():
    assert [str(problem) for problem in flexcore.lint(base(loss=5), KNOWN)] == [
        "loss: must be a mapping or None, got 5. Correct the value. [FK011]"
    ]
    for value, expected in (
        (5, "must be a mapping with a type, got 5."), ({}, 'lacks the key "type".'), ({"type": 3}, "must be text, got 3."),
        ({"type": ""}, "must be text, got ''."), ({"type": "a:B", 3: 1}, "has the key 3; argument names are text."),
    ):  # fmt: skip
        with pytest.raises(flexcore.ConfigError) as caught:
            structure(value, Component)
        assert [problem.message for problem in caught.value.problems] == [expected]
