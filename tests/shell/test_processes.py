"""How a group starts and ends, and what ranks say to each other."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shell.processes import PARENT, Group, die_with_parent, joined, leave
from shell.ranks import LauncherError, Rank
from tests.ranks import RankFailed, free_port, run_alone, run_ranks, start_alone, start_ranks

ROOT = Path(__file__).parents[2]


def test_a_group_of_one_needs_no_torch():
    code = (
        "import sys; from shell.processes import joined\n"
        "with joined('none', 'gloo', 5) as group:\n"
        "    assert group.broadcast({'a': (1,)}) == {'a': [1]} and group.gather(2) == [2]\n"
        "    assert group.max([1, 2.5]) == [1.0, 2.5] and group.rank.world_size == 1\n"
        "    group.barrier()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)


def speaks(rank):
    import torch.distributed as dist

    before = dict(os.environ)
    with joined("pytorch", "gloo", 30) as group:
        heard = {
            "rank": (
                group.rank.rank,
                group.rank.local_rank,
                group.rank.world_size,
                group.rank.local_world_size,
            ),
            "broadcast": group.broadcast({"from": rank, "text": "é" * rank}),
            "gather": group.gather(["x" * (3 * rank), rank]),
            "max": group.max([rank, -rank, 1e300 * rank]),
        }
        group.barrier()
    return heard, dist.is_initialized(), dict(os.environ) == before


def test_what_one_rank_says_all_hear():
    for rank, (heard, still_there, environment_kept) in enumerate(run_ranks(2, speaks)):
        assert heard == {
            "rank": (rank, rank, 2, 2),
            "broadcast": {"from": 0, "text": ""},
            "gather": [["", 0], ["xxx", 1]],
            "max": [1.0, 0.0, 1e300],
        }
        assert not still_there
        assert environment_kept


def says_nonsense(rank):
    refusals = []
    with joined("pytorch", "gloo", 30) as group:
        for verb, value in ((group.broadcast, {1j: 2}), (group.gather, object() if rank else 1)):
            try:
                verb(value)
            except TypeError as refused:
                refusals.append(str(refused))
        return refusals, group.gather(rank)


def test_a_value_one_rank_cannot_send_is_refused_on_all_and_the_group_goes_on():
    rule = "is not JSON. Ranks exchange plain data: text, numbers, booleans, None, lists and mappings with text keys."
    expected = [f"broadcast: the value on rank 0 {rule}", f"gather: the value on rank 1 {rule}"]
    assert run_ranks(2, says_nonsense) == [(expected, [0, 1])] * 2


def meets_under(rank, launcher, port):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    spoken = {
        "mpi": {"PMI_RANK": rank, "PMI_SIZE": 2, "MPI_LOCALRANKID": rank, "MPI_LOCALNRANKS": 2},
        "slurm": {
            "SLURM_PROCID": rank,
            "SLURM_NTASKS": 2,
            "SLURM_LOCALID": rank,
            "SLURM_TASKS_PER_NODE": "2",
            "SLURM_JOB_ID": port,
        },
    }
    environ = {name: str(value) for name, value in spoken[launcher].items()}
    with joined(launcher, "gloo", 30, environ) as group:
        inside = os.environ["LOCAL_RANK"]
        return group.gather(rank), inside


@pytest.mark.parametrize("launcher", ["mpi", "slurm"])
def test_ranks_of_other_launchers_meet_too(launcher):
    assert run_ranks(2, meets_under, launcher, free_port()) == [([0, 1], "0"), ([0, 1], "1")]


def joins_what_is_there(rank):
    import torch.distributed as dist

    dist.init_process_group("gloo")
    with joined("none", "gloo", 30) as group:
        heard = group.gather(group.rank.rank)
    kept = dist.is_initialized()
    dist.barrier()
    return heard, kept


def test_a_group_someone_else_started_is_used_and_kept():
    assert run_ranks(2, joins_what_is_there) == [([0, 1], True)] * 2


def fails_inside(rank):
    import torch.distributed as dist

    try:
        with joined("pytorch", "gloo", 30):
            raise KeyError(rank)
    except KeyError:
        return dist.is_initialized()


def test_an_error_inside_ends_the_group_without_waiting():
    assert run_ranks(2, fails_inside) == [False, False]


def leaves(rank, code, directory):
    with joined("pytorch", "gloo", 30) as group:
        group.barrier()
        time.sleep(0.5 * rank)
        leave(code, flush=[lambda: 1 / 0, lambda: (Path(directory) / str(rank)).write_text("flushed")])


def test_leaving_keeps_the_code_and_flushes_although_a_step_fails(tmp_path):
    assert start_ranks(2, leaves, 75, str(tmp_path)).wait() == [75, 75]
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["flushed", "flushed"]


def leaves_without_peers(rank):
    with joined("pytorch", "gloo", 30) as group:
        group.barrier()
        if rank == 0:
            time.sleep(30)
        leave(75, patience=0.5)


def test_leaving_does_not_wait_for_ever():
    with start_ranks(2, leaves_without_peers) as ranks:
        ranks.processes[1].join(20)
        assert ranks.processes[1].exitcode == 75


def leaves_slowly(directory):
    def dawdle():
        (Path(directory) / "ready").write_text("")
        time.sleep(0.5)

    leave(75, flush=[dawdle])


def test_a_signal_while_leaving_does_not_change_the_code(tmp_path):
    with start_alone(leaves_slowly, str(tmp_path)) as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            process.kill(signum)
        assert process.wait() == [75]


def test_a_run_from_a_shell_outlives_it():
    assert not die_with_parent({})


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel call is Linux's")
def test_a_worker_whose_launcher_is_gone_already_ends():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "from shell.processes import die_with_parent; die_with_parent()"
    told = {**os.environ, PARENT: str(gone.pid)}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=told, timeout=30).returncode == -9
    told[PARENT] = str(os.getpid())
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=told, timeout=30).returncode == 0


def raises(rank):
    if rank == 1:
        raise LauncherError("mine")
    time.sleep(60)


def vanishes(rank):
    os._exit(9)


def sleeps():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def test_the_helper_raises_a_ranks_own_error_and_leaves_nobody_behind():
    with pytest.raises(LauncherError) as caught:
        run_ranks(2, raises)
    assert str(caught.value) == "mine"
    assert "on rank 1:\nTraceback" in caught.value.__notes__[0]
    with pytest.raises(RankFailed) as caught:
        run_ranks(1, vanishes)
    assert str(caught.value) == "rank 0 ended with 9, no result"
    started = start_alone(sleeps)
    with pytest.raises(TimeoutError):
        started.results(timeout=0.5)
    assert [process.exitcode for process in started.processes] == [-signal.SIGKILL]


def runs_alone():
    return "RANK" in os.environ, threading.current_thread() is threading.main_thread()


def test_alone_means_without_a_launcher(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert run_alone(runs_alone) == (False, True)


def test_a_group_of_one_is_frozen():
    with pytest.raises(AttributeError):
        Group().rank = Rank(rank=1)
