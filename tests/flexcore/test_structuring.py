"""Which plain data fits which kind of slot, what it becomes there, and what is said of all else. Kinds are strict."""

from typing import Any, Literal

import pytest

from flexcore import ConfigError, Supplied, parse
from flexcore.components import Component, Data, Items
from flexcore.config import (
    AmpOptim,
    ClipGrad,
    Config,
    DataLoader,
    NamedLoader,
    NamedMetric,
    NamedOptim,
    NamedSchedules,
    OptimDict,
    PlainOptim,
)
from flexcore.converting import parse_partly, structure
from flexcore.hooks import HookSlot, Logger, UserHook
from flexcore.schedules import Constant, Linear, Step
from flexcore.structuring import Misfit, Misfits

ONE = Component(type="pkg:A")
TWO = Component(type="pkg:B", kwargs=Data((("b", Items((1,))),)))
LOADER = {"dataset": "pkg:A", "batch_size": 4}
READ = DataLoader(dataset=ONE, batch_size=4)
SGD = {"optimizer": "SGD"}
PLAIN = PlainOptim(optimizer=Component(type="SGD"))


@pytest.mark.parametrize(("data", "kind", "value"), [
    (True, bool, True), (3, int, 3), (2.5, float, 2.5), (3, float, 3.0), ("x", str, "x"), ("a", Literal["a", "b"], "a"),
    ([1, 2], tuple[int, ...], (1, 2)), ((1, 2), tuple[int, ...], (1, 2)), ([], tuple[int, ...], ()), ([1, "x"], tuple[int, str], (1, "x")),
    ([[1, 2], [3, 4]], tuple[tuple[int, int], ...], ((1, 2), (3, 4))), ({"a": [1]}, Data, Data((("a", Items((1,))),))),
    (None, int | None, None), (3, int | None, 3), (3, float | None, 3.0), (3, int | float, 3), (True, bool | str, True),
    ("b", float | Literal["a", "b"], "b"), ([1], tuple[int, ...] | None, (1,)), ([1], str | tuple[int, ...], (1,)),
    ({"max_norm": 1}, ClipGrad | None, ClipGrad(max_norm=1.0)), ({"a": 1}, float | Data, Data((("a", 1),))),
    ("pkg:A", Component, ONE), ({"type": "pkg:B", "b": [1]}, Component | None, TWO), (Supplied(), Component | Supplied, Supplied()),
])  # fmt: skip
def test_what_fits_a_kind_and_what_it_becomes(data, kind, value):
    found = structure(data, kind)
    assert (found, type(found)) == (value, type(value))


NUMBER = "Correct the value. [FK011]"
BRACKETS = "Write it in brackets. [FK011]"


@pytest.mark.parametrize(("data", "kind", "told"), [
    (1, bool, [f"config: must be true or false, got 1. {NUMBER}"]), (True, int, [f"config: must be an integer, got True. {NUMBER}"]),
    (1.0, int, [f"config: must be an integer, got 1.0. {NUMBER}"]), ("1", float, [f"config: must be a number, got '1'. {NUMBER}"]),
    (True, float, [f"config: must be a number, got True. {NUMBER}"]), (1, str, [f"config: must be text, got 1. {NUMBER}"]),
    ("carri", Literal["carry", "drop"], ['config: must be one of "carry", "drop", got \'carri\'. Did you mean "carry"? [FK011]']),
    ("x", Literal["carry", "drop"], ['config: must be one of "carry", "drop", got \'x\'. Pick one of them. [FK011]']),
    (["carry"], Literal["carry"], ["config: must be one of \"carry\", got ['carry']. Pick one of them. [FK011]"]),
    (3, tuple[int, ...], [f"config: must be a list, got 3. {BRACKETS}"]), ({}, tuple[int, ...], [f"config: must be a list, got {{}}. {BRACKETS}"]),
    ([1], tuple[int, int], [f"config: must be a list of 2, got [1]. {BRACKETS}"]),
    ((1, 2, 3), tuple[int, int], [f"config: must be a list of 2, got (1, 2, 3). {BRACKETS}"]),
    ("ab", tuple[str, str], [f"config: must be a list of 2, got 'ab'. {BRACKETS}"]),
    ([1, "x", 2, None], tuple[int, ...], [f"1: must be an integer, got 'x'. {NUMBER}",
     f"3: must be an integer, got None. {NUMBER}"]),
    ([[1, 2], [3]], tuple[tuple[int, int], ...], [f"1: must be a list of 2, got [3]. {BRACKETS}"]),
    (["x", 1], tuple[int, str], [f"0: must be an integer, got 'x'. {NUMBER}", f"1: must be text, got 1. {NUMBER}"]),
    (5, Data, ["config: must be a mapping, got 5. Write dict(...). [FK011]"]),
    (None, int | tuple[str, ...], [f"config: must be an integer or a list, got None. {NUMBER}"]),
    (True, int | None, [f"config: must be an integer or None, got True. {NUMBER}"]),
    (True, float | Literal["a", "b"], [f'config: must be a number or "a" or "b", got True. {NUMBER}']),
    ("c", float | Literal["a", "b"], [f'config: must be a number or "a" or "b", got \'c\'. {NUMBER}']),
    ({}, str | tuple[int, ...], [f"config: must be text or a list, got {{}}. {NUMBER}"]),
    ([1], float | Data, [f"config: must be a number or a mapping, got [1]. {NUMBER}"]),
    (5, Component | Supplied | None, [f"config: must be a mapping or None, got 5. {NUMBER}"]),
    (Supplied(), Component | None, [f"config: must be a mapping or None, got Supplied(). {NUMBER}"]),
    (5, ClipGrad, ["config: must be a mapping, got 5. Write dict(...) with the settings of ClipGrad. [FK011]"]),
    (5, Linear, ["config: must be a mapping, got 5. Write dict(...) with the settings of LinearLR. [FK011]"]),
    (5, Component, ['config: must be a mapping with a type, got 5. Write dict(type="pkg.module:Name", ...). [FK011]']),
])  # fmt: skip
def test_what_does_not_fit_is_told_with_what_would(data, kind, told):
    with pytest.raises(ConfigError) as caught:
        structure(data, kind)
    assert [str(problem) for problem in caught.value.problems] == told


@pytest.mark.parametrize(("key", "written", "value"), [
    ("train_dataloader", Supplied(), Supplied()), ("train_dataloader", LOADER, READ),
    ("val_dataloader", LOADER, (NamedLoader(loader=READ),)), ("val_dataloader", Supplied(), (NamedLoader(loader=Supplied()),)),
    ("val_dataloader", [LOADER, Supplied()], (NamedLoader(loader=READ), NamedLoader(loader=Supplied()))),
    ("val_dataloader", {"dataset": {"type": "pkg:A"}}, (NamedLoader(loader=DataLoader(dataset=ONE)),)),
    ("val_dataloader", (LOADER,), (NamedLoader(loader=READ),)), ("val_dataloader", [], ()),
    ("val_dataloader", {"a": LOADER, "b": Supplied()}, (NamedLoader(name="a", loader=READ), NamedLoader(name="b", loader=Supplied()))),
    ("val_dataloader", {"type": LOADER}, (NamedLoader(name="type", loader=READ),)),
    ("val_evaluator", "pkg:A", (NamedMetric(metric=ONE),)), ("val_evaluator", {"type": "pkg:A"}, (NamedMetric(metric=ONE),)),
    ("val_evaluator", ["pkg:A", {"type": "pkg:B", "b": [1]}], (NamedMetric(metric=ONE), NamedMetric(metric=TWO))),
    ("val_evaluator", ("pkg:A", Supplied()), (NamedMetric(metric=ONE), NamedMetric(metric=Supplied()))),
    ("val_evaluator", Supplied(), (NamedMetric(metric=Supplied()),)),
    ("test_evaluator", {"a": {"type": "pkg:A"}, "dataset": {"type": "pkg:B", "b": [1]}},
     (NamedMetric(name="a", metric=ONE), NamedMetric(name="dataset", metric=TWO))),
    ("test_evaluator", {"a": Supplied()}, (NamedMetric(name="a", metric=Supplied()),)),
    ("param_scheduler", {"type": "LinearLR"}, (Linear(param="lr"),)),
    ("param_scheduler", [{"type": "LinearLR"}, {"type": "StepLR"}], (Linear(param="lr"), Step(param="lr"))),
    ("param_scheduler", ({"type": "ConstantMomentum", "factor": 0.5},), (Constant(param="momentum", factor_value=0.5),)),
    ("param_scheduler", [], ()), ("param_scheduler", {"a": [{"type": "LinearLR"}, {"type": "StepLR"}], "b": {"type": "StepLR"}, "c": None}, (
        NamedSchedules(name="a", schedules=(Linear(param="lr"), Step(param="lr"))),
        NamedSchedules(name="b", schedules=(Step(param="lr"),)), NamedSchedules(name="c", schedules=()))),
    ("default_hooks", {"a": {"type": "LoggerHook"}, "b": None, "c": {"type": "pkg:A"}},
     (HookSlot(key="a", hook=Logger()), HookSlot(key="b", hook=None), HookSlot(key="c", hook=UserHook(component=ONE)))),
    ("default_hooks", {}, ()), ("optim_wrapper", {"a": SGD, "constructor": None}, OptimDict(wrappers=(NamedOptim(name="a", wrapper=PLAIN),))),
    ("optim_wrapper", {"a": SGD, "b": {"type": "AmpOptimWrapper", "optimizer": "SGD", "loss_scale": 512}, "constructor": "pkg:make"}, OptimDict(
        wrappers=(NamedOptim(name="a", wrapper=PLAIN),
                  NamedOptim(name="b", wrapper=AmpOptim(optimizer=Component(type="SGD"), loss_scale=512.0))),
        constructor="pkg:make")),
])  # fmt: skip
def test_one_several_and_several_by_name(key, written, value):
    assert getattr(parse({key: written}), key) == value


@pytest.mark.parametrize(("key", "written", "told"), [
    ("val_dataloader", 5, [f": must be a mapping or a list or None, got 5. {NUMBER}"]),
    ("val_dataloader", {}, [': lacks the key "dataset". Add "dataset". [FK012]']),
    ("val_dataloader", {"a": LOADER, "b": 3}, [
        ': lacks the key "dataset". Add "dataset". [FK012]',
        *(f".{key}: is not a setting of DataLoader. Remove it; known here: batch_sampler, batch_size, collate_fn, dataset, drop_last, "
          "num_batch_per_epoch, num_workers, persistent_workers, pin_memory, prefetch_factor, sampler, timeout, worker_init_fn. [FK010]"
          for key in "ab")]),
    ("val_dataloader", {"a": LOADER, "b": {"dataset": 3}}, [f".b.dataset: must be a mapping, got 3. {NUMBER}"]),
    ("val_dataloader", {"a": LOADER, 3: LOADER}, [": has the key 3; names here are text. Put the name in quotes. [FK011]"]),
    ("val_dataloader", [LOADER, 5], [f".1: must be a mapping, got 5. {NUMBER}"]),
    ("val_dataloader", ["pkg:A"], [f".0: must be a mapping, got 'pkg:A'. {NUMBER}"]),
    ("val_evaluator", {"type": {"type": "pkg:A"}},
     [".type: must be text, got {'type': 'pkg:A'}. Write type=\"pkg.module:Name\". [FK011]"]),
    ("compile", {"a": Supplied()}, [
        ".a: holds flexcore.Supplied(), which only fills a slot of its own. Supply the model, loader, dataset, optimizer, metric or loss itself. [FK016]"]),
    ("val_evaluator", {"a": {}}, ['.a: lacks the key "type". Add type="pkg.module:Name". [FK012]']),
    ("val_evaluator", {"a": 3}, [': lacks the key "type". Add type="pkg.module:Name". [FK012]']),
    ("param_scheduler", "LinearLR", [f": must be a mapping or a list or None, got 'LinearLR'. {NUMBER}"]),
    ("param_scheduler", {"a": [{"type": "LinearLR", "begin": "x"}], "b": {"type": "StepLR", "gamma": None}},
     [f".a.0.begin: must be an integer, got 'x'. {NUMBER}", f".b.0.gamma: must be a number, got None. {NUMBER}"]),
    ("param_scheduler", {"a": [], 3: []}, [": has the key 3; names here are text. Put the name in quotes. [FK011]"]),
    ("default_hooks", [], [": must be a mapping of hooks by name, got []. Write dict(name=dict(type=...)). [FK011]"]),
    ("default_hooks", {"a": 3, "b": {"type": "LoggerHook", "interval": "x"}, 4: None},
     [": has the key 4; names here are text. Put the name in quotes. [FK011]"]),
    ("default_hooks", {"a": 3, "b": {"type": "LoggerHook", "interval": "x"}},
     [f".a: must be a mapping or None, got 3. {NUMBER}", f".b.interval: must be an integer, got 'x'. {NUMBER}"]),
    ("optim_wrapper", {"type": "OptimWrapperDict"}, [
        ": names no optimizer. Add one by its submodule: generator=dict(optimizer=...). [FK012]"]),
    ("optim_wrapper", {"type": "OptimWrapperDict", "constructor": 3, "a": SGD}, [f".constructor: must be text, got 3. {NUMBER}"]),
    ("optim_wrapper", {"type": "OptimWrapperDict", "a": 3}, [f".a: must be a mapping, got 3. {NUMBER}"]),
    ("optim_wrapper", {"type": "OptimWrapperDict", 3: SGD}, [": has the key 3; names here are text. Put the name in quotes. [FK011]"]),
    ("train_dataloader", [1], [f": must be a mapping or None, got [1]. {NUMBER}"]),
    ("randomness", 5, [": must be a mapping, got 5. Write dict(...) with the settings of Randomness. [FK011]"]),
    ("randomness", [], [": must be a mapping, got []. Write dict(...) with the settings of Randomness. [FK011]"]),
])  # fmt: skip
def test_a_misfit_among_several_is_told_at_its_place(key, written, told):
    assert [str(problem).removeprefix(key) for problem in parse_partly({key: written})[1]] == told


NONE: dict[str, Any] = dict.fromkeys(
    ("default_hooks", "custom_hooks", "env_cfg", "log_processor", "randomness")
)


def test_sections_that_have_a_value_when_absent_may_be_none():
    assert parse(NONE) == parse({}) == Config()
    assert [str(problem) for problem in parse_partly({"resume": None, **NONE})[1]] == [
        "resume: must be true or false or text, got None. Correct the value. [FK011]"
    ]
    assert [str(problem) for problem in parse_partly({"env_cfg": {"mp_cfg": None}})[1]] == [
        "env_cfg.mp_cfg: must be a mapping, got None. Write dict(...) with the settings of MpCfg. [FK011]"
    ]


def test_a_misfit_says_what_it_is():
    assert Misfit("FK011", "is odd.", "Mend it.").args == ("is odd.",)
    assert Misfits([]).args == ("misfits",)
