"""Real launchers: whoever starts, stops, kills or requeues the ranks, the weights at the end are the same to the bit.

`make test-launchers` runs these; they need root, Slurm and two MPIs, which tests/launchers/install.sh installs.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import os
import signal
import subprocess
import time

import pytest

from tests.launchers import starts
from tests.ranks import free_port

SLOW = 0.03  # seconds a sample: an eighth of a second an iteration, three seconds a run
AS_ROOT = {f"{who}_ALLOW_RUN_AS_ROOT{sure}": "1" for who in ("OMPI", "PRTE") for sure in ("", "_CONFIRM")}
CROWDED = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def mpi(name: str) -> dict[str, str]:
    """The environment in which one MPI's mpirun is the first found."""
    home = starts.BIN.parent / "mpi" / name / "bin"
    assert (home / "mpirun").exists(), "run tests/launchers/install.sh"
    return {"PATH": f"{home}:{starts.environ()['PATH']}", **AS_ROOT, **CROWDED}


def submitted(cluster, tmp_path, **changes):
    """The id of a job: the script as it is printed, sent off from where its config lies."""
    cluster.environ |= starts.environ(SLURM_CONF=cluster.environ["SLURM_CONF"])
    file = starts.script(tmp_path, "slurm", "--nodes", "2", **changes)
    return cluster.submit(file, tmp_path)


def job_output(tmp_path):
    return "\n".join(file.read_text() for file in tmp_path.glob("*.out"))


# --- every launcher: equal weights --------------------------------------------------------------


def test_srun_on_two_nodes(cluster, whole, tmp_path):
    job = cluster.ended(submitted(cluster, tmp_path))
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), job_output(tmp_path)
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


@pytest.mark.parametrize("name", ["openmpi", "mpich"])
def test_mpirun(name, whole, tmp_path):
    file = starts.script(tmp_path, "mpi", "--nproc", "2")
    assert starts.ran(tmp_path, "bash", str(file), **mpi(name)) == 0, starts.output(tmp_path)
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


def test_torchrun_on_two_nodes(whole, tmp_path):
    """Two agents meet; each starts one rank."""
    file = str(starts.script(tmp_path, "torchrun", "--nodes", "2"))
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with (
        starts.started(tmp_path, "bash", file, **meeting) as one,
        starts.started(tmp_path, "bash", file, **meeting) as two,
    ):
        assert [one.wait(120), two.wait(60)] == [0, 0], starts.output(tmp_path)
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


@pytest.mark.parametrize("kind", ["slurm", "torchrun", "mpi"])
@pytest.mark.parametrize("nodes", ["1", "3"])
def test_every_script_is_one_that_shellcheck_likes(kind, nodes, tmp_path):
    cpus = ["--cpus", "2"] if nodes == "3" else []
    file = starts.script(tmp_path, kind, "--nodes", nodes, "--nproc", "4", *cpus)
    done = subprocess.run(["shellcheck", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- preempted: saved once, at one step, by all; requeued; resumed ------------------------------


@pytest.mark.parametrize("signum", ["USR1", "TERM"])
def test_slurm_requeues_a_preempted_job(signum, cluster, whole, tmp_path):
    """The signal reaches the tasks, as --signal has it sent; they end with 75 and the script asks for another turn."""
    number = submitted(cluster, tmp_path, slow=SLOW)
    starts.pids(tmp_path)
    cluster.call("scancel", f"--signal={signum}", number)
    job = cluster.ended(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), job_output(tmp_path)
    (reason, saved), last = starts.stops(tmp_path)
    assert (reason, last) == ("preempted", ("done", 24))
    assert starts.starts(tmp_path) == [0, saved]
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


def test_slurm_requeues_a_job_by_command(cluster, whole, tmp_path):
    """`scontrol requeue` in the middle of it: what was saved last goes on."""
    number = submitted(cluster, tmp_path, slow=SLOW)
    starts.pids(tmp_path)
    cluster.call("scontrol", "requeue", number)
    job = cluster.ended(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), job_output(tmp_path)
    assert len(starts.starts(tmp_path)) == 2
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


def test_a_cancelled_job_saves_and_stays_away(cluster, tmp_path):
    number = submitted(cluster, tmp_path, slow=SLOW)
    starts.pids(tmp_path)
    cluster.call("scancel", number)
    job = cluster.ended(number)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), job_output(tmp_path)
    time.sleep(3)
    assert cluster.job(number)["JobState"] == "CANCELLED"
    assert starts.stops(tmp_path)[0][0] == "preempted"


@pytest.mark.parametrize("name", ["openmpi", "mpich"])
def test_mpirun_passes_usr1_on_and_75_back(name, whole, tmp_path):
    file = str(starts.script(tmp_path, "mpi", "--nproc", "2", slow=SLOW))
    with starts.started(tmp_path, "bash", file, **mpi(name)) as running:
        starts.pids(tmp_path)
        running.send_signal(signal.SIGUSR1)  # the script has become mpirun
        assert running.wait(60) == 75, starts.output(tmp_path)
    assert [reason for reason, _ in starts.stops(tmp_path)] == ["preempted"]
    assert starts.ran(tmp_path, "bash", file, **mpi(name)) == 0
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_torchrun_passes_signals_on(signum, whole, tmp_path):
    """Its own exit code is 1, whatever the ranks' are; what was saved goes on."""
    file = str(starts.script(tmp_path, "torchrun", "--nproc", "2", slow=SLOW))
    with starts.started(tmp_path, "bash", file) as running:
        starts.pids(tmp_path)
        running.send_signal(signum)
        assert running.wait(60) == 1, starts.output(tmp_path)
    assert [reason for reason, _ in starts.stops(tmp_path)] == ["preempted"]
    assert starts.ran(tmp_path, "bash", file) == 0
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


def test_flexcore_itself_passes_signals_on_and_75_back(whole, tmp_path):
    command = ("flexcore", "run", str(starts.config(tmp_path, slow=SLOW)), "--nproc", "2", "--quiet")
    with starts.started(tmp_path, *command) as running:
        one, _ = starts.pids(tmp_path)
        os.kill(one, signal.SIGTERM)  # a single rank of the two
        assert running.wait(60) == 75, starts.output(tmp_path)
    assert starts.ran(tmp_path, *command) == 0
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


# --- crashed and hung ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["torchrun", "flexcore"])
def test_a_killed_rank_is_started_again_with_the_others(how, whole, tmp_path):
    """kill -9 of one rank: both start again from the last checkpoint."""
    command = ("bash", str(starts.script(tmp_path, "torchrun", "--nproc", "2", slow=SLOW)))
    if how == "flexcore":
        command = (
            "flexcore",
            "run",
            str(tmp_path / "toy.json"),
            "--nproc",
            "2",
            "--quiet",
            "--max-restarts",
            "2",
        )
    with starts.started(tmp_path, *command) as running:
        _, two = starts.pids(tmp_path)
        os.kill(two, signal.SIGKILL)
        assert running.wait(120) == 0, starts.output(tmp_path)
    assert len(starts.starts(tmp_path)) == 2
    assert starts.weights(tmp_path) == whole
    assert starts.differences(tmp_path) == []


def test_fewer_ranks_go_on_with_the_same_global_batch(tmp_path):
    """On the global clock accumulation takes the place of the rank that is gone."""
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=SLOW), batch_size=4)
    file = starts.config(tmp_path, train_dataloader=data, global_batch_size=8)
    with starts.started(tmp_path, "flexcore", "run", str(file), "--nproc", "2", "--quiet") as running:
        starts.pids(tmp_path)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 75, starts.output(tmp_path)
    assert starts.ran(tmp_path, "flexcore", "run", str(file), "--quiet") == 0, starts.output(tmp_path)
    (_, saved), last = starts.stops(tmp_path)
    assert last == ("done", 24)
    assert starts.starts(tmp_path) == [0, saved]
    assert starts.differences(tmp_path) == []


def test_ranks_that_are_left_when_a_node_dies_go_on_with_the_same_global_batch(tmp_path):
    """Two of torchrun's agents, one of which is killed: the other starts again, alone, where the last checkpoint is."""
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=SLOW), batch_size=4)
    file = starts.config(tmp_path, train_dataloader=data, global_batch_size=8)
    agent = (
        "torchrun",
        "--nnodes=1:2",
        "--nproc-per-node=1",
        "--max-restarts=3",
        "--rdzv-backend=c10d",
        "--rdzv-id=1",
    )
    command = (*agent, f"--rdzv-endpoint=127.0.0.1:{free_port()}", "-m", "shell", "run", str(file), "--quiet")
    with starts.started(tmp_path, *command) as left:
        time.sleep(2)  # it keeps the meeting, and must be the one that stays
        with starts.started(tmp_path, *command):
            starts.saved(tmp_path, "epoch_1")
        assert left.wait(180) == 0, starts.output(tmp_path)
    first, again = starts.starts(tmp_path)
    assert (first, again >= 8, starts.stops(tmp_path)) == (0, True, [("done", 24)])
    assert starts.worlds(tmp_path) == [2, 1]
    assert starts.differences(tmp_path) == []


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_rank_ends_the_run_with_5(stopped, tmp_path):
    """Named, with every rank's stacks kept, in under 15 s with a timeout of 10 s."""
    file = starts.config(tmp_path, slow=0.2, env_cfg=dict(hang_timeout=10.0))
    with starts.started(tmp_path, "flexcore", "run", str(file), "--nproc", "2", "--quiet") as running:
        os.kill(starts.pids(tmp_path)[stopped], signal.SIGSTOP)
        since = time.monotonic()
        assert running.wait(60) == 5, starts.output(tmp_path)
        passed = time.monotonic() - since
    said = starts.output(tmp_path)
    assert f"flexcore:   rank {stopped} does not answer: it is stopped, stuck or gone\n" in said
    kept = {stack.name for stack in tmp_path.glob("run/*/stacks/*.txt")}
    assert {f"rank_{1 - stopped}.txt"} <= kept <= {"rank_0.txt", "rank_1.txt"}
    print(f"named and ended after {passed:.1f} s")
