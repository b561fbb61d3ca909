"""Components become objects inside out, only where a type is an import path; what is wrong is said before."""

import sys

import pytest
import torch

import flexcore
from flexcore.components import Component, freeze
from flexcore.problems import ConfigError
from shell import building, placing, settling
from tests.shell.parts import Holder, Net, Pairs

HOLDER = "tests.shell.parts:Holder"


def component(type_name, **kwargs):
    return Component(type=type_name, kwargs=freeze(kwargs))


def built(**kwargs):
    return building.build(component(HOLDER, **kwargs), ("model",))


def test_nested_import_paths_are_built_inside_out():
    made = built(
        a={"type": HOLDER, "b": [{"type": "tests.shell.parts:Net", "width": 5}, 3]}, c=({"type": HOLDER},)
    )
    inner = made.kwargs["a"]
    assert type(inner) is Holder
    assert type(inner.kwargs["b"][0]) is Net
    assert (inner.kwargs["b"][0].in_features, inner.kwargs["b"][1]) == (5, 3)
    assert type(made.kwargs["c"]) is tuple
    assert type(made.kwargs["c"][0]) is Holder


UNTOUCHED = {
    "norm_cfg": {"type": "BN", "requires_grad": True},
    "init_cfg": [{"type": "Normal", "layer": ["Conv2d"], "std": 0.01}],
    "scoped": {"type": "mmdet.ResNet", "depth": 50},
    "strange": {"type": "not a path:at all"},
    "number": {"type": 3},
    "keys": {1: "a", "b": (2, [3])},
    "members": {1, 2},
}


def test_a_dotted_type_is_built_from_two_dots_on():
    """One dot may be a registry's scope: a colon says that a module is meant."""
    given = {"type": "tests.shell.parts.Net", "width": 5}
    assert type(built(a=given).kwargs["a"]) is Net
    assert built(a=given, _recursive_=False).kwargs["a"] == given
    assert built(a={"type": "fractions:Fraction"}, b={"type": "fractions.Fraction"}).kwargs == {
        "a": 0,
        "b": {"type": "fractions.Fraction"},
    }


def test_any_other_mapping_is_its_owners_data():
    assert built(**UNTOUCHED).kwargs == UNTOUCHED
    assert type(built(**UNTOUCHED).kwargs["keys"]["b"]) is tuple


def test_recursive_false_leaves_all_of_it_to_the_owner():
    given = {"a": {"type": "nopkg:X", "b": [{"type": HOLDER}]}}
    assert built(**given, _recursive_=False).kwargs == given
    deep = built(x={"type": HOLDER, "_recursive_": False, "y": {"type": HOLDER}}).kwargs["x"]
    assert deep.kwargs == {"y": {"type": HOLDER}}


def test_each_build_gets_its_own_data():
    one = component(HOLDER, a=[1])
    building.build(one, ()).kwargs["a"].append(2)
    assert building.build(one, ()).kwargs["a"] == [1]


def test_positional_and_extra_arguments_come_from_the_run():
    made = building.build(component(HOLDER, a=1), (), "first", lr=2)
    assert (made.args, made.kwargs) == (("first",), {"a": 1, "lr": 2})


def test_a_failing_constructor_names_its_own_place_and_cause():
    with pytest.raises(building.BuildError) as caught:
        built(a=[{"type": "tests.shell.parts:Fragile", "message": "too thin"}])
    assert str(caught.value) == (
        "model.a.0: tests.shell.parts:Fragile could not be built: RuntimeError: too thin. "
        "Correct its arguments, or the class. [FK013]"
    )
    assert isinstance(caught.value.__cause__, RuntimeError)


RESOLVED = {
    "torch.nn:Linear": torch.nn.Linear,
    "torch.nn.Linear": torch.nn.Linear,
    "tests.shell.parts:Pairs": Pairs,
    "collections:OrderedDict.fromkeys": dict.fromkeys,
}


def test_both_spellings_resolve():
    for name, found in list(RESOLVED.items())[:3]:
        assert building.resolve(name) is found
    assert callable(building.resolve("collections:OrderedDict.fromkeys"))
    assert building.resolve("SGD", "torch.optim") is torch.optim.SGD


UNRESOLVED = {
    "Net": ('"Net" is a registry name, and there are no registries here.', 'Write "package.module:Net".'),
    "nopkg:X": (
        "module \"nopkg\" cannot be imported: No module named 'nopkg'.",
        'Install or correct "nopkg", or run where it is importable.',
    ),
    "tests.shell.parts:Nets": ('"tests.shell.parts" has no "Nets".', 'Did you mean "Net"?'),
    "tests.shell.parts:Zzz": ('"tests.shell.parts" has no "Zzz".', "Correct the name."),
    "tests.shell.parts:NOT_CALLABLE": (
        '"tests.shell.parts:NOT_CALLABLE" is not a class or function.',
        "Name something that can be called.",
    ),
}


@pytest.mark.parametrize("name", UNRESOLVED)
def test_a_name_that_means_nothing_is_told_with_a_remedy(name):
    with pytest.raises(LookupError) as caught:
        building.resolve(name)
    assert caught.value.args == UNRESOLVED[name]


def test_a_module_that_fails_on_import_is_told(tmp_path, monkeypatch):
    (tmp_path / "falls_over.py").write_text("1 / 0\n")
    (tmp_path / "needs_more.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LookupError) as caught:
        building.resolve("falls_over:X")
    assert caught.value.args == (
        'module "falls_over" fails on import: ZeroDivisionError: division by zero.',
        "Correct the module.",
    )
    with pytest.raises(LookupError) as caught:
        building.resolve("needs_more:X")
    assert caught.value.args[1] == 'Install or correct "not_there_at_all", or run where it is importable.'


def config(**changes):
    made = {
        "model": {"type": "tests.shell.parts:Net"},
        "loss": {"type": "torch.nn:CrossEntropyLoss"},
        "train_dataloader": {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
        "val_dataloader": {"only": {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2}},
        "val_evaluator": {"type": "tests.shell.parts:Accuracy"},
        "val_cfg": {},
        "test_dataloader": [
            {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2},
            {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2},
        ],
        "test_evaluator": {
            "a": {"type": "tests.shell.parts:Accuracy"},
            "b": {"type": "tests.shell.parts:Accuracy"},
        },
        "test_cfg": {},
    }
    return flexcore.parse({**made, **changes})


PLACES = {
    "train": ["model", "loss", "train_dataloader.dataset", "optim_wrapper.optimizer", "val_dataloader.only.dataset", "val_evaluator"],
    "val": ["model", "loss", "val_dataloader.only.dataset", "val_evaluator"],
    "test": [
        "model", "loss", "test_dataloader.0.dataset", "test_dataloader.1.dataset", "test_evaluator.a", "test_evaluator.b",
    ],
}  # fmt: skip


@pytest.mark.parametrize("mode", PLACES)
def test_what_a_mode_does_not_use_is_not_looked_at(mode):
    assert [".".join(map(str, one.path)) for one in placing.placed(config(), mode)] == PLACES[mode]


def test_a_smoke_run_uses_the_test_loaders_too():
    places = [one.path for one in placing.placed(config(), "train", smoke=True)]
    assert len(places) == len(PLACES["train"]) + 4


WRONG = {
    "model": (
        {"model": {"type": "tests.shell.parts:Net", "with": 3}},
        ("model: tests.shell.parts:Net cannot be called so: got an unexpected keyword argument 'with'. "
        'Did you mean "width"? [FK013]'),
    ),
    "missing argument": (
        {"loss": {"type": "torch.nn:Linear", "in_features": 2}},
        ("loss: torch.nn:Linear cannot be called so: missing a required argument: 'out_features'. "
        "It takes in_features, out_features, bias, device, dtype. [FK013]"),
    ),
    "nested": (
        {"model": {"type": HOLDER, "a": [{"type": "tests.shell.parts:Net", "b": {"type": "nopkg:X"}}]}},
        ("model.a.0: tests.shell.parts:Net cannot be called so: got an unexpected keyword argument 'b'. It takes width. [FK013]\n"
        "model.a.0.b.type: module \"nopkg\" cannot be imported: No module named 'nopkg'. "
        'Install or correct "nopkg", or run where it is importable. [FK013]'),
    ),
    "not recursive": ({"model": {"type": HOLDER, "_recursive_": False, "a": {"type": "nopkg:X"}}}, None),
    "named loader": (
        {"val_dataloader": {"only": {"dataset": "tests.shell.parts:Pears", "batch_size": 2}}},
        'val_dataloader.only.dataset.type: "tests.shell.parts" has no "Pears". Did you mean "Pairs"? [FK013]',
    ),
    "optimizer": (
        {"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentun": 0.9}}},
        ("optim_wrapper.optimizer: SGD cannot be called so: got an unexpected keyword argument 'momentun'. "
        'Did you mean "momentum"? [FK013]'),
    ),
    "hooks": (
        {"custom_hooks": [{"type": "tests.shell.parts:Quiet", "a": 1}], "default_hooks": {"mine": {"type": "nopkg:H"}}},
        ("default_hooks.mine.type: module \"nopkg\" cannot be imported: No module named 'nopkg'. "
        'Install or correct "nopkg", or run where it is importable. [FK013]\n'
        "custom_hooks.0: tests.shell.parts:Quiet cannot be called so: got an unexpected keyword argument 'a'. "
        "It takes nothing. [FK013]"),
    ),
    "loader's parts": (
        {
            "train_dataloader": {
                "dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2, "num_workers": 1,
                "sampler": {"type": "torch.utils.data:RandomSampler", "replace": True},
                "collate_fn": {"type": "pseudo_collate"},
                "worker_init_fn": {"type": "tests.shell.test_data:told", "more": 1},
            }
        },
        ("train_dataloader.sampler: torch.utils.data:RandomSampler cannot be called so: got an unexpected keyword argument "
        "'replace'. Did you mean \"replacement\"? [FK013]\n"
        "train_dataloader.worker_init_fn: tests.shell.test_data:told cannot be called so: got an unexpected keyword argument "
        "'more'. It takes extra. [FK013]"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_every_call_is_tried_before_anything_is_built(name):
    changes, expected = WRONG[name]
    plan = flexcore.plan(config(**changes))
    if expected is None:
        settling.check(plan)
        return
    with pytest.raises(ConfigError) as caught:
        settling.check(plan)
    assert str(caught.value) == expected


def test_a_strategy_whose_package_is_not_there_is_told_before_anything(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    config = flexcore.parse({"strategy": "DeepSpeedStrategy"})
    (found,) = building.problems(config, "train")
    assert str(found) == (
        "strategy: is carried out by the package deepspeed, which is not installed here. "
        'Install it with pip install "flexcore[deepspeed]". [FK013]'
    )
