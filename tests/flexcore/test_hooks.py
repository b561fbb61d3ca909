"""What hooks can be set to, told whole; early stops as a function of scores; averages by mmengine's formulas."""

import json
from pathlib import Path

import pytest

import flexcore
from flexcore.averaging import weight
from flexcore.hooks import EMA, EarlyStopping
from flexcore.replaying import early_stop_differences
from flexcore.stopping_early import Watched, rule_of, verdict, watched
from tests.flexcore.base import KNOWN, base, told, validating

AMP16 = {
    "type": "AmpOptimWrapper",
    "dtype": "float16",
    "loss_scale": "dynamic",
    "optimizer": {"type": "SGD", "lr": 0.1},
}
ITERATIONS = {"by_epoch": False, "max_iters": 9}
AT = "custom_hooks.0"


def ema(**more):
    return base(custom_hooks=[{"type": "EMAHook", **more}])


def early(**more):
    return validating(custom_hooks=[{"type": "EarlyStoppingHook", "monitor": "acc", **more}])


def guard(**more):
    return base(custom_hooks=[{"type": "NaNGuardHook", **more}])


def profiler(**more):
    return base(custom_hooks=[{"type": "ProfilerHook", **more}])


def checkpoint(**more):
    return base(default_hooks={"checkpoint": {"type": "CheckpointHook", **more}})


CASES = {
    "ema key": (
        ema(momentun=0.1),
        [f'{AT}.momentun: is not a setting of EMAHook. Did you mean "momentum"? [FK010]'],
    ),
    "ema type": (
        ema(ema_type="EMA"),
        [
            f'{AT}.ema_type: must be one of "ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage", got \'EMA\'. Pick one of them. [FK011]'
        ],
    ),
    "ema ranges": (
        ema(momentum=1.0, interval=0, begin_iter=-1, begin_epoch=-1),
        [
            f"{AT}.interval: must be at least 1, got 0. Correct the value. [FK020]",
            f"{AT}.begin_iter: must be at least 0, got -1. Correct the value. [FK020]",
            f"{AT}.begin_epoch: must be at least 0, got -1. Correct the value. [FK020]",
            f"{AT}.momentum: must be above 0 and below 1, got 1.0. It is the share of the new weights, such as 0.0002. [FK020]",
            f"{AT}.begin_epoch: is -1 while begin_iter is -1; both say when averaging begins. Keep one of them. [FK019]",
        ],
    ),
    "ema gamma": (
        ema(ema_type="MomentumAnnealingEMA", gamma=0),
        [f"{AT}.gamma: must be at least 1, got 0. Correct the value. [FK020]"],
    ),
    "ema idle": (
        ema(ema_type="StochasticWeightAverage", momentum=0.1, gamma=5),
        [
            f"{AT}.momentum: does nothing with ema_type StochasticWeightAverage. Remove it, or use another ema_type. [FK019]",
            f"{AT}.gamma: does nothing with ema_type StochasticWeightAverage. Remove it, or use another ema_type. [FK019]",
        ],
    ),
    "ema begins": (
        ema(begin_iter=3, begin_epoch=1),
        [
            f"{AT}.begin_epoch: is 1 while begin_iter is 3; both say when averaging begins. Keep one of them. [FK019]"
        ],
    ),
    "ema epochs": (
        base(train_cfg=ITERATIONS, custom_hooks=[{"type": "EMAHook", "begin_epoch": 1}]),
        [f"{AT}.begin_epoch: counts epochs, and the iteration loop has none. Use begin_iter. [FS003]"],
    ),
    "ema late": (
        ema(priority="VERY_LOW"),
        [
            f"{AT}.priority: is 90, which runs after CheckpointHook (90); it must run before. Leave it out (NORMAL, 50). [FK020]"
        ],
    ),
    "early ranges": (
        early(min_delta=-1, patience=0, stopping_threshold=float("nan")),
        [
            f"{AT}.min_delta: must be at least 0, got -1.0. Correct the value. [FK020]",
            f"{AT}.patience: must be at least 1, got 0. Correct the value. [FK020]",
            f"{AT}.stopping_threshold: must be a number, got nan. Correct the value. [FK020]",
        ],
    ),
    "early rule": (
        early(monitor="fid"),
        [
            f'{AT}.monitor: cannot tell whether more or less of \'fid\' is better. Add rule="greater" or rule="less". [FC002]'
        ],
    ),
    "early missing": (
        validating(custom_hooks=["EarlyStoppingHook"]),
        [f'{AT}: lacks the key "monitor". Add "monitor". [FK012]'],
    ),
    "early unvalidated": (
        base(custom_hooks=[{"type": "EarlyStoppingHook", "monitor": "acc"}]),
        [
            f"{AT}.monitor: watches 'acc', but the config has no validation. Add val_dataloader, val_cfg and val_evaluator. [FC003]"
        ],
    ),
    "guard range": (
        guard(interval=0),
        [f"{AT}.interval: must be at least 1, got 0. Correct the value. [FK020]"],
    ),
    "guard skip": (
        guard(action="skip", interval=5),
        [
            f'{AT}.interval: is 5; action="skip" can only leave out updates it looks at. Set interval=1, or action="stop". [FK019]'
        ],
    ),
    "guard float16": (
        base(optim_wrapper=AMP16, custom_hooks=[{"type": "NaNGuardHook", "check": "both"}]),
        [
            (
                f"{AT}.check: is 'both'; with float16 the loss scale meets infinite gradients and skips them itself. "
                'Use check="loss", or dtype="bfloat16". [FK019]'
            )
        ],
    ),
    "cache": (
        base(custom_hooks=[{"type": "EmptyCacheHook", "after_epoch": False}]),
        [f"{AT}: empties nothing: every moment is off. Set one, or remove it. [FK019]"],
    ),
    "profiler": (
        profiler(
            profile_times=0,
            activity_with_cpu=False,
            json_trace_path="../t.json",
            on_trace_ready={"type": "tb_trace", "dir_name": "/t"},
            schedule={"wait": -1, "warmup": 0, "active": 0},
        ),
        [
            f"{AT}.profile_times: must be at least 1, got 0. Correct the value. [FK020]",
            f"{AT}: profiles nothing: every activity is off. Set activity_with_cpu=True. [FK019]",
            f"{AT}.json_trace_path: is given with tb_trace, and a trace can be written once. Keep one of them. [FK019]",
            f"{AT}.schedule.wait: must be at least 0, got -1. Correct the value. [FK020]",
            f"{AT}.schedule.active: must be at least 1, got 0. Correct the value. [FK020]",
            f"{AT}.json_trace_path: must be a path under the log directory, got '../t.json'. Write a relative path, such as \"trace.json\". [FC010]",
            f"{AT}.on_trace_ready.dir_name: must be a path under the log directory, got '/t'. Write a relative path, such as \"trace.json\". [FC010]",
        ],
    ),
    "profiler handler": (
        profiler(on_trace_ready={"type": "log_trac"}, schedule={"wait": 1, "warmup": 1}),
        [
            f'{AT}.schedule: lacks the key "active". Add "active". [FK012]',
            f"{AT}.on_trace_ready.type: 'log_trac' is not a known trace handler. Did you mean \"log_trace\"? [FK013]",
        ],
    ),
    "profiler epochs": (
        base(train_cfg=ITERATIONS, custom_hooks=["ProfilerHook"]),
        [f"{AT}.by_epoch: counts epochs, and the iteration loop has none. Set by_epoch=False. [FS003]"],
    ),
    "throughput": (
        base(custom_hooks=[{"type": "ThroughputHook", "peak_flops": 0}]),
        [
            f"{AT}.flops_per_sample: is missing, and MFU needs it besides peak_flops. Add flops_per_sample, or remove peak_flops. [FK012]",
            f"{AT}.peak_flops: must be above 0, got 0.0. Correct the value. [FK020]",
        ],
    ),
    "published": (
        checkpoint(published_keys=["state_dic", "optimizer"], save_optimizer=False),
        [
            "default_hooks.checkpoint.published_keys: 'state_dic' is nothing a checkpoint holds. Did you mean \"state_dict\"? [FK020]",
            "default_hooks.checkpoint.published_keys: names the optimizer, which save_optimizer=False leaves out. Set save_optimizer=True, or leave it out. [FK019]",
        ],
    ),
    "fine": (
        validating(
            custom_hooks=[
                {"type": "EMAHook", "ema_type": "MomentumAnnealingEMA", "gamma": 5, "begin_iter": 3},
                {"type": "EarlyStoppingHook", "monitor": "loss", "stopping_threshold": float("-inf")},
                {"type": "NaNGuardHook", "check": "both", "action": "skip"},
                "SyncBuffersHook",
                {"type": "EmptyCacheHook", "before_epoch": True},
                {"type": "ProfilerHook", "on_trace_ready": {"type": "tb_trace"}, "by_epoch": False},
                {"type": "ThroughputHook", "flops_per_sample": 1e6, "peak_flops": 1e12},
            ]
        ),
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_setting_without_meaning_is_refused_and_told(name):
    config, expected = CASES[name]
    assert told(config) == expected


ORACLE = json.loads((Path(__file__).parent / "oracles" / "o11_save_best_rules.json").read_text())
RECORDED = [case for case in ORACLE["cases"] if case["id"].startswith("early stop")]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["id"])
def test_early_stops_are_mmengines(case):
    given = dict(case["input"])
    scores = [float(score) for score in given.pop("scores")]
    if "error" in case["expected"]:
        assert "[FC002]" in told(early(**{k: v for k, v in given.items() if v is not None}))[0]
        return
    hook, so_far, stop = EarlyStopping(**given), Watched(), None
    for number, score in enumerate(scores, 1):
        so_far = watched(hook, so_far, score)
        if stop is None and verdict(hook, so_far) is not None:
            stop = (number, so_far.best)
    assert stop == (case["expected"]["ok"]["stop_at_validation"], case["expected"]["ok"]["best"])


def after(hook, *scores):
    so_far = Watched()
    for score in scores:
        so_far = watched(hook, so_far, score)
    return verdict(hook, so_far)


def test_what_ends_a_run_and_what_does_not():
    acc = EarlyStopping(monitor="acc", patience=2, min_delta=0.1)
    assert rule_of(acc) == "greater"
    assert after(acc) is None
    assert after(acc, 0.5, 0.55) is None
    assert after(acc, 0.5, 0.55, 0.59) == "acc is no better than 0.5 after 2 validations"
    assert after(acc, 0.5, 0.55, 0.7, 0.75) is None
    assert after(acc, 0.5, float("nan")) == "acc is nan"
    careless = EarlyStopping(monitor="acc", patience=1, check_finite=False)
    assert after(careless, float("nan")) == "acc is no better than none yet after 1 validations"
    loss = EarlyStopping(monitor="loss", stopping_threshold=0.1, min_delta=0.0)
    assert after(loss, 0.2) is None
    assert after(loss, 0.2, 0.05) == "loss is 0.05, past 0.1"


def test_the_share_of_new_weights_in_an_average():
    assert weight(EMA(), 0) == 1.0
    assert weight(EMA(), 1) == 0.0002
    assert weight(EMA(momentum=0.1), 7) == 0.1
    annealed = EMA(ema_type="MomentumAnnealingEMA", momentum=0.1, gamma=4)
    assert [weight(annealed, steps) for steps in (1, 4, 36, 99)] == [4 / 5, 4 / 8, 0.1, 0.1]
    mean = EMA(ema_type="StochasticWeightAverage", interval=2)
    assert [weight(mean, steps) for steps in (0, 2, 4)] == [1.0, 1 / 2, 1 / 3]


def test_a_plan_says_what_its_hooks_do_and_what_may_end_it():
    config, _ = CASES["fine"]
    config["default_hooks"] = {"checkpoint": {
        "type": "CheckpointHook", "save_optimizer": False, "published_keys": ["state_dict", "hooks"],
        "save_best": "acc",
    }}  # fmt: skip
    plan = flexcore.plan(config, KNOWN)
    assert flexcore.Plan.from_json(plan.to_json()) == plan
    text = flexcore.explain(plan)
    for line in (
        "             or sooner: loss without -0.1 for 5 validations, or past -inf, or not finite",
        "             weights only: none of them can be resumed",
        "publishes    model, hooks of the best, else the last, checkpoint at the end",
        "                 annealed average, momentum 0.0002, gamma 5, every iteration from iteration 3; evaluations use the average",
        "                 each update waits for the device to see that the loss and gradient are finite",
        "              50 EmptyCacheHook       before_train_epoch, after_train_epoch, before_val_epoch, after_val_epoch, before_test_epoch, after_test_epoch",
        "                 profiles 1 iteration on every rank",
        "                 samples per second and MFU at each log line, counted over all ranks",
    ):
        assert line in text.splitlines(), text
    assert flexcore.dump(flexcore.parse(flexcore.dump(plan.config))) == flexcore.dump(plan.config)


class Part:
    """A start of a run as the replay sees it."""

    def __init__(self, plan, resumed, upto, scores):
        self.plan, self.resumed = plan, resumed
        self.steps = tuple((i, 0.1, 4) for i in range(resumed, upto))
        self.events = tuple(
            {"event": "validate", "iter": at, "metrics": {"acc": score}} for at, score in scores
        )


def test_a_stop_that_the_metrics_call_for_must_have_happened_and_no_other():
    plan = flexcore.plan(early(patience=1), KNOWN)
    patient = flexcore.plan(early(patience=3), KNOWN)
    scores = [(25, 0.5), (50, 0.4)]
    assert list(early_stop_differences([Part(plan, 0, 50, scores)], early=True)) == []
    assert list(early_stop_differences([Part(plan, 0, 75, scores)], early=False)) == [
        (50, "the end, as acc is no better than 0.5 after 1 validations", "75 iterations")
    ]
    assert list(early_stop_differences([Part(plan, 0, 25, scores[:1])], early=True)) == [
        (25, "no early stop by the metrics on record", "one")
    ]
    split = [Part(plan, 0, 30, scores[:1]), Part(plan, 25, 60, scores[1:])]
    assert [at for at, _, _ in early_stop_differences(split, early=False)] == [50]
    assert (
        list(early_stop_differences([Part(plan, 0, 50, scores), Part(patient, 50, 75, [])], early=False))
        == []
    )
    assert list(early_stop_differences([Part(flexcore.plan(base(), KNOWN), 0, 75, [])], early=False)) == []
