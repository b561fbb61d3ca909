"""What hooks can be set to, told whole; averages by mmengine's formulas; what a plan says of its hooks."""

import pytest
from attrs import evolve

import flexcore
from flexcore.averaging import weight
from flexcore.facts import HookFact
from flexcore.hooks import EMA
from tests.flexcore.base import KNOWN, base, planned, told, validating

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
            f"{AT}.peak_flops: must be a finite number > 0, got 0.0. Correct the value. [FK020]",
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


@pytest.mark.parametrize(
    ("out_dir", "work_dir", "expected"),
    [
        (None, "runs/exp", "runs/exp/checkpoints"),
        ("big", "runs/exp", "big/exp"),
        ("/big/", "runs/exp/", "/big/exp"),
        ("big", None, "big/x"),
        ("runs/exp", "./runs/exp/", "./runs/exp/checkpoints"),
    ],
)
def test_checkpoints_go_under_out_dir_by_the_last_part_of_work_dir(out_dir, work_dir, expected):
    """Unless it is the work_dir itself, as in mmengine."""
    hooks = {"checkpoint": {"type": "CheckpointHook", "out_dir": out_dir}}
    plan = planned(default_hooks=hooks, work_dir=work_dir, experiment_name="x")
    assert plan.names.checkpoint_dir == expected


def test_saving_by_wall_time_is_a_condition_of_the_plan():
    """Told in minutes, kept in seconds; enough to save something; no matter for a smoke run."""
    hooks = {
        "checkpoint": {"type": "CheckpointHook", "interval": -1, "save_last": False, "interval_minutes": 2.5}
    }
    plan = flexcore.plan(base(default_hooks=hooks), KNOWN)
    assert plan.saving.every_seconds == 150
    assert (
        "saves        never\n             and at the first update when the last one is 2.5 minutes old\n"
        in str(plan)
    )
    assert [notice.code for notice in plan.notices] == []
    assert flexcore.plan(base(default_hooks=hooks), KNOWN, smoke=True).saving.every_seconds is None
    assert flexcore.Plan.from_json(plan.to_json()) == plan


def test_a_section_may_be_none_where_flexible_runner_takes_none():
    absent = dict.fromkeys(("default_hooks", "custom_hooks", "env_cfg", "log_processor", "randomness"))
    assert flexcore.parse({**base(), **absent}) == flexcore.parse({**base(), "randomness": {}})


@pytest.mark.parametrize("name", CASES)
def test_a_setting_without_meaning_is_refused_and_told(name):
    config, expected = CASES[name]
    assert told(config) == expected


def test_the_share_of_new_weights_in_an_average():
    assert weight(EMA(), 0) == 1.0
    assert weight(EMA(), 1) == 0.0002
    assert weight(EMA(momentum=0.1), 7) == 0.1
    annealed = EMA(ema_type="MomentumAnnealingEMA", momentum=0.1, gamma=4)
    assert [weight(annealed, steps) for steps in (1, 4, 36, 99)] == [4 / 5, 4 / 8, 0.1, 0.1]
    mean = EMA(ema_type="StochasticWeightAverage", interval=2)
    assert [weight(mean, steps) for steps in (0, 1, 2, 3, 4)] == [1.0, 1.0, 1 / 2, 1 / 2, 1 / 3]
    usual = EMA(ema_type="MomentumAnnealingEMA")
    assert [weight(usual, steps) for steps in (1, 100, 10**6)] == [100 / 101, 1 / 2, 0.0002]


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


def test_an_average_without_checkpoints_has_no_order_to_keep():
    config = ema(priority="LOWEST")
    assert told(config) == [
        f"{AT}.priority: is 100, which runs after CheckpointHook (90); it must run before. Leave it out (NORMAL, 50). [FK020]"
    ]
    assert told({**config, "default_hooks": {"checkpoint": None}}) == []


LAST = {"type": "a.b:Last", "priority": "LOWEST"}
NAMES = {"a.b.Last": "last", "CheckpointHook": "saves", "EarlyStoppingHook": "early"}


@pytest.mark.parametrize(
    ("stages", "stateful", "order"),
    [
        (("after_train_iter",), True, ["last", "saves", "early"]),
        (("before_run", "after_train_epoch"), True, ["last", "saves", "early"]),
        (("after_val_epoch",), True, ["saves", "last", "early"]),
        (("after_train_iter",), False, ["saves", "last", "early"]),
    ],
)
def test_what_has_state_to_save_comes_before_the_save(stages, stateful, order):
    """Where CheckpointHook saves, and only then; early stopping sees validations alone, after which nothing is lost."""
    facts = evolve(KNOWN, hooks=(HookFact(place=0, stages=stages, stateful=stateful),))
    config = validating(custom_hooks=[LAST, {"type": "EarlyStoppingHook", "monitor": "acc"}])
    found = [NAMES.get(hook.key) for hook in flexcore.plan(config, facts).hooks]
    assert [name for name in found if name] == order
