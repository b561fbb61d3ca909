"""What a run tells and where: every rule a config can break here with its whole text, and what is planned of it."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts
from flexcore.components import Data
from flexcore.log_rules import LogRule
from flexcore.log_specs import LocalBackend, MLflowBackend, TensorBoardBackend, WandbBackend, WandbInit
from flexcore.problems import usable
from flexcore.reporting import Copies, Logging
from flexcore.run_plan import Plan, Resume
from tests.flexcore.base import KNOWN, base, planned, told
from tests.strategies import checkpoint

ITER = {"train_cfg": {"by_epoch": False, "max_iters": 9}, "param_scheduler": None}


def R(*rules, **more):
    return {"log_processor": {"custom_cfg": list(rules), **more}}


def V(*backends, **more):
    return {"visualizer": {"vis_backends": list(backends), **more}}


def LG(**settings):
    return {"default_hooks": {"logger": {"type": "LoggerHook", **settings}}}


# name: (changes of the base config, every error and warning)
CASES = {
    "rules lack": (
        {"log_processor": {"custom_cfg": [{}, {"data_src": 3, "method_name": ""}]}},
        [
            'log_processor.custom_cfg.0: lacks the key "data_src". Add "data_src". [FK012]',
            'log_processor.custom_cfg.0: lacks the key "method_name". Add "method_name". [FK012]',
            "log_processor.custom_cfg.1.data_src: must be text, got 3. Correct the value. [FK011]",
            "log_processor.custom_cfg.1.method_name: must be text, got ''. Correct the value. [FK011]",
        ],
    ),
    "rules methods": (
        {
            "log_processor": {
                "custom_cfg": [
                    {"data_src": "loss", "method_name": "maen"},
                    {"data_src": "b", "method_name": "median"},
                    {"data_src": "c", "method_name": "mean", "widnow_size": 3},
                    {"data_src": "d", "method_name": "current", "window_size": 3},
                ]
            }
        },
        [
            "log_processor.custom_cfg.0.method_name: 'maen' is no known statistic. Did you mean \"mean\"? [FK013]",
            "log_processor.custom_cfg.1.method_name: 'median' is no known statistic. Did you mean \"mean\"? [FK013]",
            'log_processor.custom_cfg.2.widnow_size: is no argument of mean. Did you mean "window_size"? [FK010]',
            "log_processor.custom_cfg.3.window_size: does nothing, as current is the last value alone. Remove it, or use another method_name. [FK019]",
        ],
    ),
    "rules windows": (
        {
            "log_processor": {
                "custom_cfg": [
                    {"data_src": "a", "method_name": "mean", "window_size": 0},
                    {"data_src": "b", "method_name": "max", "window_size": 1000001},
                    {"data_src": "c", "method_name": "min", "window_size": "all"},
                    {"data_src": "d", "method_name": "pkg:f"},
                    {"data_src": "e", "method_name": "pkg:f", "window_size": "epoch"},
                    {"data_src": "f", "method_name": "mean", "window_size": True},
                ]
            }
        },
        [
            'log_processor.custom_cfg.0.window_size: must be at least 1 and at most 1,000,000, which is all that is kept, got 0. Correct the value, or use "global". [FK020]',
            'log_processor.custom_cfg.1.window_size: must be at least 1 and at most 1,000,000, which is all that is kept, got 1000001. Correct the value, or use "global". [FK020]',
            'log_processor.custom_cfg.2.window_size: must be an integer, "epoch" or "global", got \'all\'. Correct the value. [FK011]',
            "log_processor.custom_cfg.3.window_size: is global, and a function of one's own needs every value of it at once. Give a number of values. [FK020]",
            "log_processor.custom_cfg.4.window_size: is epoch, and a function of one's own needs every value of it at once. Give a number of values. [FK020]",
            'log_processor.custom_cfg.5.window_size: must be an integer, "epoch" or "global", got True. Correct the value. [FK011]',
        ],
    ),
    "rules names": (
        {
            "log_processor": {
                "custom_cfg": [
                    {"data_src": "loss", "method_name": "mean"},
                    {"data_src": "loss", "method_name": "max"},
                    {"data_src": "acc", "log_name": "loss", "method_name": "max"},
                    {"data_src": "acc", "log_name": "lr", "method_name": "max"},
                ]
            }
        },
        [
            "log_processor.custom_cfg.1.data_src: 'loss' is written by entry 0 already. Give each entry a log_name of its own. [FK004]",
            "log_processor.custom_cfg.2.log_name: 'loss' is written by entry 0 already. Give each entry a log_name of its own. [FK004]",
            "log_processor.custom_cfg.3.log_name: 'lr' is what the run itself logs under that name. Use another log_name. [FK019]",
        ],
    ),
    "rules no epochs": (
        {
            "train_cfg": {"by_epoch": False, "max_iters": 9},
            "param_scheduler": None,
            "log_processor": {
                "custom_cfg": [{"data_src": "loss", "method_name": "mean", "window_size": "epoch"}],
                "by_epoch": True,
            },
        },
        [
            "log_processor.by_epoch: counts epochs, and the iteration loop has none. Remove it, or write False. [FS003]",
            'log_processor.custom_cfg.0.window_size: counts epochs, and the iteration loop has none. Use a number, or "global". [FS003]',
        ],
    ),
    "rules epochs left out": (
        {
            "log_processor": {
                "custom_cfg": [{"data_src": "loss", "method_name": "mean", "window_size": "epoch"}],
                "by_epoch": False,
            }
        },
        [
            'log_processor.custom_cfg.0.window_size: counts epochs, and by_epoch=False leaves them out. Use a number, or "global". [FS003]'
        ],
    ),
    "logger": (
        {
            "default_hooks": {
                "logger": {
                    "type": "LoggerHook",
                    "interval": 0,
                    "interval_exp_name": 0,
                    "keep_local": False,
                    "backend_args": {"a": 1},
                    "file_client_args": {},
                    "out_dir": "s3://b/c",
                }
            }
        },
        [
            "default_hooks.logger.interval: must be at least 1, got 0. Correct the value. [FK020]",
            "default_hooks.logger.interval_exp_name: must be at least 1, got 0. Correct the value. [FK020]",
            "default_hooks.logger.keep_local: is False, and a resume and `flexcore report` read the local files. Remove it, and the files once they are not needed. [FK014]",
            "default_hooks.logger.backend_args: is for remote storage, and only directories are written to. Remove it, and copy the files from out_dir. [FK014]",
            "default_hooks.logger.file_client_args: is for remote storage, and only directories are written to. Remove it, and copy the files from out_dir. [FK014]",
            "default_hooks.logger.out_dir: names remote storage, and only directories are written to: 's3://b/c'. Name a directory, and copy the files from there. [FK014]",
        ],
    ),
    "logger paths": (
        {"default_hooks": {"logger": {"type": "LoggerHook", "out_dir": "a\x00b"}}},
        ["default_hooks.logger.out_dir: is not a usable path: 'a\\x00b'. Write a plain path. [FC010]"],
    ),
    "logger epochs": (
        {
            "train_cfg": {"by_epoch": False, "max_iters": 9},
            "param_scheduler": None,
            "default_hooks": {"logger": {"type": "LoggerHook", "log_metric_by_epoch": True}},
        },
        [
            "default_hooks.logger.log_metric_by_epoch: counts epochs, and the iteration loop has none. Remove it. [FS003]"
        ],
    ),
    "no logger": (
        {
            "default_hooks": {"logger": None},
            "log_processor": {"custom_cfg": [{"data_src": "loss", "method_name": "mean"}]},
            "visualizer": {"vis_backends": ["LocalVisBackend", "TensorboardVisBackend", "WandbVisBackend"]},
        },
        [
            "log_processor.custom_cfg: does nothing, as there is no LoggerHook to log values. Remove it, or keep the LoggerHook. [FK019]",
            "visualizer.vis_backends.1: does nothing, as there is no LoggerHook to log values. Remove it, or keep the LoggerHook. [FK019]",
            "visualizer.vis_backends.2: does nothing, as there is no LoggerHook to log values. Remove it, or keep the LoggerHook. [FK019]",
        ],
    ),
    "doubled": (
        {"visualizer": {"vis_backends": ["WandbVisBackend", "TensorboardVisBackend", "WandbVisBackend"]}},
        ["visualizer.vis_backends.2: is of the same type as entry 0. Keep one of them. [FK004]"],
    ),
    "wandb": (
        {
            "visualizer": {
                "vis_backends": [
                    {
                        "type": "WandbVisBackend",
                        "save_dir": "a",
                        "commit": False,
                        "define_metric_cfg": {"a*b": "max", "acc": "biggest", "x": 3},
                        "watch_kwargs": {"lg": 1, "log": "weights", "log_freq": 0},
                        "init_kwargs": {"dir": "b", "resume": True, "id": "a/b"},
                    }
                ]
            }
        },
        [
            "visualizer.vis_backends.0.commit: is False, which keeps every value in memory and writes one row at the end. Remove it. [FK014]",
            "visualizer.vis_backends.0.init_kwargs.resume: is decided by the run: one that is resumed goes on under its id. Remove it. [FK019]",
            "visualizer.vis_backends.0.init_kwargs.id: is no usable run id: 'a/b'. Write a plain name without any of / \\ # ? % :. [FK020]",
            "visualizer.vis_backends.0.init_kwargs.dir: and save_dir both name where the files go. Keep one of them. [FK019]",
            'visualizer.vis_backends.0.define_metric_cfg.a*b: is no metric\'s name: \'a*b\'. Write "acc", or "val/*". [FK020]',
            "visualizer.vis_backends.0.define_metric_cfg.acc: has the summary 'biggest'. Known: min, max, mean, last, first, copy, none. [FK020]",
            "visualizer.vis_backends.0.define_metric_cfg.x: has the summary 3. Known: min, max, mean, last, first, copy, none. [FK020]",
            'visualizer.vis_backends.0.watch_kwargs.lg: is not known here. Did you mean "log"? [FK010]',
            "visualizer.vis_backends.0.watch_kwargs.log: cannot be 'weights'. Correct the value. [FK020]",
            "visualizer.vis_backends.0.watch_kwargs.log_freq: must be at least 1, got 0. Correct the value. [FK020]",
        ],
    ),
    "wandb shape": (
        {
            "visualizer": {
                "vis_backends": [
                    {
                        "type": "WandbVisBackend",
                        "init_kwargs": {"mode": "disabled", "projct": "x"},
                        "define_metric_cfg": [{"name": "a", "sumary": "max"}],
                    }
                ]
            }
        },
        [
            'visualizer.vis_backends.0.init_kwargs.mode: must be one of "offline", "online", got \'disabled\'. Pick one of them. [FK011]',
            'visualizer.vis_backends.0.init_kwargs.projct: is not a setting of WandbInit. Did you mean "project"? [FK010]',
            'visualizer.vis_backends.0.define_metric_cfg.0.sumary: is not a setting of DefineMetric. Did you mean "summary"? [FK010]',
        ],
    ),
    "wandb list": (
        {
            "visualizer": {
                "vis_backends": [
                    {
                        "type": "WandbVisBackend",
                        "define_metric_cfg": [{"name": "acc", "summary": "max,best"}, {"name": ""}],
                    }
                ]
            }
        },
        [
            "visualizer.vis_backends.0.define_metric_cfg.0: has the summary 'best'. Known: min, max, mean, last, first, copy, none. [FK020]",
            'visualizer.vis_backends.0.define_metric_cfg.1: is no metric\'s name: \'\'. Write "acc", or "val/*". [FK020]',
        ],
    ),
    "mlflow": (
        {
            "visualizer": {
                "vis_backends": [
                    {
                        "type": "MLflowVisBackend",
                        "save_dir": "a",
                        "tracking_uri": "http://h",
                        "exp_name": "",
                        "tracked_config_keys": ["modle", "zzz"],
                        "tags": {1: 2},
                    }
                ]
            }
        },
        [
            "visualizer.vis_backends.0.exp_name: is not a usable name: ''. Write plain text. [FC010]",
            "visualizer.vis_backends.0.tracking_uri: and save_dir both name where the runs are kept. Keep one of them. [FK019]",
            "visualizer.vis_backends.0.tracked_config_keys.0: is no key of a config: 'modle'. Did you mean \"model\"? [FK010]",
            "visualizer.vis_backends.0.tracked_config_keys.1: is no key of a config: 'zzz'. Name a key of the config. [FK010]",
            "visualizer.vis_backends.0.tags: is no usable name: 1. Write plain text. [FK011]",
        ],
    ),
    "tb": (
        {"visualizer": {"vis_backends": [{"type": "TensorboardVisBackend", "save_dir": " "}]}},
        ["visualizer.vis_backends.0.save_dir: is not a usable path: ' '. Write a plain path. [FC010]"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_setting_that_cannot_be_kept_is_told_what_and_why(name):
    changes, expected = CASES[name]
    assert told(base(**changes), KNOWN) == expected


def test_by_default_there_are_events_and_tensorboard():
    logging = planned().logging
    assert logging.backends == (LocalBackend(), TensorBoardBackend())
    assert (logging.by_epoch, logging.hierarchy, logging.metric_axis, logging.board) == (
        True, True, "iter", "tensorboard",
    )  # fmt: skip


def test_backends_are_planned_with_their_settings():
    """Each as it was asked for, the local record always and first; TensorBoard's directory is the visualizer's name."""
    asked = V(
        {"type": "WandbVisBackend", "init_kwargs": {"project": "p", "tags": ["a"]}, "define_metric_cfg": {"acc": "max"}},
        "mmengine.visualization.TensorboardVisBackend", "LocalVisBackend",
        {"type": "MLflowVisBackend", "params": {"a": 1}, "artifact_suffix": ".log"}, name="board",
    )  # fmt: skip
    plan = planned(**asked)
    assert plan.logging.backends == (
        LocalBackend(),
        WandbBackend(
            init_kwargs=WandbInit(project="p", tags=("a",)), define_metric_cfg=Data((("acc", "max"),))
        ),
        TensorBoardBackend(),
        MLflowBackend(params=Data((("a", 1),)), artifact_suffix=".log"),
    )
    assert plan.logging.board == "board"
    assert Plan.from_json(plan.to_json()) == plan


def test_without_a_logger_hook_only_events_are_kept():
    logging = planned(default_hooks={"logger": None}).logging
    assert (logging.interval, logging.backends, logging.rules) == (None, (LocalBackend(),), ())


def test_rules_are_planned_with_what_they_leave_out():
    """Without log_name the source is replaced; without a window it is all values, for current the last."""
    plan = planned(**R(
        {"data_src": "loss", "method_name": "mean"},
        {"data_src": "loss", "log_name": "now", "method_name": "current"},
        {"data_src": "loss", "log_name": "top", "method_name": "max", "window_size": "epoch"},
        {"data_src": "loss", "log_name": "mine", "method_name": "pkg:f", "window_size": 5, "weight": 2},
    ))  # fmt: skip
    assert plan.logging.rules == (
        LogRule(source="loss", name="loss", method="mean", window="global"),
        LogRule(source="loss", name="now", method="current", window=1),
        LogRule(source="loss", name="top", method="max", window="epoch"),
        LogRule(source="loss", name="mine", method="pkg:f", window=5, kwargs=Data((("weight", 2),))),
    )
    assert Plan.from_json(plan.to_json()) == plan


def test_the_loggers_settings_are_planned_whole():
    """Without the hook what it decides is left at rest, and the processor's own settings stay."""
    asked = {
        "window_size": 7, "num_digits": 2, "mean_pattern": "acc", "log_with_hierarchy": False,
        "custom_cfg": [{"data_src": "loss", "method_name": "max"}],
    }  # fmt: skip
    own = LG(
        interval=3, ignore_last=False, interval_exp_name=50, log_metric_by_epoch=True, out_dir="kept/", out_suffix=".log",
    )  # fmt: skip
    whole = Logging(
        interval=3, ignore_last=False, window=7, digits=2, level="DEBUG",
        backends=(LocalBackend(), TensorBoardBackend()), mean_pattern="acc", by_epoch=True, hierarchy=False,
        metric_axis="epoch", rules=(LogRule(source="loss", name="loss", method="max", window="global"),),
        name_interval=50, board="tensorboard", copies=Copies(directory="kept/base", suffixes=(".log",)),
    )  # fmt: skip
    assert planned(log_processor=asked, log_level="DEBUG", **own).logging == whole
    del asked["custom_cfg"]
    silent = evolve(
        whole, interval=None, ignore_last=True, backends=(LocalBackend(),), rules=(), metric_axis="iter",
        name_interval=None, copies=None,
    )  # fmt: skip
    assert planned(log_processor=asked, log_level="DEBUG", default_hooks={"logger": None}).logging == silent


@pytest.mark.parametrize(
    ("work_dir", "out_dir", "directory"),
    [
        ("runs/a/b/", "kept//", "kept/b"), ("/runs", "/X", "/X/runs"), ("runs/aX//", "keptX/", "keptX/aX"),
        ("alone", "kept", "kept/alone"), ("a ", "kept", "kept/a "),
    ],
)  # fmt: skip
def test_copies_go_under_the_work_dirs_own_name(work_dir, out_dir, directory):
    logging = planned(work_dir=work_dir, **LG(out_dir=out_dir, out_suffix=[".log", ".json"])).logging
    assert logging.copies == Copies(directory=directory, suffixes=(".log", ".json"))


@pytest.mark.parametrize(("asked", "loop", "by_epoch"), [
    (None, {}, True), (None, ITER, False), (True, {}, True), (False, {}, False), (False, ITER, False),
])  # fmt: skip
def test_lines_count_what_is_asked_for_or_what_the_loop_counts(asked, loop, by_epoch):
    assert planned(**{"log_processor": {"by_epoch": asked}, **loop}).logging.by_epoch is by_epoch


STARTED = evolve(KNOWN, started_at="20260102_030405", entropy=7)


def record_of(facts, **changes):
    plan = flexcore.plan(base(work_dir="w", experiment_name="mine", **changes), facts)
    return plan.record, plan.title


def test_a_fresh_start_begins_a_record_under_the_name_of_its_log_directory():
    plan = flexcore.plan(base(work_dir="w", experiment_name="mine"), STARTED)
    assert plan.names.log_dir == f"w/{plan.record}"
    assert plan.title == f"mine_{plan.record}"
    assert record_of(Facts()) == (None, "mine")


def test_a_resume_in_the_same_work_dir_goes_on_with_the_record():
    facts = evolve(STARTED, checkpoints=(checkpoint(50, record="20260101_000000_abcdef"),))
    assert record_of(facts, resume=True) == ("20260101_000000_abcdef", "mine_20260101_000000_abcdef")
    assert isinstance(flexcore.plan(base(work_dir="w", resume=True), facts).start, Resume)
    own = evolve(STARTED, named_checkpoint=checkpoint(50, record="r"), checkpoints=facts.checkpoints)
    assert record_of(own, resume="other/iter_50")[0].startswith("20260102_030405_")


def test_a_checkpoint_of_another_work_dir_or_without_a_record_begins_one():
    other = evolve(STARTED, checkpoints=(), named_checkpoint=checkpoint(50, record="20260101_000000_abcdef"))
    assert record_of(other, resume=True, load_from="elsewhere/iter_50")[0].startswith("20260102_030405_")
    silent = evolve(STARTED, checkpoints=(checkpoint(50),))
    assert record_of(silent, resume=True)[0].startswith("20260102_030405_")


def test_settings_of_trackers_that_fit_are_taken():
    trackers = [
        {"type": "WandbVisBackend", "watch_kwargs": {"log": "all", "log_freq": 5}},
        {"type": "MLflowVisBackend", "tracked_config_keys": ["model", "optim_wrapper"]},
    ]
    assert told(base(visualizer={"vis_backends": trackers})) == []


@pytest.mark.parametrize(
    ("text", "fits"), [("a/b", True), ("", False), ("  ", False), ("a\0", False), ("\ud800", False)]
)
def test_a_name_a_file_system_can_hold(text, fits):
    assert usable(text) is fits
