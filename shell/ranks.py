"""What a rank is and where its group meets, as the launcher's variables say; torch is not needed to know it."""

import os
import re
import zlib
from collections.abc import Mapping

from attrs import frozen

from flexcore.problems import did_you_mean, shown


class LauncherError(ValueError):
    """The environment does not say what the launcher should have said: place, value, rule, remedy."""


@frozen(kw_only=True)
class Rank:
    """Where this process stands: among all ranks, and among those of its host."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1


@frozen(kw_only=True)
class Names:
    """The variables one launcher speaks through; of several, the first one set counts."""

    rank: str
    world_size: tuple[str, ...]
    local_rank: str
    local_world_size: tuple[str, ...]


PYTORCH = Names(
    rank="RANK", world_size=("WORLD_SIZE",), local_rank="LOCAL_RANK", local_world_size=("LOCAL_WORLD_SIZE",)
)
OPEN_MPI = Names(
    rank="OMPI_COMM_WORLD_RANK",
    world_size=("OMPI_COMM_WORLD_SIZE",),
    local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
    local_world_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
)
HYDRA = Names(  # MPICH and Intel MPI
    rank="PMI_RANK",
    world_size=("PMI_SIZE",),
    local_rank="MPI_LOCALRANKID",
    local_world_size=("MPI_LOCALNRANKS",),
)
SLURM = Names(
    rank="SLURM_PROCID",
    world_size=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    local_rank="SLURM_LOCALID",
    local_world_size=("SLURM_NTASKS_PER_NODE",),
)
LAUNCHERS: Mapping[str, tuple[Names, ...]] = {
    "none": (),
    "pytorch": (PYTORCH,),
    "mpi": (OPEN_MPI, HYDRA),
    "slurm": (SLURM,),
}
STARTED_BY = {
    "pytorch": "torchrun, or `flexcore run --nproc N`",
    "mpi": "mpirun",
    "slurm": "srun (a bare sbatch script is not a task)",
}


def read_rank(launcher: str, environ: Mapping[str, str]) -> Rank:
    """The place of this process, as `launcher` (none, pytorch, mpi or slurm) tells it in `environ`.

    Raises:
        LauncherError: the launcher is unknown, or its variables are missing or do not fit together.
    """
    dialects = _dialects(launcher)
    if not dialects:
        return Rank()
    names = next((dialect for dialect in dialects if dialect.rank in environ), None)
    if names is None:
        wanted = " or ".join(dialect.rank for dialect in dialects)
        raise LauncherError(
            f'launcher: "{launcher}" needs {wanted} in the environment, which is not set. '
            f"Start it with {STARTED_BY[launcher]}, or set launcher to none."
        )
    return _read(launcher, names, environ)


def _dialects(launcher: str) -> tuple[Names, ...]:
    if launcher not in LAUNCHERS:
        raise LauncherError(
            f"launcher: {shown(launcher)} is not a launcher. Use one of {', '.join(LAUNCHERS)}."
            + did_you_mean(str(launcher), LAUNCHERS)
        )
    return LAUNCHERS[launcher]


def _read(launcher: str, names: Names, environ: Mapping[str, str]) -> Rank:
    size_name = next((name for name in names.world_size if name in environ), names.world_size[0])
    rank = whole_number(environ, names.rank)
    world_size = whole_number(environ, size_name)
    local_rank = whole_number(environ, names.local_rank, default=0)
    told_by, local_size = _local_world_size(launcher, names, environ, world_size)
    _below(names.rank, rank, size_name, world_size)
    _below(names.local_rank, local_rank, told_by, local_size)
    if local_size > world_size:
        raise LauncherError(
            f"{told_by}: is {local_size}, but can be at most {size_name}, which is {world_size}. "
            f"Let the launcher set both."
        )
    return Rank(rank=rank, local_rank=local_rank, world_size=world_size, local_world_size=local_size)


def whole_number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
        found = "is not set" if text is None else f"is {shown(text)}"
        raise LauncherError(f"{name}: {found}, but must be a whole number. Let the launcher set it.")
    return int(text)


def _below(name: str, value: int, size_name: str, size: int) -> None:
    if value >= size:
        raise LauncherError(
            f"{name}: is {value}, but must be below {size_name}, which is {size}. Let the launcher set both."
        )


def _local_world_size(
    launcher: str, names: Names, environ: Mapping[str, str], world_size: int
) -> tuple[str, int]:
    """The variable and what it tells; without it one where there is no local rank (old Kubernetes jobs), else all."""
    if launcher == "slurm":
        for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
            counts, node = tasks_per_node(environ.get(name, "")), environ.get("SLURM_NODEID", "0")
            if re.fullmatch(r"[0-9]{1,9}", node) and int(node) < len(counts):
                return name, counts[int(node)]
    told = next((name for name in names.local_world_size if name in environ), None)
    if told is not None:
        return told, whole_number(environ, told)
    return names.local_world_size[0], world_size if names.local_rank in environ else 1


def tasks_per_node(text: str) -> tuple[int, ...]:
    """Slurm's run-length form, a count a node: "2(x3),1" -> (2, 2, 2, 1)."""
    if not re.fullmatch(r"[0-9]{1,6}(\(x[0-9]{1,6}\))?(,[0-9]{1,6}(\(x[0-9]{1,6}\))?)*", text):
        return ()
    found = re.findall(r"([0-9]+)(?:\(x([0-9]+)\))?", text)
    return tuple(int(count) for count, times in found for _ in range(int(times or 1)))


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: "rack[1-2]n[03-10,12],gpu1" -> "rack1n03"."""
    found = re.match(r"(?:[^,\[\]]|\[[^\]]*\])*", nodelist.strip())
    first = found.group() if found else ""
    return re.sub(r"\[([^\]\-,]*)[^\]]*\]", r"\1", first)


def rendezvous(launcher: str, rank: Rank, environ: Mapping[str, str]) -> dict[str, str]:
    """The env:// variables torch reads, whatever the launcher calls them.

    MASTER_ADDR and MASTER_PORT are kept where given. Otherwise the address is Slurm's first host, or this
    host if all ranks are on it, and the port follows from the job's identity, which all ranks share.
    """
    return {
        "RANK": str(rank.rank),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": str(rank.local_rank),
        "LOCAL_WORLD_SIZE": str(rank.local_world_size),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or _address(launcher, rank, environ),
        "MASTER_PORT": _given_port(environ) or _port(launcher, rank, environ),
    }


def _address(launcher: str, rank: Rank, environ: Mapping[str, str]) -> str:
    nodelist = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST")
    if launcher != "pytorch" and rank.local_world_size == rank.world_size:
        return "127.0.0.1"
    if launcher != "pytorch" and nodelist:
        return first_host(nodelist)
    raise LauncherError(
        f'MASTER_ADDR: is not set, but the {rank.world_size} ranks of launcher "{launcher}" need a host to meet '
        f"on. Set it to the first host's name (mpirun -x MASTER_ADDR=...)."
    )


def _given_port(environ: Mapping[str, str]) -> str:
    text = environ.get("MASTER_PORT", "")
    if text and not (re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) < 65536):
        raise LauncherError(
            f"MASTER_PORT: is {shown(text)}, but must be a port, 1 to 65535. Let the launcher set it."
        )
    return text


def _port(launcher: str, rank: Rank, environ: Mapping[str, str]) -> str:
    if launcher == "pytorch":
        raise LauncherError(
            'MASTER_PORT: is not set, but launcher "pytorch" needs a port to meet on. Start it with torchrun.'
        )
    told = [environ[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE") if name in environ]
    alone_on_host = rank.local_world_size == rank.world_size
    return str(port_of(".".join(told) or (str(os.getppid()) if alone_on_host else "")))


def port_of(job: str) -> int:
    """A port from a job's identity, below the ephemeral range: equal on all ranks, seldom on two jobs."""
    return 15000 + zlib.crc32(job.encode()) % 15000
