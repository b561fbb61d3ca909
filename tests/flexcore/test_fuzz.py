"""A slice of the fuzz: nothing but ConfigError escapes, and the fuzz itself is worth its name (`make fuzz` runs 10^6)."""

import pytest

import flexcore
from flexcore.problems import shown
from tests import fuzz
from tests.fuzz_inputs import CONFIGS, FACTS, FITTING, MODES, input_of


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_mutated_is_accepted_and_answers_everything(name):
    plan = flexcore.plan(CONFIGS[name], FACTS[FITTING.get(name, "known")], mode=MODES.get(name, "train"))
    fuzz._asked(plan)


def test_a_slice_raises_nothing_else_and_is_no_mere_refusal():
    state = fuzz.run(1000, seed=1)
    assert state["failures"] == []
    counts = state["counts"]
    assert sum(counts.values()) == 1000
    for kind, share in (
        ("config accepted", 0.08),
        ("config refused", 0.4),
        ("json refused", 0.03),
        ("json accepted", 0.002),
    ):
        assert counts[kind] > share * 1000, kind


def test_it_goes_on_where_it_was(tmp_path):
    fuzz.run(40, tmp_path / "state", seed=2)
    split, whole = fuzz.run(80, tmp_path / "state"), fuzz.run(80, seed=2)
    assert (split["next"], split["counts"]) == (80, whole["counts"])
    assert fuzz.run(80, tmp_path / "state")["counts"] == split["counts"]


def test_an_input_is_a_function_of_its_number():
    def text(index):
        given = input_of(5, index)
        return (
            given.kind,
            given.mode,
            given.smoke,
            given.deep,
            shown(given.value, 10**6),
            shown(given.facts, 10**6),
        )

    assert [text(i) for i in range(60)] == [text(i) for i in range(60)]
    assert len({text(i) for i in range(60)}) > 50


def test_what_escapes_is_a_failure_with_its_number(monkeypatch):
    def broken(given):
        raise KeyError("left")

    monkeypatch.setattr(fuzz, "judged", broken)
    state = fuzz.run(3, seed=1)
    assert [index for index, _ in state["failures"]] == [0, 1, 2]
    assert all(why.startswith("KeyError: 'left'") for _, why in state["failures"])
