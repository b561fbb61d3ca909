"""One cluster and one undisturbed run for all tests here."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.launchers import slurm, starts


@pytest.fixture(scope="session")
def cluster():
    assert slurm.missing() == [], "run tests/launchers/install.sh"
    at = Path(tempfile.mkdtemp(prefix="slurm"))  # its sockets' paths must be short
    with slurm.cluster(at) as running:
        yield running
    shutil.rmtree(at, ignore_errors=True)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The weights at the end of the run that nobody disturbed, two ranks started by flexcore itself."""
    folder = tmp_path_factory.mktemp("whole")
    command = ("flexcore", "run", str(starts.config(folder)), "--nproc", "2", "--quiet")
    assert starts.ran(folder, *command) == 0, starts.output(folder)
    assert starts.differences(folder) == []
    return starts.weights(folder)
