"""The machine of the store, for longer and from several seeds."""

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.shell.test_store_machine import StoreMachine
from tests.torture.conftest import amount

SEEDS = 8


@pytest.mark.parametrize("number", range(SEEDS))
def test_a_store_keeps_what_it_was_given(number, seed, request, record_property):
    examples = amount(request.config, 300)
    machine = hypothesis.seed(seed * SEEDS + number)(type("Machine", (StoreMachine,), {}))
    amounts = hypothesis.settings(max_examples=examples, stateful_step_count=40, deadline=None, database=None)
    run_state_machine_as_test(machine, settings=amounts)
    record_property("counted", {"examples": examples})
