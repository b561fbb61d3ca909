"""Each request that an operation of the store makes of the file system is struck in turn: nothing committed is lost."""

import pytest

from tests.shell import tracing
from tests.shell.faulting import OPERATIONS, scratch
from tests.shell.test_faults import looked_at, requests, struck
from tests.torture.conftest import amount


@pytest.mark.parametrize("fault", tracing.FAULTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_request_struck(fault, name, request, record_property):
    tracing.needs_strace()
    with scratch() as root:
        calls = requests(root / "whole" / "root", OPERATIONS[name])
        chosen = calls[:: round(len(calls) / amount(request.config, len(calls)))]
        for number, call in enumerate(chosen):
            struck(root / str(number) / "root", OPERATIONS[name], fault, call)
    record_property("counted", {"requests struck": len(chosen)})


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_write_taken_by_half(name, tmp_path, record_property):
    """One write in turn, the others whole."""
    number = seen = 0
    while number <= seen:
        root = tmp_path / str(number) / "root"
        OPERATIONS[name].prepare(root)
        code, seen = tracing.writing_less(
            lambda root=root: OPERATIONS[name].said(root), lambda write, n=number: write == n
        )
        assert code == 0
        looked_at(root, OPERATIONS[name], done=True)
        number += 1
    record_property("counted", {"writes halved": number - 1})
