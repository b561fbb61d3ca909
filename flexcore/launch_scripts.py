"""A plan as what schedulers are handed: the batch script, command lines or manifest that start its ranks, as text.

Each starts one process a rank. One that was asked to stop (SIGTERM, SIGUSR1) saves and ends with 75; whoever
starts it again has it go on where it was.
"""

import json
import re
from collections.abc import Callable, Mapping

from attrs import frozen

from flexcore.problems import ConfigError
from flexcore.rules import problem
from flexcore.run_plan import Plan

COMMANDS: Mapping[str, str] = {"train": "run", "val": "val", "test": "test"}

GRACE = 120
"""Seconds before a job's time is up at which Slurm tells its ranks; it may do so a minute early."""

LEAVING = 90
"""Seconds a Slurm rank may end after the first: ranks leave together, after a minute's wait at most."""

RESTARTS = 3

DESCRIBING: Mapping[str, Callable[[str], tuple[tuple[str, str], ...]]] = {
    "slurm": lambda n: (("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", n)),
    "mpi": lambda n: (("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", n)),
    "torchrun": lambda n: (("RANK", "0"), ("WORLD_SIZE", n)),
    "k8s": lambda n: (("RANK", "0"), ("WORLD_SIZE", n)),
}
"""The launcher variables ranks will find, by what starts them: facts a plan for them is made from."""


@frozen(kw_only=True)
class Request:
    """What is asked of a scheduler: nodes x nproc ranks for a config as it is named on the command line.

    Attributes:
        time: in Slurm's words, "1-12:00:00"; None: the partition's own. cpus: of each rank.
        image: the container Kubernetes runs; it holds flexcore and the config.
    """

    config: str
    overrides: tuple[str, ...] = ()
    nodes: int = 1
    nproc: int = 1
    time: str | None = None
    partition: str | None = None
    cpus: int | None = None
    image: str | None = None


def environment(kind: str, request: Request) -> tuple[tuple[str, str], ...]:
    """The launcher variables of rank 0."""
    return DESCRIBING[kind](str(request.nodes * request.nproc))


def launch_script(plan: Plan, kind: str, request: Request) -> str:
    """The text for one of `DESCRIBING`.

    Raises:
        ConfigError: the config starts from weights and does not resume, so a second start would undo the first.
    """
    return WRITERS[kind](plan, request, _words(plan, request))


def _words(plan: Plan, request: Request) -> tuple[str, ...]:
    """The flexcore command line of a rank; a run that may be started again must resume."""
    config = plan.config
    resumed: tuple[str, ...] = ()
    if plan.mode == "train" and config.resume is False:
        if config.load_from is not None:
            text = "is false with load_from set, so a job that is started again would begin anew from those weights."
            remedy = "Set resume=True to go on from the newest checkpoint, or start from a config without load_from."
            raise ConfigError([problem("FP008", ("resume",), text, remedy)])
        resumed = ("resume=true",)
    return (COMMANDS[plan.mode], request.config, *request.overrides, *resumed)


def _quoted(word: str) -> str:
    """One word of a shell command."""
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII) else "'" + word.replace("'", "'\\''") + "'"


def _line(*words: str) -> str:
    return " ".join(_quoted(word) for word in words)


def _name(plan: Plan, rest: str, limit: int) -> str:
    """The experiment's name in letters, digits and `rest`, as job names and labels want it."""
    return re.sub(rf"[^A-Za-z0-9{rest}]+", "-", plan.names.experiment_name)[:limit].strip("-.") or "flexcore"


def _about(plan: Plan, request: Request) -> str:
    """One line: how many ranks, and what that makes of a batch."""
    ranks, batch = request.nodes * request.nproc, plan.batching
    size = None if batch is None else batch.global_batch_size
    made = "" if size is None else f", {size:,} samples a step"
    return f"{ranks} rank{'s' if ranks > 1 else ''} on {request.nodes} node{'s' if request.nodes > 1 else ''}{made}"


def _gpus(plan: Plan, request: Request) -> int:
    return request.nproc if plan.environment.device_type == "cuda" else 0


def _slurm(plan: Plan, request: Request, words: tuple[str, ...]) -> str:
    options = {
        "job-name": _name(plan, "_.-", 60),
        "nodes": request.nodes,
        "ntasks-per-node": request.nproc,
        "cpus-per-task": request.cpus,
        "gpus-per-node": _gpus(plan, request) or None,
        "time": request.time,
        "partition": request.partition,
        "output": "%x-%j.out",
        "open-mode": "append",
        "signal": f"USR1@{GRACE}",
    }
    given = "\n".join(f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None)
    cpus = f" --cpus-per-task={request.cpus}" if request.cpus else ""
    return f"""\
#!/bin/bash
# {_about(plan, request)}; each task is a rank. They meet on the first node, at a port that follows from the
# job's id. Submit with: sbatch FILE
{given}
#SBATCH --requeue

export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{request.cpus or 1}}}"

# A shell without a trap would be gone before its ranks have saved.
trap : TERM USR1

# Ranks told to stop save together and end with 75 each: the first to end must not have the others killed.
# One that dies leaves the others waiting: they are killed {LEAVING} s later.
srun --kill-on-bad-exit=0 --wait={LEAVING}{cpus} {_line("flexcore", *words)}
code=$?

# Preempted and saved: again, from there; unless the job was cancelled, or Slurm has requeued it already.
if [ "$code" -eq 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _torchrun(plan: Plan, request: Request, words: tuple[str, ...]) -> str:
    ranks = f"--nproc-per-node={request.nproc} --max-restarts={RESTARTS}"
    # Told to stop, torchrun passes the signal on and waits 30 s; USR1 would kill it, were it not named.
    signals = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    if request.nodes == 1:
        where, how = "on this node", ""
        meeting = "--standalone"
    else:
        name = _name(plan, "_-", 60)
        where = "on each node, with MASTER_ADDR set to the name of the first"
        how = (
            ': "${MASTER_ADDR:?set it to the name of the first node}"\n'
            "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # without it no lost node can join again\n"
        )
        meeting = (
            f"--nnodes={request.nodes} --rdzv-backend=c10d --rdzv-id={name} \\\n"
            '  --rdzv-endpoint="$MASTER_ADDR:${MASTER_PORT:-29400}"'
        )
    return f"""\
#!/bin/bash
# {_about(plan, request)}. Run this {where}.
# torchrun ends with 1 whenever a rank does not end with 0, 75 (preempted and saved) included, and gives
# ranks that are told to stop 30 s. `flexcore run --nproc` passes codes on, and waits.
{how}export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{request.cpus or 1}}}"
exec torchrun {meeting} \\
  {ranks} {signals} \\
  -m shell {_line(*words)}
"""


def _mpi(plan: Plan, request: Request, words: tuple[str, ...]) -> str:
    ranks, each, command = request.nodes * request.nproc, request.nproc, _line("flexcore", *words)
    ours, hydra, meeting = "", "", ""
    if request.nodes > 1:
        ours = f' --host "${{HOSTS//,/:{each},}}:{each}"'
        hydra = ' -hosts "$HOSTS"'
        meeting = (
            ': "${HOSTS:?set it to the names of the nodes, with commas between}"\n'
            'export MASTER_ADDR="${MASTER_ADDR:-${HOSTS%%,*}}" MASTER_PORT="${MASTER_PORT:-29400}"\n'
        )
    passed = "-x MASTER_ADDR -x MASTER_PORT " if request.nodes > 1 else ""
    shared = "-genvlist MASTER_ADDR,MASTER_PORT,OMP_NUM_THREADS " if request.nodes > 1 else ""
    return f"""\
#!/bin/bash
# {_about(plan, request)}, by Open MPI, or by MPICH or Intel MPI: whichever mpirun is found first.
# Have it stopped by SIGUSR1: mpirun answers SIGTERM by killing its ranks within 2 s, before they have saved.
{meeting}export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{request.cpus or 1}}}"
case "$(mpirun --version)" in
  *"Open MPI"*)
    exec mpirun -n {ranks} --map-by ppr:{each}:node{ours} {passed}-x OMP_NUM_THREADS \\
      {command}
    ;;
  *)
    exec mpirun -n {ranks} -ppn {each}{hydra} {shared}\\
      {command}
    ;;
esac
"""


def _k8s(plan: Plan, request: Request, words: tuple[str, ...]) -> str:
    """A TrainJob of Kubeflow Trainer (v2): its torch runtime tells torchrun everything else through PET_ variables."""
    name = _name(plan, "-", 40).lower()
    gpus = _gpus(plan, request)
    limits = f"    resourcesPerNode:\n      limits:\n        nvidia.com/gpu: {gpus}\n" if gpus else ""
    command = ", ".join(_text(word) for word in ("torchrun", "-m", "shell", *words))
    return f"""\
# {_about(plan, request)}. Submit with: kubectl create -f FILE
# work_dir must be a volume that all nodes share and that outlives their pods: add it to the runtime.
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata:
  name: {_text(name if name[0].isalpha() else f"run-{name}")}
spec:
  runtimeRef:
    name: torch-distributed
  trainer:
    image: {_text(request.image or "")}
    numNodes: {request.nodes}
    numProcPerNode: {request.nproc}
    command: [{command}]
{limits}"""


def _text(word: str) -> str:
    """A YAML scalar: JSON's quoted text is one."""
    return json.dumps(word, ensure_ascii=False)


WRITERS: Mapping[str, Callable[[Plan, Request, tuple[str, ...]], str]] = {
    "slurm": _slurm,
    "torchrun": _torchrun,
    "mpi": _mpi,
    "k8s": _k8s,
}
