"""Which data preprocessor a run builds, and when a second one is told to do nothing."""

import pytest

from flexcore import Facts, Supplied, parse
from flexcore.preprocessing import chosen, preprocessing

OWN = {"type": "pkg:Own", "mean": [1.0]}
OTHER = {"type": "pkg:Other"}


@pytest.mark.parametrize(("model", "given", "built", "told"), [
    ({"type": "pkg:Net"}, None, None, []),
    ({"type": "pkg:Net"}, OTHER, OTHER, []),
    ({"type": "pkg:Net", "data_preprocessor": OWN}, None, None, []),
    ({"type": "pkg:Net", "data_preprocessor": OWN}, OWN, None, []),
    ({"type": "pkg:Net", "data_preprocessor": OWN}, OTHER, None, [
        "data_preprocessor: differs from model.data_preprocessor, which the model takes instead. Keep one of them. [FD011]"]),
    (Supplied(), OTHER, OTHER, []),
    (Supplied(), None, None, []),
    (None, OTHER, OTHER, []),
])  # fmt: skip
def test_the_models_own_wins(model, given, built, told):
    config = parse({"model": model, "data_preprocessor": given})
    assert chosen(config) == (built and parse({"data_preprocessor": built}).data_preprocessor)
    problems = list(preprocessing(config, Facts(), frozenset()))
    assert [str(problem) for problem in problems] == told
    assert [problem.severity for problem in problems] == ["warning"] * len(told)
