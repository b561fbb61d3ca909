"""A Slurm cluster of its own on this machine: munged, slurmctld and two slurmd, all files in one directory.

Needs root and Debian's slurmctld, slurmd, slurm-client and munge; no systemd, no cgroups. Nodes n1 and n2 are
names for this machine which only job steps can resolve (each slurmd has an /etc/hosts of its own).
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
NODES = ("n1", "n2")
PORT = 16800

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired: 120 s by default.
AuthInfo=socket={at}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/%n
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.%n.pid
SlurmctldLogFile={at}/log/slurmctld.log
SlurmdLogFile={at}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
RebootProgram=/bin/true
JobRequeue=1
KillWait=10
TmpFS=/tmp
PartitionName=test Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=4000 State=UNKNOWN\n"


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in NEEDED if shutil.which(name) is None]


class Cluster:
    """What is asked of a running cluster."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.environ = {**os.environ, "SLURM_CONF": str(at / "slurm.conf")}

    def call(self, *words: str, cwd: Path | None = None, timeout: float = 120) -> str:
        """A Slurm command's output; its own error text where it fails."""
        done = subprocess.run(
            words, env=self.environ, cwd=cwd, text=True, capture_output=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, (
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def submit(self, script: Path, cwd: Path) -> str:
        """The id of the job."""
        return self.call("sbatch", "--parsable", str(script), cwd=cwd).strip()

    def job(self, number: str) -> Mapping[str, str]:
        """What scontrol shows of a job."""
        shown = self.call("scontrol", "show", "job", number, "-o")
        return dict(re.findall(r"(\w+)=(\S*)", shown))

    def ended(self, number: str, timeout: float = 120) -> Mapping[str, str]:
        """The job once it is over and not about to run again."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            job = self.job(number)
            if job["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
                return job
            time.sleep(0.2)
        raise TimeoutError(f"job {number} is still {self.job(number)['JobState']} after {timeout} s")


@contextlib.contextmanager
def cluster(at: Path) -> Iterator[Cluster]:
    """A cluster whose nodes are idle; gone with the block."""
    environ = {**os.environ, "SLURM_CONF": str(at / "slurm.conf")}
    _written(at)
    try:
        _started(at, environ)
        yield Cluster(at)
    finally:
        _stopped(at, environ)


def _written(at: Path) -> None:
    host = socket.gethostname().partition(".")[0]
    for name in ("munge", "state", "log", *NODES):
        (at / name).mkdir(parents=True)
    (at / "munge" / "key").touch(0o600)
    (at / "munge" / "key").write_bytes(os.urandom(128))
    nodes = [NODE.format(name=name, host=host, port=PORT + 11 + i) for i, name in enumerate(NODES)]
    conf = CONF.format(host=host, port=PORT, at=at, nodes=",".join(NODES))
    (at / "slurm.conf").write_text(conf + "".join(nodes))
    (at / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (at / "hosts").write_text(
        Path("/etc/hosts").read_text() + "".join(f"127.0.0.1 {name}\n" for name in NODES)
    )


def _started(at: Path, environ: Mapping[str, str]) -> None:
    munge = at / "munge"
    options = (f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={at}/munged.pid",
               f"--log-file={at}/log/munged.log", f"--seed-file={munge}/seed")  # fmt: skip
    _daemon(at, environ, "munged", "--force", *options)
    _daemon(at, environ, "slurmctld", "-c")
    for name in NODES:
        seen = f"mount --bind '{at}/hosts' /etc/hosts && exec slurmd -N {name}"
        _daemon(at, environ, "unshare", "--mount", "--propagation", "private", "bash", "-c", seen)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        idle = subprocess.run(
            ["sinfo", "-h", "-t", "idle", "-o", "%D"],
            env=environ,
            text=True,
            capture_output=True,
            check=False,
        )
        if idle.stdout.strip() == str(len(NODES)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"the nodes did not become idle:\n{_logs(at)}")


def _daemon(at: Path, environ: Mapping[str, str], *words: str) -> None:
    """Start a program that puts itself into the background; its output goes to a file, never to a pipe."""
    with (at / "log" / "daemons.err").open("ab") as log:
        done = subprocess.run(words, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=30, check=False)  # fmt: skip
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}:\n{_logs(at)}"


def _logs(at: Path) -> str:
    return "\n".join(
        f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in (at / "log").iterdir()
    )


def _stopped(at: Path, environ: Mapping[str, str]) -> None:
    """Cancel what runs, then end the daemons by the pids they wrote."""
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        subprocess.run(["scancel", "-u", "root"], env=environ, capture_output=True, timeout=10, check=False)
    for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged"):
        with contextlib.suppress(OSError, ValueError):
            pid = int((at / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
            _gone(pid)


def _gone(pid: int, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
