"""Which launcher started this process, from its environment variables alone (a pure function of a dump)."""

from collections.abc import Mapping

# (variables that must all be there, launcher), in order of precedence. SLURM_NTASKS alone decides nothing:
# a bare sbatch script has it too, and so has mpirun inside an allocation.
SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("TORCHELASTIC_RUN_ID",), "pytorch"),
    (("RANK", "WORLD_SIZE"), "pytorch"),
    (("OMPI_COMM_WORLD_RANK",), "mpi"),
    (("PMI_RANK", "MPI_LOCALRANKID"), "mpi"),
    (("SLURM_STEP_ID", "SLURM_PROCID"), "slurm"),
)
WORLD_SIZE: Mapping[str, tuple[str, ...]] = {
    "pytorch": ("WORLD_SIZE",),
    "mpi": ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
    "slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
}
VARIABLES: frozenset[str] = frozenset(
    name for names, _ in SIGNS for name in names
) | frozenset(name for names in WORLD_SIZE.values() for name in names) | frozenset({
    "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS", "SLURM_JOB_ID", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE",
})  # fmt: skip


def infer(environment: Mapping[str, str]) -> str:
    """The launcher whose signs are there, else "none"."""
    for names, launcher in SIGNS:
        if all(name in environment for name in names):
            return launcher
    return "none"


def present(launcher: str, environment: Mapping[str, str]) -> bool:
    """Whether the variables a given launcher works by are there."""
    return launcher == "none" or any(
        name == launcher and all(key in environment for key in names) for names, name in SIGNS
    )


def world_size(launcher: str, environment: Mapping[str, str]) -> int | None:
    """The number of ranks the launcher's variables tell; None where they tell nothing sensible."""
    for name in WORLD_SIZE.get(launcher, ()):
        text = environment.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0:
            return int(text)
    return None
