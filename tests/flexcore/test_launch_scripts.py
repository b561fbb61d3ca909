"""What schedulers are handed: whole texts of one case each, and what holds for every request."""

import shlex

import pytest
import yaml
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import ConfigError, Facts
from flexcore.launch_scripts import DESCRIBING, Request, environment, launch_script
from tests.flexcore.base import base

ASKED = Request(config="configs/base.py", nodes=2, nproc=4, time="1-12:00:00", partition="gpu", cpus=6, image="hub/train:1")  # fmt: skip


def text(kind: str, asked: Request = ASKED, facts: Facts = Facts(), mode="train", **changes) -> str:
    facts = evolve(
        facts, environment=environment(kind, asked), world_size=asked.nodes * asked.nproc, train_samples=640
    )
    return launch_script(flexcore.plan(base(**{"resume": True, **changes}), facts, mode=mode), kind, asked)


def test_a_batch_script_for_slurm():
    assert text("slurm", facts=Facts(device_type="cuda")) == """\
#!/bin/bash
# 8 ranks on 2 nodes, 32 samples a step; each task is a rank. They meet on the first node, at a port that follows from the
# job's id. Submit with: sbatch FILE
#SBATCH --job-name=base
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=6
#SBATCH --gpus-per-node=4
#SBATCH --time=1-12:00:00
#SBATCH --partition=gpu
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
#SBATCH --requeue

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-6}"

# A shell without a trap would be gone before its ranks have saved.
trap : TERM USR1

# Ranks told to stop save together and end with 75 each: the first to end must not have the others killed.
# One that dies leaves the others waiting: they are killed 90 s later.
srun --kill-on-bad-exit=0 --wait=90 --cpus-per-task=6 flexcore run configs/base.py
code=$?

# Preempted and saved: again, from there; unless the job was cancelled, or Slurm has requeued it already.
if [ "$code" -eq 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""  # fmt: skip


def test_a_script_for_torchrun():
    assert text("torchrun") == """\
#!/bin/bash
# 8 ranks on 2 nodes, 32 samples a step. Run this on each node, with MASTER_ADDR set to the name of the first.
# torchrun ends with 1 whenever a rank does not end with 0, 75 (preempted and saved) included, and gives
# ranks that are told to stop 30 s. `flexcore run --nproc` passes codes on, and waits.
: "${MASTER_ADDR:?set it to the name of the first node}"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # without it no lost node can join again
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-6}"
exec torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-id=base \\
  --rdzv-endpoint="$MASTER_ADDR:${MASTER_PORT:-29400}" \\
  --nproc-per-node=4 --max-restarts=3 --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \\
  -m shell run configs/base.py
"""  # fmt: skip


def test_a_script_for_either_mpi():
    assert text("mpi") == """\
#!/bin/bash
# 8 ranks on 2 nodes, 32 samples a step, by Open MPI, or by MPICH or Intel MPI: whichever mpirun is found first.
# Have it stopped by SIGUSR1: mpirun answers SIGTERM by killing its ranks within 2 s, before they have saved.
: "${HOSTS:?set it to the names of the nodes, with commas between}"
export MASTER_ADDR="${MASTER_ADDR:-${HOSTS%%,*}}" MASTER_PORT="${MASTER_PORT:-29400}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-6}"
case "$(mpirun --version)" in
  *"Open MPI"*)
    exec mpirun -n 8 --map-by ppr:4:node --host "${HOSTS//,/:4,}:4" -x MASTER_ADDR -x MASTER_PORT -x OMP_NUM_THREADS \\
      flexcore run configs/base.py
    ;;
  *)
    exec mpirun -n 8 -ppn 4 -hosts "$HOSTS" -genvlist MASTER_ADDR,MASTER_PORT,OMP_NUM_THREADS \\
      flexcore run configs/base.py
    ;;
esac
"""  # fmt: skip


def test_a_manifest_for_kubeflow():
    assert text("k8s", facts=Facts(device_type="cuda")) == """\
# 8 ranks on 2 nodes, 32 samples a step. Submit with: kubectl create -f FILE
# work_dir must be a volume that all nodes share and that outlives their pods: add it to the runtime.
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata:
  name: "base"
spec:
  runtimeRef:
    name: torch-distributed
  trainer:
    image: "hub/train:1"
    numNodes: 2
    numProcPerNode: 4
    command: ["torchrun", "-m", "shell", "run", "configs/base.py"]
    resourcesPerNode:
      limits:
        nvidia.com/gpu: 4
"""  # fmt: skip


ALONE = Request(config="configs/\u00e9.py", overrides=("model.width=8", "it's"))
ODD = "--X--7 my.Exp_@" + "x" * 70 + "X"


def test_scripts_for_one_rank_ask_for_nothing_that_was_not_asked():
    def only(kind, name=ODD):
        return text(kind, ALONE, experiment_name=name, global_batch_size=None)

    line = "'configs/\u00e9.py' model.width=8 'it'\\''s'"
    assert (
        only("slurm").partition("\n\nexport ")[0]
        == f"""\
#!/bin/bash
# 1 rank on 1 node, 4 samples a step; each task is a rank. They meet on the first node, at a port that follows from the
# job's id. Submit with: sbatch FILE
#SBATCH --job-name=X--7-my.Exp_-{"x" * 45}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
#SBATCH --requeue"""
    )
    assert 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"\n' in only("slurm")
    assert f"\nsrun --kill-on-bad-exit=0 --wait=90 flexcore run {line}\n" in only("slurm")
    assert (
        only("torchrun")
        == f"""\
#!/bin/bash
# 1 rank on 1 node, 4 samples a step. Run this on this node.
# torchrun ends with 1 whenever a rank does not end with 0, 75 (preempted and saved) included, and gives
# ranks that are told to stop 30 s. `flexcore run --nproc` passes codes on, and waits.
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
exec torchrun --standalone \\
  --nproc-per-node=1 --max-restarts=3 --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \\
  -m shell run {line}
"""
    )
    assert (
        only("mpi")
        == f"""\
#!/bin/bash
# 1 rank on 1 node, 4 samples a step, by Open MPI, or by MPICH or Intel MPI: whichever mpirun is found first.
# Have it stopped by SIGUSR1: mpirun answers SIGTERM by killing its ranks within 2 s, before they have saved.
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
case "$(mpirun --version)" in
  *"Open MPI"*)
    exec mpirun -n 1 --map-by ppr:1:node -x OMP_NUM_THREADS \\
      flexcore run {line}
    ;;
  *)
    exec mpirun -n 1 -ppn 1 \\
      flexcore run {line}
    ;;
esac
"""
    )
    assert only("k8s") == f"""\
# 1 rank on 1 node, 4 samples a step. Submit with: kubectl create -f FILE
# work_dir must be a volume that all nodes share and that outlives their pods: add it to the runtime.
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata:
  name: "x--7-my-exp-{"x" * 26}"
spec:
  runtimeRef:
    name: torch-distributed
  trainer:
    image: ""
    numNodes: 1
    numProcPerNode: 1
    command: ["torchrun", "-m", "shell", "run", "configs/\u00e9.py", "model.width=8", "it's"]
"""  # fmt: skip


MARKS = {"slurm": "#SBATCH --job-name=", "torchrun": "--rdzv-id=", "k8s": '  name: "'}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("\u00e9", ("flexcore", "flexcore", "flexcore")),
        (ODD, (f"X--7-my.Exp_-{'x' * 45}", f"X--7-my-Exp_-{'x' * 45}", f"x--7-my-exp-{'x' * 26}")),
        ("a" * 39 + "-b", ("a" * 39 + "-b", "a" * 39 + "-b", "a" * 39)),
        ("a" * 59 + ".-b", ("a" * 59, "a" * 59, "a" * 40)),
        ("X.Y_Z", ("X.Y_Z", "X-Y_Z", "x-y-z")),
        ("7up", ("7up", "7up", "run-7up")),
    ],
    ids=str,
)
def test_names_are_cut_to_what_each_takes(name, expected):
    """No longer than it may be, with letters or digits at both ends, and between them only what its reader takes."""
    found = [text(kind, experiment_name=name).partition(mark)[2].split()[0] for kind, mark in MARKS.items()]
    assert [one.removesuffix('"') for one in found] == list(expected)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Request(config="c", nproc=2), "# 2 ranks on 1 node, 8 samples a step."),
        (Request(config="c", nodes=2), "# 2 ranks on 2 nodes, 8 samples a step."),
        (Request(config="c", nodes=40, nproc=8), "# 320 ranks on 40 nodes, 1,280 samples a step."),
    ],
)
def test_a_script_tells_how_many_ranks_and_samples(asked, told):
    assert text("torchrun", asked).splitlines()[1].startswith(told)
    assert text("torchrun", Request(config="c"), mode="val", **EVALUATED).splitlines()[1] == (
        "# 1 rank on 1 node. Run this on this node."
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("slurm", (("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "6"))),
        ("mpi", (("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "6"))),
        ("torchrun", (("RANK", "0"), ("WORLD_SIZE", "6"))),
        ("k8s", (("RANK", "0"), ("WORLD_SIZE", "6"))),
    ],
)
def test_the_variables_ranks_will_find(kind, expected):
    assert environment(kind, Request(config="c", nodes=2, nproc=3)) == expected


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
requests = st.builds(
    Request, config=words, overrides=st.lists(words, max_size=3).map(tuple), nodes=st.integers(1, 9),
    nproc=st.integers(1, 9), image=st.just("i"),
)  # fmt: skip
names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\"), max_size=60
).map(lambda tail: f"7{tail}")
modes = st.sampled_from([("train", "run"), ("val", "val")])
EVALUATED = {"val_dataloader": {"dataset": {"type": "pkg:D"}, "batch_size": 1}, "val_evaluator": {"type": "pkg:M"}, "val_cfg": {}}  # fmt: skip


def commands(kind: str, script: str) -> list[list[str]]:
    """Every command line that starts flexcore, as a shell splits it, from "flexcore" or "shell" on."""
    if kind == "k8s":
        command = yaml.safe_load(script)["spec"]["trainer"]["command"]
        return [command[command.index("shell") + 1 :]]
    mark = "-m shell " if kind == "torchrun" else "flexcore "
    lines = [line for line in script.splitlines() if mark in line and not line.startswith("#")]
    return [shlex.split(line.partition(mark)[2]) for line in lines]


@pytest.mark.parametrize("kind", DESCRIBING)
@given(requests, modes, names)
def test_the_command_survives_whatever_its_words_are(kind, asked, mode, name):
    script = text(kind, asked, mode=mode[0], experiment_name=name, **EVALUATED)
    expected = [mode[1], asked.config, *asked.overrides]
    found = commands(kind, script)
    assert found == [expected] * (2 if kind == "mpi" else 1)


@given(requests, names)
def test_a_manifest_is_yaml_with_a_name_kubernetes_takes(asked, name):
    job = yaml.safe_load(text("k8s", asked, experiment_name=name))
    label = job["metadata"]["name"]
    assert label.isascii()
    assert label[0].isalpha()
    assert label[-1].isalnum()
    assert len(label) <= 44
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (asked.nodes, asked.nproc)


@given(requests)
def test_ranks_are_as_many_as_asked_for(asked):
    slurm = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in text("slurm", asked).splitlines()
        if line.startswith("#SBATCH") and "=" in line
    )
    assert int(slurm["nodes"]) * int(slurm["ntasks-per-node"]) == asked.nodes * asked.nproc
    assert text("mpi", asked).count(f"mpirun -n {asked.nodes * asked.nproc} ") == 2
    torchrun = text("torchrun", asked)
    assert f"--nproc-per-node={asked.nproc} " in torchrun
    assert (f"--nnodes={asked.nodes} " in torchrun) == (asked.nodes > 1) == ("--standalone" not in torchrun)


@pytest.mark.parametrize("kind", DESCRIBING)
def test_a_second_start_goes_on_where_the_first_was(kind):
    """Said on the command line where the config does not say so, and only for training."""
    silent, spoken = text(kind, resume=False), text(kind, resume=True)
    assert commands(kind, silent)[0] == [*commands(kind, spoken)[0], "resume=true"]
    assert "resume" not in text(kind, mode="val", resume=False, **EVALUATED)


def test_a_second_start_that_would_undo_the_first_is_refused():
    with pytest.raises(ConfigError) as refused:
        text("slurm", resume=False, load_from="weights")
    assert str(refused.value) == (
        "resume: is false with load_from set, so a job that is started again would begin anew from those weights. "
        "Set resume=True to go on from the newest checkpoint, or start from a config without load_from. [FP008]"
    )


@pytest.mark.parametrize("kind", DESCRIBING)
def test_a_batch_that_the_ranks_cannot_share_has_no_script(kind):
    with pytest.raises(ConfigError) as refused:
        text(kind, global_batch_size=12)
    assert [problem.code for problem in refused.value.problems] == ["FD002"]


@pytest.mark.parametrize(
    ("kind", "launcher"), [("slurm", "slurm"), ("mpi", "mpi"), ("torchrun", "pytorch"), ("k8s", "pytorch")]
)
def test_the_plan_is_one_for_ranks_started_so(kind, launcher):
    facts = Facts(environment=environment(kind, ASKED), world_size=8)
    plan = flexcore.plan(base(launcher=launcher), facts)
    assert (plan.environment.launcher, plan.environment.world_size) == (launcher, 8)
    assert flexcore.plan(base(), facts).environment.launcher == launcher
