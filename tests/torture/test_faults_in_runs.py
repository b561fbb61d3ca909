"""Each request of one save of a run is struck in turn, alone and on two DDP ranks, in front of training or behind it: every run ends with the same bits."""

import contextlib
import functools
import shutil

import pytest

from tests.shell import tracing
from tests.shell.test_faults_in_runs import Way, peace, struck
from tests.torture.conftest import amount

SHARES = 10


# A failure is not for the background: counted by thread, it would strike each later save's thread as well.
CASES = [(way, fault) for way in (Way(), Way(2)) for fault in tracing.FAULTS]
CASES += [(way, "kill") for way in (Way(background=True), Way(2, background=True))]


@pytest.fixture(scope="module")
def whole():
    """By way: a place, the weights a run in peace ends with, and the requests of its save."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda way: stack.enter_context(peace(way)))


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize(("way", "fault"), CASES, ids=str)
def test_every_request_of_a_save_struck(way, fault, share, whole, request, record_property):
    """kill -9 before what changes something: before all else it is the same as before the next of these."""
    tracing.needs_strace()
    top, expected, calls = whole(way)
    points = [call for call in calls if call.changes or fault != "kill"]
    chosen = points[share :: SHARES * round(len(points) / amount(request.config, len(points)))]
    for number, call in enumerate(chosen):
        work_dir = top / f"{fault}-{share}-{number}"
        struck(work_dir, way, expected, call, fault)
        shutil.rmtree(work_dir)
    record_property("counted", {"requests struck": len(chosen)})
