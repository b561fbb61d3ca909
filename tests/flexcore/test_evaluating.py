"""Validation and test as planned: precision, augmentation, predictions to files; and what is wrong with them, whole."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied
from flexcore.components import Component, Data
from flexcore.config import DataLoader
from flexcore.evaluating import is_dump, mark_of, metric_name
from flexcore.run_plan import EvalData, Evaluation, PlannedMetric
from flexcore.sampling import Order, derived_seed
from tests.flexcore.base import KNOWN, base, told, validating
from tests.strategies import checkpoint

TEST = {"test_dataloader": {"dataset": "pkg:D", "batch_size": 2}, "test_evaluator": "pkg:M", "test_cfg": {}}
VAL = {"val_dataloader": {"dataset": "pkg:D", "batch_size": 2}, "val_evaluator": "pkg:M", "val_cfg": {}}
FILE = (
    "must be a path without suffix or with .safetensors or .jsonl, got {}. "
    "Without a suffix the predictions themselves decide. [FC010]"
)
CASES = {
    "suffix": (
        {"test_cfg": {"predictions": "p.pkl"}}, [f"test_cfg.predictions: {FILE.format(repr('p.pkl'))}"],
    ),
    "a directory": (
        {"val_cfg": {"predictions": "p/"}}, [f"val_cfg.predictions: {FILE.format(repr('p/'))}"],
    ),
    "a number": (
        {"val_evaluator": {"dump": {"type": "DumpResults", "out_file_path": 3}}},
        [f"val_evaluator.dump.out_file_path: {FILE.format(3)}"],
    ),
    "a zero byte": (
        {"val_cfg": {"predictions": "p\0"}}, [f"val_cfg.predictions: {FILE.format(repr(chr(112) + chr(0)))}"],
    ),
    "twice": (
        {"test_cfg": {"predictions": "p"}, "test_evaluator": {"type": "DumpResults", "out_file_path": "q"}},
        ["test_evaluator.0.out_file_path: is a second place for the predictions. Keep one of them. [FK019]"],
    ),
    "no path": (
        {"test_evaluator": {"type": "mmengine.evaluator.DumpResults", "out_file": "q"}},
        ['test_evaluator.0: lacks the key "out_file_path". Add "out_file_path". [FK012]',
         'test_evaluator.0.out_file: is not a setting of DumpResults. Did you mean "out_file_path"? [FK010]'],
    ),
    "an odd key": (
        {"val_evaluator": {"type": "DumpResults", "out_file_path": "q", "zzz": 1}},
        ["val_evaluator.0.zzz: is not a setting of DumpResults. Remove it; known here: out_file_path. [FK010]"],
    ),
    "own order": (
        {"val_cfg": {"predictions": "p"},
         "val_dataloader": {"dataset": "pkg:D", "batch_size": 2, "sampler": {"type": "pkg:S"}}},
        ["val_dataloader.0: has an order of its own, and predictions are written in the dataset's. Use DefaultSampler, and a dataset with a length. [FK014]"],
    ),
    "both": (
        {"test_cfg": {"fp16": True, "dtype": "bfloat16"}},
        ['test_cfg.fp16: is true with dtype="bfloat16". Keep one of them. [FK019]'],
    ),
    "typo": (
        {"test_cfg": {"prediction": "p"}},
        ['test_cfg.prediction: is not a setting of TestLoop. Did you mean "predictions"? [FK010]'],
    ),
    "no transforms": (
        {"test_cfg": {"tta": {"transforms": []}}},
        ["test_cfg.tta.transforms: is empty. Name at least one, or remove tta. [FK012]"],
    ),
    "a typo": (
        {"test_cfg": {"tta": {"transforms": ["hflp", "rot90", {"type": "vflip", "p": 1}], "merge": "average"}}},
        ["test_cfg.tta.transforms.0.type: 'hflp' is not a known transform. Did you mean \"hflip\"? [FK013]",
         'test_cfg.tta.transforms.1.type: \'rot90\' is not a known transform. Known: identity, hflip, vflip, or "pkg.module:Name". [FK013]',
         "test_cfg.tta.transforms.2: gives settings to vflip, which has none. Remove them. [FK010]",
         ("test_cfg.tta.merge: 'average' is not a known way to merge predictions. "
         'Use "mean", or "pkg.module:function" of the list of outputs. [FK013]')],
    ),
    "a registry's": (
        {"test_cfg": {"tta": {"type": "MyTTAModel"}}},
        ['test_cfg.tta.type: \'MyTTAModel\' is not a known test-time augmentation. Known: TTA, or "pkg.module:Name". [FK013]'],
    ),
    "no tta of a validation": (
        {"val_cfg": {"tta": {}}},
        ["val_cfg.tta: is not a setting of ValLoop. Remove it; known here: dtype, fp16, predictions. [FK010]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_an_evaluation_cannot_do_is_told(name):
    changes, expected = CASES[name]
    assert (
        told(base(**{**(TEST if any(key.startswith("test") for key in changes) else VAL), **changes}))
        == expected
    )


@pytest.mark.parametrize("given", [{"dtype": "float16"}, {"dtype": "bfloat16"}, {"fp16": True}], ids=str)
def test_a_precision_the_device_lacks_is_told(given):
    facts = evolve(KNOWN, device_type="cuda", supports_fp16=False, supports_bf16=False)
    dtype = given.get("dtype", "float16")
    remedy = 'Set dtype="bfloat16", or remove it.' if dtype == "float16" else "Remove it."
    remedy = "Set fp16=False." if "fp16" in given else remedy
    assert told(base(**{**TEST, "test_cfg": given}), facts) == [
        f"test_cfg.{next(iter(given))}: {dtype} is not supported on this cuda device. {remedy} [FP004]"
    ]


@pytest.mark.parametrize("given", [{"dtype": "float16"}, {"dtype": "bfloat16"}, {"fp16": True}], ids=str)
def test_a_precision_the_device_has_is_planned(given):
    facts = evolve(KNOWN, device_type="cuda", supports_fp16=True, supports_bf16=True)
    config = base(**{**TEST, "test_cfg": given})
    assert told(config, facts) == []
    assert flexcore.plan(config, facts, mode="test").testing.dtype == given.get("dtype", "float16")


def test_the_plan_says_where_predictions_go():
    plan = flexcore.plan(
        base(**{**TEST, "test_cfg": {"dtype": "bfloat16", "predictions": "p"}}), KNOWN, mode="test"
    )
    assert plan.testing.predictions == "p"
    assert (
        "             autocast bfloat16\n             predictions to p, in dataset order\n"
        in flexcore.explain(plan)
    )
    assert mark_of(plan, "test", 0) == ""


def test_each_validation_of_a_training_writes_a_file_of_its_own():
    """mmengine's DumpResults by any of its spellings is no metric, and each iteration's file has its number."""
    metrics = [
        {"type": "pkg:M"},
        {"type": "mmengine.DumpResults", "out_file_path": "p.jsonl", "collect_dir": "x"},
    ]
    config = validating(val_evaluator=metrics)
    plan = flexcore.plan(config, KNOWN)
    assert told(config) == []
    assert [m.name for m in plan.validation.metrics] == ["m"]
    assert plan.validation.predictions == "p.jsonl"
    assert mark_of(plan, "val", 25) == "_iter_25"
    assert mark_of(flexcore.plan(config, KNOWN, mode="val"), "val", 0) == ""
    text = "predictions to p.jsonl, in dataset order, _iter_<n> in each validation's name\n"
    assert text in flexcore.explain(plan)


def test_the_plan_says_what_is_augmented():
    own = {"transforms": ["identity", {"type": "pkg:shift", "by": 2}], "merge": "pkg:vote"}
    for tta, text in (
        (own, "             each batch as identity, pkg:shift(by=2); outputs merged by pkg:vote\n"),
        ({"type": "pkg:Mine", "k": 3}, "             each batch augmented and merged by pkg:Mine(k=3)\n"),
    ):
        config = base(**{**TEST, "test_cfg": {"tta": tta}})
        plan = flexcore.plan(config, KNOWN, mode="test")
        assert told(config, mode="test") == []
        assert text in flexcore.explain(plan)
        assert flexcore.Plan.from_json(plan.to_json()) == plan


def test_a_dataset_that_only_iterates_stays_of_unknown_length():
    """Symbolic, and listed with the fact that would settle it; its predictions have no order to be written in."""
    facts = evolve(KNOWN, val_samples=(None,))
    plan = flexcore.plan(validating(), facts)
    assert plan.validation.loaders[0].order is None
    assert ("validation.loaders", "val_samples") in [(u.field, u.fact) for u in plan.unresolved]
    assert "validation   ? samples\n" in flexcore.explain(plan)
    assert told(validating(val_cfg={"predictions": "p"}), facts) == [
        (
            "val_dataloader.0: has an order of its own, and predictions are written in the dataset's. "
            "Use DefaultSampler, and a dataset with a length. [FK014]"
        )
    ]


def test_an_evaluation_takes_weights_that_no_training_could_resume():
    """The newest checkpoint of a run that saved weights alone; training on from it begins anew."""
    facts = evolve(KNOWN, checkpoints=(checkpoint(25, resumable=False),))
    config = validating(resume=True)
    assert flexcore.plan(config, facts, mode="val").start.path == "w/checkpoints/iter_25"
    assert isinstance(flexcore.plan(config, facts).start, flexcore.Fresh)


@pytest.mark.parametrize(
    ("limit", "smoke", "expected"), [(None, False, None), (3, False, 3), (3, True, 1), (None, True, 1)]
)
def test_an_evaluation_may_be_cut_short(limit, smoke, expected):
    """num_batch_per_epoch caps each rank's batches, and a smoke run takes one."""
    cfg = validating(val_dataloader={"dataset": "pkg:D", "batch_size": 2, "num_batch_per_epoch": limit})
    plan = flexcore.plan(cfg, KNOWN, smoke=smoke)
    assert plan.validation.loaders[0].max_batches == expected
    capped = {None: "\n", 1: ", at most 1 batch on each rank\n", 3: ", at most 3 batches on each rank\n"}[
        expected
    ]
    assert f"10 samples in batches of 2, each counted once{capped}" in str(plan)


def dealt(seed=0, *, shuffle=False):
    return Order(
        samples=7, shuffle=shuffle, seed=seed, padded=False, world_size=1, micro_batch_size=2, drop_last=False
    )


def test_an_evaluation_is_planned_whole():
    """Unnamed loaders go by their place, each with a seed of its own; without the run's seed shuffling waits."""
    loader = {"dataset": "pkg:D", "batch_size": 2}
    shuffled = {**loader, "sampler": {"type": "DefaultSampler", "shuffle": True}}
    own = {**loader, "sampler": {"type": "DefaultSampler", "shuffle": True, "seed": 4}}
    config = base(
        val_dataloader=[loader, shuffled, own, Supplied()], val_cfg={"dtype": "bfloat16"},
        val_evaluator={"a": {"type": "pkg:M"}, "b": Supplied()},
    )  # fmt: skip

    def orders(**changes):
        facts = evolve(KNOWN, val_samples=(7, 7, 7, None), **changes)
        planned = flexcore.plan({**config, "randomness": {}}, facts, mode="val").validation
        return [data.order for data in planned.loaders]

    assert orders(entropy=None) == [dealt(derived_seed(0, 1)), None, dealt(4, shuffle=True), None]
    assert orders(entropy=9) == [
        dealt(derived_seed(9, 1)), dealt(derived_seed(9, 2), shuffle=True), dealt(4, shuffle=True), None,
    ]  # fmt: skip
    made = flexcore.plan({**config, "val_dataloader": [loader, Supplied()]}, Facts(), mode="val").validation
    assert made == Evaluation(
        loaders=(
            EvalData(name="0", loader=DataLoader(dataset=Component(type="pkg:D"), batch_size=2), order=None),
            EvalData(name="1", loader=Supplied(), order=None),
        ),
        metrics=(
            PlannedMetric(name="a", metric=Component(type="pkg:M")),
            PlannedMetric(name="b", metric=Supplied()),
        ),
        dtype="bfloat16",
    )
    alone = flexcore.plan({**config, "val_dataloader": [loader]}, Facts(), mode="val").validation
    assert [data.name for data in alone.loaders] == [None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pkg:TopAccuracy", "top_accuracy"), ("torchmetrics:MeanSquaredError", "mean_squared_error"), ("IoU", "io_u"),
        ("pkg.MSELoss", "mse_loss"), ("mAP", "m_ap"), ("F1Score", "f1_score"), ("AUROC", "auroc"), ("XAbC", "x_ab_c"),
        ("CLIP2D", "clip2d"), ("already_so", "already_so"), ("Ab", "ab"),
    ],
)  # fmt: skip
def test_a_metric_goes_by_its_class_in_snake_case(name, expected):
    assert metric_name(Component(type=name)) == expected
    assert metric_name(Supplied()) == "metric"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DumpResults", True), ("mmengine.DumpResults", True), ("mmengine.evaluator:DumpResults", True),
        ("mmengine:DumpResults", True), ("pkg:DumpResults", False), ("mmengines.DumpResults", False), ("pkg:M", False),
    ],
)  # fmt: skip
def test_what_writes_predictions_and_measures_nothing(name, expected):
    assert is_dump(Component(type=name, kwargs=Data((("out_file_path", "p"),)))) is expected
    assert is_dump(Supplied()) is False
