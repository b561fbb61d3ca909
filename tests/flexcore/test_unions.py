"""How members of the closed unions are named in configs: what each name becomes, and what is said of the others."""

import pytest

from flexcore import Supplied, loops, parse
from flexcore.components import Component, Data
from flexcore.config import AmpOptim, DefaultSampler, NamedOptim, OptimDict, PlainOptim
from flexcore.converting import parse_partly
from flexcore.hooks import Logger, UserHook
from flexcore.log_specs import LogProcessor
from flexcore.loops import TTA, EpochLoop, IterLoop, OwnEvalLoop, OwnTrainLoop, ValLoop
from flexcore.schedules import CosineRestart, Linear, Step
from flexcore.strategies import DDP, Auto, DeepSpeed
from flexcore.unions import TAGGED, component_reader, is_by_name, label, tag_of, tagged_for

SGD = {"type": "SGD", "lr": 0.1}
OPTIMIZER = Component(type="SGD", kwargs=Data((("lr", 0.1),)))
LOOP = {"type": "pkg:Loop", "a": 1}
OWN = Component(type="pkg:Loop", kwargs=Data((("a", 1),)))


@pytest.mark.parametrize(("key", "written", "value"), [
    ("strategy", "DDPStrategy", DDP()),
    ("strategy", {"type": "mmengine._strategy:DDPStrategy", "static_graph": True}, DDP(static_graph=True)),
    ("strategy", "mmengine:DDPStrategy", DDP()), ("strategy", "auto", Auto()), ("strategy", "MMDeepSpeedStrategy", DeepSpeed()),
    ("param_scheduler", {"type": "torch.optim.lr_scheduler.LinearLR"}, (Linear(param="lr"),)),
    ("param_scheduler", [{"type": "StepMomentum"}, {"type": "CosineRestartLR", "periods": [5], "restart_weights": [1.0]}],
     (Step(param="momentum"), CosineRestart(param="lr", periods=(5,), restart_weights=(1.0,)))),
    ("param_scheduler", {"type": "LinearParamScheduler", "param_name": "betas"}, (Linear(param="betas"),)),
    ("custom_hooks", [{"type": "mmengine.hooks.LoggerHook", "interval": 5}], (Logger(interval=5),)),
    ("custom_hooks", ["pkg:LoggerHook"], (UserHook(component=Component(type="pkg:LoggerHook")),)),
    ("custom_hooks", [{"type": "pkg.hooks.Mine", "priority": "LOW", "a": 1}, {"type": "torch.pkg:Mine", "priority": 5}],
     (UserHook(component=Component(type="pkg.hooks.Mine", kwargs=Data((("a", 1),))), priority="LOW"),
      UserHook(component=Component(type="torch.pkg:Mine"), priority=5))),
    ("optim_wrapper", {"optimizer": SGD}, PlainOptim(optimizer=OPTIMIZER)),
    ("optim_wrapper", {"type": "DeepSpeedOptimWrapper", "optimizer": "SGD"}, PlainOptim(optimizer=Component(type="SGD"))),
    ("optim_wrapper", {"a": {"optimizer": SGD}, "b": {"type": "AmpOptimWrapper", "optimizer": Supplied()}}, OptimDict(wrappers=(
        NamedOptim(name="a", wrapper=PlainOptim(optimizer=OPTIMIZER)), NamedOptim(name="b", wrapper=AmpOptim(optimizer=Supplied()))))),
    ("optim_wrapper", {"type": "mmengine.optim:OptimWrapperDict", "constructor": "pkg:Make", "a": {"optimizer": SGD}},
     OptimDict(wrappers=(NamedOptim(name="a", wrapper=PlainOptim(optimizer=OPTIMIZER)),), constructor="pkg:Make")),
    ("train_cfg", {"by_epoch": True, "max_epochs": 3}, EpochLoop(max_epochs=3)), ("train_cfg", {"max_epochs": 3}, EpochLoop(max_epochs=3)),
    ("train_cfg", {"by_epoch": False, "max_iters": 3}, IterLoop(max_iters=3)), ("train_cfg", {"max_iters": 3}, IterLoop(max_iters=3)),
    ("train_cfg", {"type": "IterBasedTrainLoop", "max_iters": 3}, IterLoop(max_iters=3)), ("train_cfg", LOOP, OwnTrainLoop(component=OWN)),
    ("val_cfg", {}, ValLoop()), ("val_cfg", {"type": "ValLoop", "fp16": True}, ValLoop(fp16=True)), ("val_cfg", LOOP, OwnEvalLoop(component=OWN)),
    ("test_cfg", LOOP, OwnEvalLoop(component=OWN)), ("test_cfg", {"tta": {"transforms": ["hflip"], "merge": "pkg:m"}},
     loops.TestLoop(tta=TTA(transforms=(Component(type="hflip"),), merge="pkg:m"))),
    ("test_cfg", {"tta": LOOP}, loops.TestLoop(tta=OWN)),
    ("model", "pkg:Net", Component(type="pkg:Net")), ("model", {"type": "pkg:Net", "a": {1: [2]}, "b": "x"}, Component(
        type="pkg:Net", kwargs=parse({"model": {"type": "x", "a": {1: [2]}, "b": "x"}}).model.kwargs)),
    ("log_processor", {"type": "mmengine.runner:LogProcessor", "window_size": 5}, LogProcessor(window_size=5)),
    ("log_processor", {"type": "LogProcessor"}, LogProcessor()), ("log_processor", {"window_size": 5}, LogProcessor(window_size=5)),
])  # fmt: skip
def test_names_of_members_and_import_paths_where_they_may_stand(key, written, value):
    assert getattr(parse({key: written}), key) == value


SCHEDULES = ", ".join(
    form + suffix
    for form in ("Constant", "CosineAnnealing", "CosineRestart", "Exponential", "Linear", "MultiStep", "OneCycle", "Poly",
                 "ReduceOnPlateau", "Step")
    for suffix in ("LR", "Momentum", "ParamScheduler")
)  # fmt: skip
FREED = "holds flexcore.Supplied(), which only fills a slot of its own. Supply the model, loader, dataset, optimizer, metric or loss itself. [FK016]"
WRAPPER = "Remove it; known here: accumulation_tail, accumulative_counts, clip_grad, constructor, optimizer, paramwise_cfg. [FK010]"
LOOPS = 'Known: EpochBasedTrainLoop, IterBasedTrainLoop, or "pkg.module:Name"'
STRATEGIES = "Known: DDPStrategy, DeepSpeedStrategy, FSDPStrategy, MMDeepSpeedStrategy, SingleDeviceStrategy, TensorParallelStrategy, auto"


@pytest.mark.parametrize(("key", "written", "told"), [
    ("strategy", {}, [f': lacks the key "type". {STRATEGIES}. [FK012]']),
    ("strategy", {"type": 4}, [f".type: must be text, got 4. {STRATEGIES}. [FK011]"]),
    ("strategy", "pkg:DDPStrategy", [".type: 'pkg:DDPStrategy' is not a known strategy. Did you mean \"DDPStrategy\"? [FK013]"]),
    ("strategy", "X", [f".type: 'X' is not a known strategy. {STRATEGIES}. [FK013]"]),
    ("strategy", "mmengine.X:ColossalAIStrategy", ['.type: "ColossalAIStrategy" is retired. Use FSDPStrategy. [FK017]']),
    ("train_cfg", {"type": 3}, [f".type: must be text, got 3. {LOOPS}. [FK011]"]),
    ("train_cfg", {"type": "X"}, [f".type: 'X' is not a known training loop. {LOOPS}. [FK013]"]),
    ("train_cfg", "X", [": must be a mapping, got 'X'. Write dict(by_epoch=True, max_epochs=...). [FK011]"]),
    ("train_cfg", {"type": "X", "by_epoch": True}, [': has both "type" and "by_epoch". Keep one of them. [FK019]']),
    ("train_cfg", {"by_epoch": 1}, [".by_epoch: must be true or false, got 1. Correct the value. [FK011]"]),
    ("train_cfg", {"by_epoch": True}, [': lacks the key "max_epochs". Add "max_epochs". [FK012]']),
    ("train_cfg", {"val_interval": 1}, [": lacks the length of the run. Add max_epochs (epoch loop) or max_iters (iteration loop). [FK012]"]),
    ("train_cfg", {"max_epochs": 1, "max_iters": 2}, [': has both "max_epochs" and "max_iters". Keep one of them. [FK019]']),
    ("train_cfg", {"type": "pkg:Loop", 3: 1}, [": has the key 3; argument names are text. Rename the key. [FK011]"]),
    ("val_cfg", {"type": "pkg:Loop", 3: 1}, [": has the key 3; argument names are text. Rename the key. [FK011]"]),
    ("val_cfg", {"type": "Mine"}, [".type: 'Mine' is not a known validation loop. Known: ValLoop, or \"pkg.module:Name\". [FK013]"]),
    ("custom_hooks", [{"type": "pkg:H", 3: 1}], [".0: has the key 3; argument names are text. Rename the key. [FK011]"]),
    ("custom_hooks", [{"type": "pkg:H", "priority": True}],
     [".0.priority: must be a name or an integer, got True. Use 0-100 or NORMAL. [FK011]"]),
    ("custom_hooks", [{"type": "pkg:H", "a": [Supplied()]}], [f".0.a: {FREED}"]),
    ("param_scheduler", {}, [f".0: lacks the key \"type\". Known: {SCHEDULES}. [FK012]"]),
    ("param_scheduler", {"type": None}, [f".0: lacks the key \"type\". Known: {SCHEDULES}. [FK012]"]),
    ("param_scheduler", {"type": []}, [f".0.type: must be text, got []. Known: {SCHEDULES}. [FK011]"]),
    ("param_scheduler", {"type": "LinearLR", "param_name": "lr"}, [".0.param_name: is fixed by the type LinearLR. Remove it. [FK010]"]),
    ("optim_wrapper", {"type": 3, "a": {"optimizer": SGD}}, [
        ".type: must be text, got 3. Known: AmpOptimWrapper, DeepSpeedOptimWrapper, OptimWrapper. [FK011]"]),
    ("optim_wrapper", {"optimizer": SGD, "a": {"optimizer": SGD}}, [
        f".a: is not a setting of OptimWrapper. {WRAPPER}"]),
    ("optim_wrapper", {"a": {}, "b": {}}, [
        ': lacks the key "optimizer". Add "optimizer". [FK012]',
        f".a: is not a setting of OptimWrapper. {WRAPPER}", f".b: is not a setting of OptimWrapper. {WRAPPER}"]),
    ("optim_wrapper", {"a": {"optimizer": SGD}, "b": 3}, [
        ': lacks the key "optimizer". Add "optimizer". [FK012]',
        f".a: is not a setting of OptimWrapper. {WRAPPER}", f".b: is not a setting of OptimWrapper. {WRAPPER}"]),
    ("test_cfg", {"tta": {"transforms": [5, {}, {"type": ""}, {"type": 3}]}}, [
        '.tta.transforms.0: must be a mapping with a type, got 5. Write dict(type="pkg.module:Name", ...). [FK011]',
        '.tta.transforms.1: lacks the key "type". Add type="pkg.module:Name". [FK012]',
        ".tta.transforms.2.type: must be text, got ''. Write type=\"pkg.module:Name\". [FK011]",
        '.tta.transforms.3.type: must be text, got 3. Write type="pkg.module:Name". [FK011]']),
    ("model", {"type": "pkg:Net", "a": {"b": Supplied()}, "c": Supplied()}, [f".a: {FREED}"]),
    ("log_processor", {"type": 3}, [".type: 3: a type of your own here is known but not built yet. Use LogProcessor. [FK014]"]),
    ("log_processor", {"type": "pkg:Mine"},
     [".type: 'pkg:Mine': a type of your own here is known but not built yet. Use LogProcessor. [FK014]"]),
    ("auto_scale_lr", {"type": "AutoScaleLR"}, [
        ".type: is not a setting of AutoScaleLR. Remove it; known here: base_batch_size, enable. [FK010]"]),
])  # fmt: skip
def test_what_is_said_of_names_that_are_not_known_or_not_whole(key, written, told):
    assert [str(problem).removeprefix(key) for problem in parse_partly({key: written})[1]] == told


@pytest.mark.parametrize(("written", "by_name"), [
    ({"a": [], "b": None, "c": (), "d": {}}, True), ({"a": 1}, False), ({"a": [], "b": "x"}, False), ({}, False), ({"type": []}, False),
    ([], False), (None, False),
])  # fmt: skip
def test_schedules_by_name_are_a_mapping_of_lists(written, by_name):
    assert is_by_name(written) is by_name


@pytest.mark.parametrize(("value", "tag"), [
    (DDP(), "DDPStrategy"), (DeepSpeed(), "DeepSpeedStrategy"), (EpochLoop(max_epochs=1), "EpochBasedTrainLoop"),
    (PlainOptim(optimizer=OPTIMIZER), "OptimWrapper"), (TTA(transforms=()), "TTA"), (Step(param="lr"), "StepLR"),
    (Step(param="momentum"), "StepMomentum"), (Step(param="betas"), "StepParamScheduler"), (OPTIMIZER, None), (3, None),
])  # fmt: skip
def test_what_a_member_is_written_as(value, tag):
    assert tag_of(value) == tag


@pytest.mark.parametrize(("cls", "called"), [
    (DDP, "DDPStrategy"), (Step, "StepLR"), (NamedOptim, "NamedOptim"), (DefaultSampler, "DefaultSampler"), (OptimDict, "OptimWrapperDict"),
])  # fmt: skip
def test_how_a_section_is_called(cls, called):
    assert label(cls) == called


def test_which_reader_a_union_has():
    assert tagged_for((DDP, None)) is TAGGED[0]
    assert tagged_for((DefaultSampler, Component)) is TAGGED[2]
    assert tagged_for((Component, Supplied)) is component_reader
    assert tagged_for((int, NamedOptim)) is None
