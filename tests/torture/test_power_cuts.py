"""The power is cut anywhere in each sequence, with small blocks to tear; the next save is made on what is left."""

import pytest

from tests.shell import tracing
from tests.shell.faulting import scratch
from tests.shell.test_power_cuts import SEQUENCES, cut


@pytest.mark.parametrize("block", [64, 128, 512])
@pytest.mark.parametrize("name", SEQUENCES)
def test_every_state_that_a_cut_may_leave(block, name, record_property):
    tracing.needs_strace()
    with scratch() as top:
        record_property("counted", {"states": cut(name, top, block, save_again=True)})
