"""Where values come from, and one request on several world sizes: the whole text."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts
from flexcore.columns import side_by_side
from flexcore.provenance import ORIGINS, is_given, why
from tests.flexcore.base import DIGITS, KNOWN, base, planned, validating

SOLD = evolve(KNOWN, environment=(("RANK", "0"), ("WORLD_SIZE", "2")), world_size=2)

# key: (config changes, facts, the text, the config path)
CASES = {
    "optimizer.lr_scale": (
        {"auto_scale_lr": {"enable": True, "base_batch_size": 8}}, KNOWN,
        "optimizer.lr_scale = 0.5\n  user: global_batch_size / base_batch_size if auto_scale_lr is enabled, else 1",
        ("auto_scale_lr", "base_batch_size"),
    ),
    "environment.seed": (
        {"randomness": None}, KNOWN,
        "environment.seed = 5\n  environment: as given, else drawn and recorded", ("randomness", "seed"),
    ),
    "max_iters": (
        {}, KNOWN,
        "timeline.max_iters = 75\n  environment: as given, else max_epochs x epoch_length", ("train_cfg", "max_iters"),
    ),
    "environment.timeout": (
        {}, KNOWN,
        "environment.timeout = 1800.0\n  inferred: seconds a collective may take", ("env_cfg", "dist_cfg", "timeout"),
    ),
    "environment.resource_limit": (
        {}, KNOWN, "environment.resource_limit = 4096\n  default: as given", ("env_cfg", "resource_limit"),
    ),
    "environment.hang_timeout": (
        {}, KNOWN,
        "environment.hang_timeout = 300.0\n  inferred: seconds without progress that end the run", ("env_cfg", "hang_timeout"),
    ),
    "environment.world_size": (
        {}, SOLD,
        "environment.world_size = 2\n  environment: the number of ranks the launcher says; 1 without one", (),
    ),
    "train_dataloader.batch_size": (
        {}, KNOWN, "train_dataloader.batch_size = 4\n  user: written in the config", ("train_dataloader", "batch_size"),
    ),
    "train_dataloader.dataset.type": (
        {}, KNOWN, "train_dataloader.dataset.type = 'pkg.data:Digits'\n  user: written in the config",
        ("train_dataloader", "dataset", "type"),
    ),
    "log_level": ({}, KNOWN, "log_level = 'INFO'\n  default: the key's default", ("log_level",)),
    "timeline.by_epoch": (
        {}, KNOWN, "timeline.by_epoch = True\n  user: the loop train_cfg chooses by by_epoch or type",
        ("train_cfg", "by_epoch"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", CASES)
def test_a_value_says_where_it_comes_from(key):
    changes, facts, text, path = CASES[key]
    found = why(planned(facts, **changes), key)
    assert (str(found), found.path) == (text, path)


@pytest.mark.parametrize("key", ORIGINS)
def test_every_decided_field_is_in_the_plan(key):
    """And its origin names a fact and a config section that exist."""
    plan, origin = flexcore.plan(DIGITS), ORIGINS[key]
    assert why(plan, key).key == key
    assert origin.fact is None or hasattr(Facts(), origin.fact)
    if origin.config_key is not None:
        assert hasattr(plan.config, origin.config_key.partition(".")[0])


def test_elements_go_by_number_name_or_key():
    plan = flexcore.plan(DIGITS)
    assert why(plan, "val_dataloader.shifted.batch_size").value == 128
    assert why(plan, "param_scheduler.1.eta_min").value == 1e-4
    assert why(plan, "default_hooks.checkpoint.max_keep_ckpts").value == 2


def test_named_parts_are_looked_into_and_optimizers_are_what_they_are():
    several = planned(
        optim_wrapper={name: {"optimizer": {"type": "SGD", "lr": 0.1}} for name in ("one", "two")},
        param_scheduler={"two": {"type": "ExponentialLR", "gamma": 0.5}},
    )
    assert why(several, "param_scheduler.two.0.gamma").value == 0.5
    assert why(several, "optim_wrapper.two.optimizer.lr").value == 0.1
    assert (
        why(
            flexcore.plan(validating(val_evaluator={"hits": {"type": "pkg:Hits"}}), KNOWN),
            "val_evaluator.hits.type",
        ).value
        == "pkg:Hits"
    )


@pytest.mark.parametrize(("key", "expected"), [
    ("param_scheduler.1.eta_min", True), ("param_scheduler.1.nonsense", False), ("param_scheduler.2.gamma", False),
    ("param_scheduler.x", False), ("train_cfg.by_epoch", True),
])  # fmt: skip
def test_whether_the_config_says_it(key, expected):
    plan = flexcore.plan(DIGITS)
    assert len(plan.config.param_scheduler) == 2
    assert is_given(plan, key) is expected


def test_an_element_past_the_last_is_not_there():
    with pytest.raises(KeyError, match=r"param_scheduler\.2"):
        why(flexcore.plan(DIGITS), "param_scheduler.2")


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(KeyError) as caught:
        why(planned(), "batching.micro_bach_size")
    text = '"batching.micro_bach_size" is neither a plan field nor a config key. Did you mean "batching.micro_batch_size"?'
    assert caught.value.args == (text,)


def test_the_micro_clock_shortens_with_ranks():
    made = planned(KNOWN, auto_scale_lr={"enable": True, "base_batch_size": 4})
    assert (
        side_by_side(made, (1, 2, 8))
        == """\
world size            1    2    8
micro batch           4    4    4
accumulation          1    1    1
global batch          4    8   32
lr at start         0.1  0.2  0.8
lr at the end       0.1  0.2  0.8
iterations           75   39   12
optimizer steps      75   39   12
samples             300  300  312
dropped per epoch     0    0    0
repeated per epoch    0    0    4"""
    )


def test_the_global_clock_stays_and_says_where_it_cannot():
    made = planned(KNOWN, global_batch_size=8)
    assert (
        side_by_side(made, (1, 2, 3))
        == """\
world size            1    2  3
micro batch           4    4  -
accumulation          2    1  -
global batch          8    8  -
lr at start         0.1  0.1  -
lr at the end       0.1  0.1  -
iterations           39   39  -
optimizer steps      39   39  -
samples             312  312  -
dropped per epoch     0    0  -
repeated per epoch    4    4  -
3 ranks: global_batch_size: 8 is not a multiple of micro_batch_size 4 x data_parallel_size 3 = 12. Nearest valid: 12. [FD002]"""
    )


def test_what_is_unknown_stays_a_question():
    assert "iterations            ?\n" in side_by_side(flexcore.plan(base()), (1,))


WHOLE = flexcore.plan(validating(
    train_dataloader={"dataset": "pkg:D", "batch_size": 4, "sampler": {"type": "DefaultSampler", "seed": 3}},
    custom_hooks=[{"type": "pkg:Hook", "sizes": [1, {"a": (5, 6)}]}],
), KNOWN)  # fmt: skip


@pytest.mark.parametrize(("key", "value", "kind"), [
    ("model.width", 8, "user"), ("model.type", "pkg.models:Net", "user"), ("val_dataloader.batch_size", 5, "user"),
    ("val_dataloader.0.loader.batch_size", 5, "default"), ("train_dataloader.sampler.seed", 3, "user"),
    ("custom_hooks.0.component.sizes.0", 1, "default"), ("custom_hooks.0.component.sizes.1.a.1", 6, "default"),
    ("train_cfg.max_epochs", 3, "user"), ("train_cfg.val_begin", 1, "default"), ("val_cfg", {}, "user"),
    ("batching.clock", "micro", "inferred"), ("clock", "micro", "inferred"), ("seed", 1, "user"),
    ("launcher", None, "default"), ("environment.launcher", "none", "inferred"), ("tail", "carry", "inferred"),
    ("optimizer.lr_scale", 1.0, "inferred"), ("names.run_id", "156f1d", "environment"),
])  # fmt: skip
def test_values_of_every_kind_are_found(key, value, kind):
    found = why(WHOLE, key)
    assert found.kind == kind
    assert found.value == value or key == "val_cfg"


@pytest.mark.parametrize("key", [
    "batching.micro_batch_size", "timeline.max_iters", "optimizer.lr_scale", "saving.max_keep", "timeline.optimizer_steps",
])  # fmt: skip
def test_what_a_mode_leaves_out_has_no_value(key):
    assert why(flexcore.plan(validating(), KNOWN, mode="val"), key).value is None


@pytest.mark.parametrize("key", [
    "val_dataloader.nothing", "val_dataloader.7", "custom_hooks.5", "model.nothing", "train_cfg.nothing", "nothing", "",
    "model.width.more", "log_level.more", "custom_hooks.0.component.sizes.1.b", "resume.more",
])  # fmt: skip
def test_what_is_not_there_is_named_whole(key):
    with pytest.raises(KeyError) as caught:
        why(WHOLE, key)
    assert caught.value.args[0].startswith(f'"{key}" is neither a plan field nor a config key.')


def test_a_plan_that_does_not_train_has_empty_columns():
    rows = side_by_side(flexcore.plan(validating(), KNOWN, mode="val"), (1, 2)).splitlines()
    assert rows[0].split() == ["world", "size", "1", "2"]
    assert all(row.split()[-2:] == ["-", "-"] for row in rows[1:])


def test_samples_of_an_order_of_ones_own_or_without_end_are_counted_full():
    own = {"dataset": "pkg:D", "batch_size": 30, "sampler": "pkg:Mine"}
    endless = {"dataset": "pkg:D", "batch_size": 30, "sampler": "InfiniteSampler"}
    for loader, facts in ((own, evolve(KNOWN, train_batches=4)), (endless, KNOWN)):
        text = side_by_side(planned(facts, train_dataloader=loader), (1,))
        assert [line.split()[-1] for line in text.splitlines() if line.startswith("samples")] == ["360"]
    short = side_by_side(planned(KNOWN, train_dataloader={"dataset": "pkg:D", "batch_size": 30}), (1,))
    assert [line.split()[-1] for line in short.splitlines() if line.startswith("samples")] == ["300"]
    loop = {"by_epoch": False, "max_iters": 6}
    part = planned(KNOWN, train_dataloader={"dataset": "pkg:D", "batch_size": 30}, train_cfg=loop)
    assert [
        line.split()[-1] for line in side_by_side(part, (1,)).splitlines() if line.startswith("samples")
    ] == ["160"]
