"""The names that `import flexcore` promises."""

import pytest

import flexcore
from flexcore import run_plan


def test_a_public_name_loads_on_first_use_and_stays():
    vars(flexcore).pop("Plan", None)
    assert flexcore.Plan is run_plan.Plan
    assert vars(flexcore)["Plan"] is run_plan.Plan


def test_a_name_it_lacks_is_named():
    with pytest.raises(AttributeError, match=r"^module 'flexcore' has no attribute 'Plam'$"):
        flexcore.Plam
