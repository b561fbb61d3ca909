"""What real launchers put into the environment, and what is made of it: environments.json holds the dumps.

They were taken from torch 2.13's torchrun, Slurm 22.05, Open MPI 5.0, MPICH 5.0, Intel MPI 2021 and Ray, with
paths and what no one reads left out; the old PyTorchJob's is what its operator's documentation promises.
"""

import json
import os
from pathlib import Path

import pytest

import flexcore
from flexcore import launchers
from shell import probe
from shell.ranks import LauncherError, Rank, port_of, read_rank, rendezvous
from shell.running import ranks_started
from tests.flexcore.base import base

DUMPS = json.loads(Path(__file__).with_name("environments.json").read_text())


def named(name):
    return pytest.mark.parametrize("dump", DUMPS, ids=[dump["name"] for dump in DUMPS])(name)


@named
def test_the_launcher_and_the_rank_are_read_from_what_is_there(dump):
    environ = dump["environ"]
    assert launchers.infer(environ) == dump["launcher"]
    assert read_rank(dump["launcher"], environ) == Rank(
        rank=dump["rank"],
        local_rank=dump["local_rank"],
        world_size=dump["world_size"],
        local_world_size=dump["local_world_size"],
    )


@named
def test_the_ranks_meet_where_the_launcher_says(dump):
    """Hydra tells nothing of the job on one host: there the port follows from the parent that its ranks share."""
    if dump["launcher"] == "none":
        return
    rank = read_rank(dump["launcher"], dump["environ"])
    met = rendezvous(dump["launcher"], rank, dump["environ"])
    assert (met["MASTER_ADDR"], met["MASTER_PORT"]) == (
        dump["address"],
        dump["port"] or str(port_of(str(os.getppid()))),
    )
    assert met["RANK"] == str(dump["rank"])
    assert met["LOCAL_RANK"] == str(dump["local_rank"])


@named
def test_the_plan_is_for_as_many_ranks_as_there_are(dump):
    facts = probe.environment(environ=dump["environ"])
    plan = flexcore.plan(base(), facts)
    expected = (dump["launcher"], dump["world_size"], "DDPStrategy" if dump["launcher"] != "none" else "SingleDeviceStrategy")  # fmt: skip
    assert (plan.environment.launcher, plan.environment.world_size, plan.strategy.NAME) == expected


@named
def test_only_a_process_that_is_alone_starts_ranks_of_its_own(dump):
    ranks = dump["world_size"] if dump["launcher"] != "none" else None
    assert ranks_started(dump["environ"]) == ranks


def of(name):
    return dict(next(dump["environ"] for dump in DUMPS if dump["name"].startswith(name)))


@pytest.mark.parametrize(
    "dump", [dump for dump in DUMPS if dump["launcher"] != "none"], ids=lambda d: d["name"]
)
def test_whatever_one_variable_less_leaves_is_read_or_refused_in_words(dump):
    """Each variable of each dump taken away, emptied and turned into nonsense: a rank, or a LauncherError."""
    for name in dump["environ"]:
        kept = {key: value for key, value in dump["environ"].items() if key != name}
        for environ in (kept, kept | {name: ""}, kept | {name: "-7"}, kept | {name: "x" * 99}):
            launcher = launchers.infer(environ)
            flexcore.lint(base(), probe.environment(environ=environ))
            try:
                rank = read_rank(launcher, environ)
                met = rendezvous(launcher, rank, environ) if launcher != "none" else {}
            except LauncherError as error:
                assert str(error).partition(":")[0].replace("_", "").isalnum()
                continue
            assert rank.rank < rank.world_size
            assert rank.local_rank < rank.local_world_size <= rank.world_size
            assert 0 < int(met.get("MASTER_PORT", "1")) < 65536


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "torchrun, two",
            {"RANK": None},
            (
                'launcher: "pytorch" needs RANK in the environment, which is not set. '
                "Start it with torchrun, or `flexcore run --nproc N`, or set launcher to none."
            ),
        ),
        (
            "torchrun, two",
            {"LOCAL_WORLD_SIZE": "3"},
            "LOCAL_WORLD_SIZE: is 3, but can be at most WORLD_SIZE, which is 2. Let the launcher set both.",
        ),
        (
            "torchrun, two",
            {"MASTER_PORT": "tcp"},
            "MASTER_PORT: is 'tcp', but must be a port, 1 to 65535. Let the launcher set it.",
        ),
        (
            "torchrun, two",
            {"MASTER_PORT": "70000"},
            "MASTER_PORT: is '70000', but must be a port, 1 to 65535. Let the launcher set it.",
        ),
        (
            "PyTorchJob",
            {"MASTER_ADDR": None},
            (
                'MASTER_ADDR: is not set, but the 3 ranks of launcher "pytorch" need a host to meet on. '
                "Set it to the first host's name (mpirun -x MASTER_ADDR=...)."
            ),
        ),
        (
            "srun, one",
            {"SLURM_STEP_NUM_TASKS": "1"},
            "SLURM_PROCID: is 1, but must be below SLURM_STEP_NUM_TASKS, which is 1. Let the launcher set both.",
        ),
        (
            "srun, three tasks on two nodes, the second",
            {"SLURM_LOCALID": "2"},
            "SLURM_LOCALID: is 2, but must be below SLURM_STEP_TASKS_PER_NODE, which is 2. Let the launcher set both.",
        ),
        (
            "Open MPI",
            {"OMPI_COMM_WORLD_SIZE": None},
            "OMPI_COMM_WORLD_SIZE: is not set, but must be a whole number. Let the launcher set it.",
        ),
        (
            "MPICH",
            {"PMI_SIZE": "two"},
            "PMI_SIZE: is 'two', but must be a whole number. Let the launcher set it.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(name, changes, message):
    environ = {**of(name), **changes}
    environ = {key: value for key, value in environ.items() if value is not None}
    launcher = launchers.infer(environ)
    with pytest.raises(LauncherError) as refused:
        rendezvous(launcher, read_rank(launcher, environ), environ)
    assert str(refused.value) == message
