"""What does not fit a model is told as a table: every kind counted, long lists cut, with the revision that would help."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shell.fitting import fit, revised, shapes

LAYERS = {f"{i}.weight": (3, 4) for i in range(20)}


def test_a_prefix_is_seen_and_long_lists_are_cut():
    here = {**LAYERS, "head.weight": (5, 8)}
    there = {f"backbone.{name}": shape for name, shape in here.items()} | {"backbone.head.weight": (10, 8)}
    assert str(fit(here, there)).splitlines() == [
        "0 of the model's 21 names fit (21 there): 21 missing, 21 unexpected",
        *(f"  missing     {i}.weight                         [3, 4] here" for i in range(8)),
        "  missing     ... and 13 more",
        *(f"  unexpected  backbone.{i}.weight  [3, 4] there" for i in range(8)),
        "  unexpected  ... and 13 more",
        "With revise_keys=[['^backbone\\\\.', '']] 20 of 21 fit.",
    ]


def test_a_prefix_that_the_file_lacks_is_seen():
    told = str(fit({"model.a": (2,), "model.b": ()}, {"a": (2,), "b": ()}))
    assert told.endswith("With revise_keys=[['^', 'model.']] 2 of 2 fit.")


def test_a_name_much_like_a_missing_one_is_named_if_its_shape_is_right():
    told = str(fit({"head.weight": (2,), "neck.weight": (3,)}, {"heda.weight": (2,), "nekc.weight": (4,)}))
    assert told.splitlines()[1:] == [
        "  missing     head.weight             [2] here  the file has heda.weight",
        "  missing     neck.weight             [3] here",
        "  unexpected  heda.weight  [2] there",
        "  unexpected  nekc.weight  [4] there",
    ]


def test_another_shape_is_told_with_both():
    assert str(fit({"x": (1,), "y": ()}, {"x": (2, 3), "y": ()})) == (
        "1 of the model's 2 names fit (2 there): 1 of another shape\n  shape  x  [2, 3] there  [1] here"
    )


NAMES = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.integers(1, 2), max_size=2).map(tuple), max_size=8
)


@given(NAMES, NAMES)
def test_what_fits_is_what_load_state_dict_takes(here, there):
    """torch itself is asked, in the way that it refuses."""
    model = nn.Module()
    for name, shape in here.items():
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    found = fit(shapes(model.state_dict()), there)
    state = {name: torch.ones(shape) for name, shape in there.items()}
    try:
        model.load_state_dict(state)
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    assert bool(found.rows) == bool(refused)
    assert all(f"{row.name}" in refused for row in found.rows)
    assert found.fitting == sum(
        there.get(name) in {shape, (1,) if shape == () else shape} for name, shape in here.items()
    )


def test_revisions_apply_in_turn_and_two_tensors_may_not_meet():
    assert revised({"module.a.b": 1, "c": 2}, [(r"^module\.", ""), ("^a", "x")]) == {"x.b": 1, "c": 2}
    with pytest.raises(ValueError, match=r"^revise_keys gives 'b' to two tensors, 'a.b' among them$"):
        revised({"b": 1, "a.b": 2}, [(r"^a\.", "")])
