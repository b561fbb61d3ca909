"""Where a rank stands and where its group meets, in each launcher's words."""

import pytest

from shell.ranks import LauncherError, Rank, first_host, port_of, read_rank, rendezvous, tasks_per_node


@pytest.mark.parametrize(
    ("launcher", "environ", "expected"),
    [
        ("none", {"RANK": "1", "WORLD_SIZE": "2"}, (0, 0, 1, 1)),
        (
            "pytorch",
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            (3, 1, 4, 2),
        ),
        ("pytorch", {"RANK": "3", "WORLD_SIZE": "4"}, (3, 0, 4, 1)),
        ("pytorch", {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}, (3, 3, 4, 4)),
        (
            "mpi",
            {
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            },
            (1, 1, 2, 2),
        ),
        (
            "mpi",
            {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"},
            (2, 0, 4, 2),
        ),
        (
            "slurm",
            {
                "SLURM_PROCID": "4",
                "SLURM_NTASKS": "9",
                "SLURM_STEP_NUM_TASKS": "5",
                "SLURM_LOCALID": "0",
                "SLURM_NODEID": "2",
                "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
            },
            (4, 0, 5, 1),
        ),
        (
            "slurm",
            {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "2"},
            (1, 1, 4, 2),
        ),
    ],
)
def test_each_launcher_is_read_in_its_own_words(launcher, environ, expected):
    rank, local_rank, world_size, local_world_size = expected
    assert read_rank(launcher, environ) == Rank(
        rank=rank, local_rank=local_rank, world_size=world_size, local_world_size=local_world_size
    )


@pytest.mark.parametrize(
    ("launcher", "environ", "message"),
    [
        (
            "slrum",
            {},
            "launcher: 'slrum' is not a launcher. Use one of none, pytorch, mpi, slurm. Did you mean \"slurm\"?",
        ),
        (
            "mpi",
            {"RANK": "0"},
            (
                'launcher: "mpi" needs OMPI_COMM_WORLD_RANK or PMI_RANK in the environment, which is not set. '
                "Start it with mpirun, or set launcher to none."
            ),
        ),
        (
            "pytorch",
            {"RANK": "0"},
            "WORLD_SIZE: is not set, but must be a whole number. Let the launcher set it.",
        ),
        (
            "pytorch",
            {"RANK": "-1", "WORLD_SIZE": "2"},
            "RANK: is '-1', but must be a whole number. Let the launcher set it.",
        ),
        (
            "pytorch",
            {"RANK": "2", "WORLD_SIZE": "2"},
            "RANK: is 2, but must be below WORLD_SIZE, which is 2. Let the launcher set both.",
        ),
    ],
)
def test_an_environment_that_does_not_say_is_refused(launcher, environ, message):
    with pytest.raises(LauncherError) as refused:
        read_rank(launcher, environ)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("node1", "node1"),
        ("a,b", "a"),
        ("node[03-10,12],gpu1", "node03"),
        ("node[7,9]", "node7"),
        ("rack[1-2]n[03-04]-ib", "rack1n03-ib"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_node_list(nodelist, host):
    assert first_host(nodelist) == host


def test_slurms_tasks_per_node_are_run_lengths():
    assert tasks_per_node("2(x3),1") == (2, 2, 2, 1)
    assert tasks_per_node("4") == (4,)


TWO_HOSTS = Rank(rank=1, local_rank=0, world_size=2, local_world_size=1)


def test_slurm_ranks_meet_on_the_first_host_at_the_jobs_port():
    environ = {"SLURM_STEP_NODELIST": "n[2-3]", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}
    assert rendezvous("slurm", TWO_HOSTS, environ) == {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "n2",
        "MASTER_PORT": str(port_of("77.0")),
    }
    assert port_of("77.0") != port_of("77.1")
    assert all(15000 <= port_of(str(job)) < 30000 for job in range(200))


def test_a_given_meeting_place_is_kept():
    place = {"MASTER_ADDR": "head", "MASTER_PORT": "1234", "SLURM_STEP_NODELIST": "n[2-3]"}
    assert rendezvous("slurm", TWO_HOSTS, place).items() >= {("MASTER_ADDR", "head"), ("MASTER_PORT", "1234")}


def test_mpi_over_several_hosts_must_be_told_where_to_meet():
    with pytest.raises(LauncherError) as refused:
        rendezvous("mpi", TWO_HOSTS, {})
    assert str(refused.value) == (
        'MASTER_ADDR: is not set, but the 2 ranks of launcher "mpi" need a host to meet on. Set it to the first '
        "host's name (mpirun -x MASTER_ADDR=...)."
    )
