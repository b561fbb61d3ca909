"""From plain data to a Config and back to what was misread: every misfit at its path, and all that is sound beside it."""

import pytest
from attrs import fields

from flexcore import ConfigError, Facts, parse
from flexcore.components import Component, Data
from flexcore.config import Config, DataLoader, Randomness
from flexcore.converting import parse_partly, structure
from flexcore.plain import MAX_VALUES
from flexcore.strategies import DDP

EVERY = frozenset(field.name for field in fields(Config))
NET = Component(type="pkg:Net", kwargs=Data((("a", 1),)))
SETTINGS = "is not a setting of"
LIVE = "is a live object (builtins.object), and a config holds plain data."
REMEDY = "Put flexcore.Supplied() here and pass the object to shell.execute(plan, ...). [FK016]"


@pytest.mark.parametrize(("written", "config", "told", "broken"), [
    ({}, Config(), [], set()),
    ({"model": {"type": "pkg:Net", "a": 1}, "work_dir": "x"}, Config(model=NET, work_dir="x"), [], set()),
    ([1], Config(), ["config: must be a mapping of settings, got [1]. Pass a dict. [FK011]"], EVERY),
    ({"a": [0] * MAX_VALUES}, Config(),
     ["a: holds more than 250,000 values, counted from the top of the config. Keep data in files of its own. [FK015]"], EVERY),
    ({"work_dir": object()}, Config(), [f"work_dir: {LIVE} {REMEDY}"], {"work_dir"}),
    ({"work_dir": object(), "model": "pkg:Net", "randomness": {"seed": 3}},
     Config(model=Component(type="pkg:Net"), randomness=Randomness(seed=3)), [f"work_dir: {LIVE} {REMEDY}"], {"work_dir"}),
    ({"train_dataloader": {"dataset": object(), "batch_size": "x"}, "launcher": "mpi"}, Config(launcher="mpi"),
     [f"train_dataloader.dataset: {LIVE} {REMEDY}", "train_dataloader.batch_size: must be an integer or None, got 'x'. Correct the value. [FK011]"],
     {"train_dataloader"}),
    ({"log_level": "LOUD", "resume": 3, "work_dir": "x", "strategy": "DDPStrategy"}, Config(work_dir="x", strategy=DDP()),
     ['log_level: must be one of "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", got \'LOUD\'. Pick one of them. [FK011]',
      "resume: must be true or false or text, got 3. Correct the value. [FK011]"], {"log_level", "resume"}),
    ({3: 1, "zzz": 2, "work_dir": "x"}, Config(work_dir="x"), [
        f"3: {SETTINGS} the config. Remove it; known here: {', '.join(sorted(EVERY))}. [FK010]",
        f"zzz: {SETTINGS} the config. Remove it; known here: {', '.join(sorted(EVERY))}. [FK010]"], {"3", "zzz"}),
])  # fmt: skip
def test_what_is_sound_is_read_beside_every_misfit(written, config, told, broken):
    found, problems, left_out = parse_partly(written)
    assert (found, [str(problem) for problem in problems], left_out) == (config, told, broken)
    if told:
        with pytest.raises(ConfigError) as caught:
            parse(written)
        assert caught.value.problems == tuple(problems)
    else:
        assert parse(written) == config


TTA = (
    'is retired. Set test_cfg=dict(tta=dict(transforms=["identity", "hflip"])), with merge="pkg.module:function" for what '
    "merge_preds did. [FK017]"
)


@pytest.mark.parametrize(("written", "told"), [
    ({"cfg": 1}, [f"cfg: {SETTINGS} the config. Remove it: the config is what you pass. [FK010]"]),
    ({"find_unused_parameters": True}, [
        f'find_unused_parameters: {SETTINGS} the config. Write strategy=dict(type="DDPStrategy", find_unused_parameters=True). [FK010]']),
    ({"tta_model": 1}, [f"tta_model: {TTA}"]), ({"tta_pipeline": 1}, [f"tta_pipeline: {TTA}"]),
    ({"randomness": {"tta_model": 1}},
     [f"randomness.tta_model: {SETTINGS} Randomness. Remove it; known here: deterministic, diff_rank_seed, seed. [FK010]"]),
    ({"strategy": {"type": "auto", "init_sync": True, "model_wrapper": {}}}, [
        f"strategy.init_sync: {SETTINGS} auto. Remove it: ranks always start equal. [FK010]",
        f"strategy.model_wrapper: {SETTINGS} auto. Write its settings, such as find_unused_parameters, in the strategy itself. [FK010]"]),
    ({"auto_scale_lr": {"zzz": 1, 3: 4}}, [
        f"auto_scale_lr.3: {SETTINGS} AutoScaleLR. Remove it; known here: base_batch_size, enable. [FK010]",
        f"auto_scale_lr.zzz: {SETTINGS} AutoScaleLR. Remove it; known here: base_batch_size, enable. [FK010]"]),
    ({"env_cfg": {"dist_cfg": {"init_backend": "x", "timeout": "y", "Backend": "z"}}}, [
        "env_cfg.dist_cfg.timeout: must be a number, got 'y'. Correct the value. [FK011]",
        f'env_cfg.dist_cfg.Backend: {SETTINGS} DistCfg. Did you mean "backend"? [FK010]',
        f"env_cfg.dist_cfg.init_backend: {SETTINGS} DistCfg. Remove it; torch.distributed is what ranks meet through. [FK010]"]),
    ({"strategy": {"type": "SingleDeviceStrategy", "x": 1}},
     [f"strategy.x: {SETTINGS} SingleDeviceStrategy. Remove it; known here: none. [FK010]"]),
    ({"param_scheduler": [{"type": "ConstantLR", "factor": "x"}, {"type": "ConstantLR", "factor_value": 1}]}, [
        "param_scheduler.0.factor: must be a number, got 'x'. Correct the value. [FK011]",
        f'param_scheduler.1.factor_value: {SETTINGS} ConstantLR. Did you mean "factor"? [FK010]']),
    ({"param_scheduler": [{"type": "ConstantLR", "zzz": 1}]}, [
        f"param_scheduler.0.zzz: {SETTINGS} ConstantLR. Remove it; known here: begin, by_epoch, convert_to_iter_based, end, factor, param_name. [FK010]"]),
    ({"train_dataloader": {"batch_size": 1}}, ['train_dataloader: lacks the key "dataset". Add "dataset". [FK012]']),
    ({"default_hooks": {"timer": {"type": "IterTimerHook", 3: 1, "4": 1, "priority": "x"}}}, [
        f"default_hooks.timer.3: {SETTINGS} IterTimerHook. Remove it; known here: priority. [FK010]",
        f"default_hooks.timer.4: {SETTINGS} IterTimerHook. Remove it; known here: priority. [FK010]"]),
    ({"train_cfg": {"by_epoch": True, "max_epochs": 1, "dynamic_intervals": [[1, 2], [3, "x"], 4]}}, [
        "train_cfg.dynamic_intervals.1.1: must be an integer, got 'x'. Correct the value. [FK011]",
        "train_cfg.dynamic_intervals.2: must be a list of 2, got 4. Write it in brackets. [FK011]"]),
])  # fmt: skip
def test_every_misfit_is_told_at_its_path(written, told):
    assert [str(problem) for problem in parse_partly(written)[1]] == told


@pytest.mark.parametrize(("data", "kind", "told"), [
    ({"dataset": {"type": "x"}, "timeout": 10**400}, DataLoader,
     ["timeout: does not fit: 'int too large to convert to float'. Check the value's type. [FK011]"]),
    ({"world_size": "2", "checkpoints": [{"path": 3}]}, Facts, [
        "world_size: must be an integer or None, got '2'. Correct the value. [FK011]",
        "checkpoints.0.path: must be text, got 3. Correct the value. [FK011]",
        'checkpoints.0: lacks the key "name". Add "name". [FK012]', 'checkpoints.0: lacks the key "epoch". Add "epoch". [FK012]', 'checkpoints.0: lacks the key "iter". Add "iter". [FK012]']),
])  # fmt: skip
def test_other_values_are_read_alike(data, kind, told):
    with pytest.raises(ConfigError) as caught:
        structure(data, kind)
    assert [str(problem) for problem in caught.value.problems] == told


def test_a_key_keeps_its_kind_in_the_path():
    (problem,) = parse_partly({"randomness": {3: 1}})[1]
    assert problem.path == ("randomness", 3)
    with pytest.raises(ConfigError) as caught:
        structure({None: 1, "zzz": 2}, Randomness)
    assert [problem.path for problem in caught.value.problems] == [("None",), ("zzz",)]


def test_a_value_of_any_kind_is_read():
    assert structure({"world_size": 2}, Facts) == Facts(world_size=2)
