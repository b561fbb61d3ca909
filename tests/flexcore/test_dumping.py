"""Plain data and values as JSON that keeps kinds, by hand; that it reads back is a law of its own."""

import math

import pytest
from hypothesis import given

from flexcore.components import Component, Data, Items, Members, Supplied, freeze
from flexcore.config import NamedLoader, NamedMetric, NamedOptim, NamedSchedules, OptimDict, PlainOptim
from flexcore.converting import dump, parse
from flexcore.dumping import marked, unmarked
from flexcore.hooks import HookSlot, Logger, UserHook
from flexcore.loops import OwnEvalLoop, OwnTrainLoop
from flexcore.schedules import Step
from tests.strategies import data

MARKS = [
    (1, 1), ("x", "x"), (None, None), (1.5, 1.5), (math.inf, {"$float": "inf"}), (-math.inf, {"$float": "-inf"}),
    ((1, (2,)), {"$tuple": [1, {"$tuple": [2]}]}), ([1, (2,)], [1, {"$tuple": [2]}]), ({1}, {"$set": [1]}),
    ({"a": [1], "b": {"c": 2}}, {"a": [1], "b": {"c": 2}}), ({1: "a", "b": (3,)}, {"$entries": [[1, "a"], ["b", {"$tuple": [3]}]]}),
    ({"$a": 1}, {"$entries": [["$a", 1]]}), ({}, {}), ([], []), ((), {"$tuple": []}), (set(), {"$set": []}),
    ({"a$": 1}, {"a$": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("plain", "json"), MARKS)
def test_kinds_that_json_lacks_are_marked(plain, json):
    assert marked(freeze(plain)) == json
    again = unmarked(json)
    assert again == plain
    assert type(again) is type(plain)


def test_nan_is_marked_too():
    assert marked(freeze(math.nan)) == {"$float": "nan"}
    assert math.isnan(unmarked({"$float": "nan"}))


@pytest.mark.parametrize("value", [
    {"$tuple": [1], "more": 2}, {"$other": [1]}, {"$supplied": False}, {"$float": "1", "$set": []},
])  # fmt: skip
def test_what_only_looks_like_a_mark_is_a_mapping(value):
    assert unmarked(value) == value


def test_what_is_to_be_supplied_is_marked():
    assert unmarked({"model": {"$supplied": True}, "a": [{"$supplied": True}]}) == {
        "model": Supplied(),
        "a": [Supplied()],
    }
    assert dump(Supplied()) == Supplied()
    assert dump(Supplied(), marked) == {"$supplied": True}


@given(data)
def test_marked_data_reads_back(value):
    again = unmarked(marked(freeze(value)))
    assert again == value
    assert type(again) is type(value)


NET = Component(
    type="pkg:Net", kwargs=Data((("size", (1, 2)), ("names", Items(("a",))), ("own", Members((3,)))))
)


SHAPED = Component(type="pkg:Net", kwargs=Data((("size", (1,)),)))


@pytest.mark.parametrize(("value", "plain", "json"), [
    (NET, {"type": "pkg:Net", "size": (1, 2), "names": ["a"], "own": {3}},
     {"type": "pkg:Net", "size": {"$tuple": [1, 2]}, "names": ["a"], "own": {"$set": [3]}}),
    (Data(((1, 2),)), {1: 2}, {"$entries": [[1, 2]]}),
    (Items(((1,),)), [(1,)], [{"$tuple": [1]}]),
    (math.inf, math.inf, {"$float": "inf"}),
    ((1, 2), [1, 2], [1, 2]),
    (UserHook(component=NET, priority="LOW"),
     {"type": "pkg:Net", "size": (1, 2), "names": ["a"], "own": {3}, "priority": "LOW"},
     {"type": "pkg:Net", "size": {"$tuple": [1, 2]}, "names": ["a"], "own": {"$set": [3]}, "priority": "LOW"}),
    (UserHook(component=Component(type="pkg:Hook")), {"type": "pkg:Hook"}, {"type": "pkg:Hook"}),
    (Logger(), {"type": "LoggerHook"}, {"type": "LoggerHook"}),
    (Logger(interval=5, ignore_last=False), {"type": "LoggerHook", "interval": 5, "ignore_last": False},
     {"type": "LoggerHook", "interval": 5, "ignore_last": False}),
    (Step(gamma=0.5, end=None, param="lr"), {"type": "StepLR", "gamma": 0.5}, {"type": "StepLR", "gamma": 0.5}),
    (Step(param="momentum", begin=1), {"type": "StepMomentum", "begin": 1}, {"type": "StepMomentum", "begin": 1}),
    (Step(param="weight_decay"), {"type": "StepParamScheduler", "param_name": "weight_decay"},
     {"type": "StepParamScheduler", "param_name": "weight_decay"}),
    ((HookSlot(key="a", hook=Logger()), HookSlot(key="$b", hook=None)), {"a": {"type": "LoggerHook"}, "$b": None},
     {"$entries": [["a", {"type": "LoggerHook"}], ["$b", None]]}),
    ((NamedMetric(name=None, metric=Component(type="pkg:M")),), {"type": "pkg:M"}, {"type": "pkg:M"}),
    ((NamedMetric(name=None, metric=Component(type="pkg:M")),) * 2, [{"type": "pkg:M"}] * 2, [{"type": "pkg:M"}] * 2),
    ((NamedMetric(name="a", metric=Component(type="pkg:M")),), {"a": {"type": "pkg:M"}}, {"a": {"type": "pkg:M"}}),
    ((NamedLoader(name="a", loader=Supplied()), NamedLoader(name="b", loader=Supplied())),
     {"a": Supplied(), "b": Supplied()}, {"a": {"$supplied": True}, "b": {"$supplied": True}}),
    ((NamedLoader(name="$a", loader=Supplied()),), {"$a": Supplied()}, {"$entries": [["$a", {"$supplied": True}]]}),
    ((HookSlot(key="a", hook=UserHook(component=SHAPED)),), {"a": {"type": "pkg:Net", "size": (1,)}},
     {"a": {"type": "pkg:Net", "size": {"$tuple": [1]}}}),
    ((NamedSchedules(name="a", schedules=(Step(gamma=math.inf, param="lr"),)), NamedSchedules(name="$b", schedules=())),
     {"a": [{"type": "StepLR", "gamma": math.inf}], "$b": []},
     {"$entries": [["a", [{"type": "StepLR", "gamma": {"$float": "inf"}}]], ["$b", []]]}),
    (OptimDict(wrappers=(NamedOptim(name="$a", wrapper=PlainOptim(optimizer=SHAPED)),)),
     {"type": "OptimWrapperDict", "$a": {"type": "OptimWrapper", "optimizer": {"type": "pkg:Net", "size": (1,)}}},
     {"$entries": [["type", "OptimWrapperDict"],
                   ["$a", {"type": "OptimWrapper", "optimizer": {"type": "pkg:Net", "size": {"$tuple": [1]}}}]]}),
    (OwnTrainLoop(component=SHAPED), {"type": "pkg:Net", "size": (1,)}, {"type": "pkg:Net", "size": {"$tuple": [1]}}),
    (OwnEvalLoop(component=SHAPED), {"type": "pkg:Net", "size": (1,)}, {"type": "pkg:Net", "size": {"$tuple": [1]}}),
    ((math.inf, SHAPED), [math.inf, {"type": "pkg:Net", "size": (1,)}], [{"$float": "inf"}, {"type": "pkg:Net", "size": {"$tuple": [1]}}]),
    ((), [], []),
])  # fmt: skip
def test_values_in_the_vocabulary_of_configs_and_as_json(value, plain, json):
    assert dump(value) == plain
    assert dump(value, marked) == json


def test_a_value_of_another_kind_than_the_default_is_written():
    """True is not 1, though they are equal."""
    config = parse({"train_dataloader": {"dataset": "pkg:D", "num_workers": 0, "timeout": 0}})
    assert dump(config) == {"train_dataloader": {"dataset": {"type": "pkg:D"}, "timeout": 0.0}}


def test_several_optimizers_by_name():
    wrapper = {"constructor": "pkg:Make", "a": {"optimizer": {"type": "SGD", "lr": 0.1}}}
    config = parse({"optim_wrapper": wrapper, "param_scheduler": {"a": [{"type": "StepLR"}], "b": None}})
    assert dump(config) == {
        "optim_wrapper": {
            "type": "OptimWrapperDict", "constructor": "pkg:Make",
            "a": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}},
        },
        "param_scheduler": {"a": [{"type": "StepLR"}], "b": []},
    }  # fmt: skip
