"""What holds for every config and every fact."""

import copy
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import evolve
from hypothesis import given

import flexcore
from flexcore import ConfigError, Facts, Plan
from flexcore.converting import dump
from tests.flexcore.base import DIGITS, KNOWN, base
from tests.fuzz_inputs import places
from tests.nasty import NASTY, Colour, Deaf, Level, Rude, bomb
from tests.strategies import configs, full_facts
from tests.strategies import facts as some_facts

FACTS = evolve(KNOWN, train_samples=1437, val_samples=(360, 360))
MEANT_ORDER = {
    "default_hooks",
    "val_dataloader",
    "val_evaluator",
}  # order is meaning where hooks or loaders are named


def suited(config: dict[str, Any], facts: Facts) -> Facts:
    """Facts are of this config: as many validation loaders as it has."""
    given = config.get("val_dataloader")
    several = given if isinstance(given, list) else given if given and "dataset" not in given else [given]
    return evolve(facts, val_samples=(30,) * len(several)) if given else facts


def made(config: dict[str, Any], facts: Facts) -> Plan | tuple[str, ...]:
    try:
        return flexcore.plan(config, facts)
    except ConfigError as error:
        return tuple(str(p) for p in error.problems)


def reordered(value: Any, draw: random.Random, depth: int) -> Any:
    if not isinstance(value, dict) or depth < 0:
        return value
    keys = list(value)
    draw.shuffle(keys)
    below = {"model": 0} if depth == 2 else {}
    return {
        key: value[key] if key in MEANT_ORDER else reordered(value[key], draw, below.get(key, depth - 1))
        for key in keys
    }


@given(configs, some_facts)
def test_planning_changes_nothing_it_is_given(config, facts):
    facts = suited(config, facts)
    before = copy.deepcopy(config)
    first = made(config, facts)
    assert config == before
    assert list(config) == list(before)
    assert made(config, facts) == first


def test_known_facts_leave_nothing_open():
    assert flexcore.plan(base(custom_hooks=["pkg:Hook"]), full_facts).unresolved == ()


def walked(value: Any, path: str = "plan"):
    """Every value inside, with its place."""
    yield path, value
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from walked(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from walked(item, f"{path}[{i}]")


@given(configs, some_facts)
def test_a_plan_is_frozen_all_the_way_down(config, facts):
    plan = made(config, suited(config, facts))
    for path, value in walked(plan):
        kind = type(value)
        scalar = kind in (type(None), bool, int, float, str)
        assert scalar or kind is tuple or (attrs.has(kind) and kind.__setattr__ is not object.__setattr__), (
            path
        )
        if attrs.has(kind) and attrs.fields(kind):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(value, attrs.fields(kind)[0].name, None)


PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
from flexcore import plan, Facts
from tests.flexcore.base import DIGITS
from attrs import evolve
config = dict(DIGITS, model={"type": "pkg:M", "names": {"a", "b", "c", "d", 1, 2.5, None}})
made = plan(config, Facts(train_samples=1437, val_samples=(360, 360), world_size=1))
import hashlib
print(hashlib.sha256((made.to_json() + str(made)).encode()).hexdigest(), made.plan_digest, made.trajectory_digest)
"""


def test_the_hash_seed_means_nothing():
    root = str(Path(__file__).parents[2])
    told = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, root], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }  # fmt: skip
    assert len(told) == 1


# --- only ConfigError escapes --------------------------------------------------------------------


EVERY_KEY = {
    **DIGITS, "test_dataloader": {"dataset": "pkg:D", "batch_size": 2}, "test_evaluator": ["pkg:M"], "test_cfg": {"fp16": False},
    "strategy": {"type": "SingleDeviceStrategy"}, "launcher": "none", "load_from": "a", "resume": False, "compile": {"mode": "x"},
    "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork"}, "dist_cfg": {"timeout": 5}, "resource_limit": 9},
    "log_processor": {"window_size": 3, "num_digits": 2}, "log_level": "INFO", "visualizer": {"vis_backends": ["LocalVisBackend"]},
    "global_batch_size": 128, "format_version": 1, "runner_type": "FlexibleRunner", "default_scope": "x",
    "init_weights_for_test_or_val": True, "data_preprocessor": None,
}  # fmt: skip


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return {k: replaced(v, path[1:], new) if k == path[0] else v for k, v in value.items()}
    return type(value)(replaced(v, path[1:], new) if i == path[0] else v for i, v in enumerate(value))


def survive(config: Any, facts: Facts) -> None:
    try:
        plan = flexcore.plan(config, facts)
    except ConfigError as error:
        assert str(error)
        json.dumps([(p.path, p.message, p.remedy) for p in error.problems])
        return
    text = str(plan)
    assert text.endswith("\n")
    if not plan.supplied:
        assert Plan.from_json(plan.to_json()).plan_digest == plan.plan_digest
    flexcore.value_at(plan)
    next(flexcore.saves(plan), None)


@pytest.mark.parametrize("name", NASTY)
def test_only_config_errors_escape_wherever_the_value_stands(name):
    facts = evolve(FACTS, test_samples=(5,))
    for path in places(EVERY_KEY):
        survive(replaced(EVERY_KEY, path, NASTY[name]), facts)
    survive(NASTY[name], facts)
    with pytest.raises(ConfigError):
        flexcore.plan({**DIGITS, name: NASTY[name]}, facts)


@pytest.mark.parametrize("name", NASTY)
def test_only_config_errors_escape_whatever_the_key(name):
    try:
        config = {**base(), NASTY[name]: 1}
        inner = base(model={"type": "pkg:M", NASTY[name]: 1})
    except TypeError:
        return  # Python itself refuses the key
    survive(config, FACTS)
    survive(inner, FACTS)


def test_a_value_that_unfolds_without_end_is_refused_in_bounded_time():
    (problem,) = flexcore.lint(base(model={"type": "pkg:M", "a": bomb()}), KNOWN)
    assert (problem.code, problem.path[:2]) == ("FK015", ("model", "a"))
    assert problem.message == "holds more than 250,000 values, counted from the top of the config."


def test_the_plain_kind_of_a_subclass_is_what_is_planned():
    plan = flexcore.plan(
        base(
            model={"type": "pkg:M", "a": Colour.RED, "b": Level.LOW, "c": Rude(3), "d": Deaf("x"), "e": dict}
        )
    )
    kwargs = dict(plan.model.kwargs.entries)
    assert kwargs == {"a": "red", "b": 3, "c": 3, "d": "x", "e": "builtins:dict"}
    assert {type(value) for value in kwargs.values()} == {str, int}


def test_kinds_and_odd_floats_survive_the_json():
    value = {
        "t": (1, [2, (3,)]),
        "s": {1, "a"},
        "i": {1: {2: ()}},
        "n": math.nan,
        "f": -math.inf,
        "$": {"$tuple": 1},
        "z": -0.0,
    }
    plan = flexcore.plan(base(model={"type": "pkg:M", **value}))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    back = dump(again.config)["model"]
    assert repr(back) == repr({"type": "pkg:M", **value, "s": back["s"]})
    assert back["s"] == {1, "a"}


def test_names_that_look_like_marks_stay_names():
    config = base(default_hooks={"$tuple": "pkg:Hook"}, val_cfg={}, val_evaluator={"$set": "pkg:M"} | {"$float": "pkg:N"},
                  val_dataloader={"$entries": {"dataset": "pkg:D", "batch_size": 1}})  # fmt: skip
    config["val_evaluator"] = {"$set": {"type": "pkg:M"}}
    plan = flexcore.plan(config)
    assert Plan.from_json(plan.to_json()) == plan


BROKEN_JSON = {
    "text": "no", "list": "[]", "empty": "{}", "other": '{"kind": "x"}', "deep": "[" * 100_000,
    "version": '{"kind": "flexcore.plan", "format_version": 2}',
    "bad float": '{"kind": "flexcore.plan", "format_version": 1, "mode": {"$float": "x"}}',
    "bad float kind": '{"kind": "flexcore.plan", "format_version": 1, "mode": {"$float": []}}',
    "bad set": '{"kind": "flexcore.plan", "format_version": 1, "mode": {"$set": [[1]]}}',
    "bad entries": '{"kind": "flexcore.plan", "format_version": 1, "mode": {"$entries": [1]}}',
    "bad tuple": '{"kind": "flexcore.plan", "format_version": 1, "mode": {"$tuple": 1}}',
    "huge int": '{"kind": "flexcore.plan", "format_version": ' + "9" * 5000 + "}",
    "nothing": '{"kind": "flexcore.plan", "format_version": 1}',
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_what_is_no_plan_is_a_config_error(name):
    with pytest.raises(ConfigError):
        Plan.from_json(BROKEN_JSON[name])


@pytest.mark.parametrize("name", [name for name in NASTY if name not in ("deep list", "deep dict")])
def test_an_altered_plan_is_a_config_error_or_a_plan(name):
    plan = flexcore.plan(DIGITS, FACTS)
    data = json.loads(plan.to_json())
    try:
        text = json.dumps(NASTY[name])
    except (TypeError, ValueError):
        return  # no JSON file can hold it
    for path in list(places(data))[::8]:
        try:
            Plan.from_json(json.dumps(replaced(data, path, json.loads(text))))
        except ConfigError as error:
            assert str(error)
