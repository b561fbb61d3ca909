"""Loggers and visualizer backends: every finding, whole, beside those of test_reporting; and the values just inside."""

import pytest

from tests.flexcore.base import KNOWN, base, said


def tracked(kind, **settings):
    return base(visualizer={"vis_backends": [{"type": f"{kind}VisBackend", **settings}]})


def run_id(name):
    return tracked("Wandb", init_kwargs={"id": name})


CASES = {
    "the name at each": (base(default_hooks={"logger": {"type": "LoggerHook", "interval_exp_name": 1}}), KNOWN, []),
    "Wandb's directories": (tracked("Wandb", save_dir=" ", init_kwargs={"dir": "\0"}), KNOWN, [
        "visualizer.vis_backends.0.save_dir: is not a usable path: ' '. Write a plain path. [FC010]",
        "visualizer.vis_backends.0.init_kwargs.dir: is not a usable path: '\\x00'. Write a plain path. [FC010]",
        "visualizer.vis_backends.0.init_kwargs.dir: and save_dir both name where the files go. Keep one of them. [FK019]",
    ]),
    "a run id": (run_id("run-1"), KNOWN, []),
    "a run id of nothing": (run_id(""), KNOWN, [
        "visualizer.vis_backends.0.init_kwargs.id: is no usable run id: ''. Write a plain name without any of / \\ # ? % :. [FK020]",
    ]),
    "a run id with a space": (run_id("a "), KNOWN, [
        "visualizer.vis_backends.0.init_kwargs.id: is no usable run id: 'a '. Write a plain name without any of / \\ # ? % :. [FK020]",
    ]),
    "what is watched": (tracked("Wandb", watch_kwargs={"zzz": 1, "log_frq": 1, "log_freq": 0, "log": "all"}), KNOWN, [
        "visualizer.vis_backends.0.watch_kwargs.zzz: is not known here. Known: log, log_freq, log_graph. [FK010]",
        'visualizer.vis_backends.0.watch_kwargs.log_frq: is not known here. Did you mean "log_freq"? [FK010]',
        "visualizer.vis_backends.0.watch_kwargs.log_freq: must be at least 1, got 0. Correct the value. [FK020]",
    ]),
    "what is watched each time": (tracked("Wandb", watch_kwargs={"log_freq": 1}), KNOWN, []),
    "MLflow's directory": (tracked("MLflow", save_dir=" "), KNOWN, [
        "visualizer.vis_backends.0.save_dir: is not a usable path: ' '. Write a plain path. [FC010]",
    ]),
    "MLflow's server": (tracked("MLflow", tracking_uri="http://host"), KNOWN, []),
    "MLflow's parameters": (tracked("MLflow", params={"": 1}, tags={"a": 1}), KNOWN, [
        "visualizer.vis_backends.0.params: is no usable name: ''. Write plain text. [FK011]",
    ]),
    "local files": (tracked("Local"), KNOWN, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_reporting(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
