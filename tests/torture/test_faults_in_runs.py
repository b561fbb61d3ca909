"""Each request of one save of a run is struck in turn, alone and on two DDP ranks: every run ends with the same bits."""

import contextlib
import functools
import shutil

import pytest

from tests.shell import tracing
from tests.shell.test_faults_in_runs import peace, struck
from tests.torture.conftest import amount

SHARES = 10


@pytest.fixture(scope="module")
def whole():
    """By number of ranks: a place, the weights a run in peace ends with, and the requests of its save."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda ranks: stack.enter_context(peace(ranks)))


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("fault", tracing.FAULTS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_request_of_a_save_struck(ranks, fault, share, whole, request, record_property):
    """kill -9 before what changes something: before all else it is the same as before the next of these."""
    tracing.needs_strace()
    top, expected, calls = whole(ranks)
    points = [call for call in calls if call.changes or fault != "kill"]
    chosen = points[share :: SHARES * round(len(points) / amount(request.config, len(points)))]
    for number, call in enumerate(chosen):
        work_dir = top / f"{fault}-{share}-{number}"
        struck(work_dir, ranks, expected, call, fault)
        shutil.rmtree(work_dir)
    record_property("counted", {"requests struck": len(chosen)})
