"""The command: what it prints, what it exits with, and that nothing is written when it refuses."""

import argparse
import json
import os
import pathlib
import pty
import re
import subprocess
import sys
import venv

import pytest

import flexcore
from flexcore import launch_scripts
from shell import cli, launch_flags, running

ROOT = pathlib.Path(__file__).parents[2]

GOOD = """\
model = dict(type="tests.shell.parts:Net", width=3)
loss = dict(type="torch.nn:CrossEntropyLoss")
train_dataloader = dict(dataset=dict(type="tests.shell.parts:Pairs"), batch_size=4)
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1))
val_dataloader = dict(dataset=dict(type="tests.shell.parts:Pairs", n=6), batch_size=2)
val_evaluator = dict(accuracy=dict(type="tests.shell.parts:Accuracy"))
val_cfg = dict()
test_dataloader = dict(dataset=dict(type="tests.shell.parts:Pairs", n=8), batch_size=2)
test_evaluator = dict(accuracy=dict(type="tests.shell.parts:Accuracy"))
test_cfg = dict()
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
randomness = dict(seed=1)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "good.py").write_text(GOOD)
    return tmp_path


@pytest.fixture
def command(capfd):
    """`flexcore ...` in this process: (exit code, stdout, stderr). `run` comes without leaving the process."""

    def call(*argv):
        path = list(sys.path)
        try:
            if argv[0] in cli.MODES:
                code = running._carried_out(cli.parsed(argv))
            else:
                with pytest.raises(SystemExit) as left:
                    cli.main(argv)
                code = left.value.code
        finally:
            sys.path[:] = path
        return code, *capfd.readouterr()

    return call


def files(directory="."):
    return sorted(str(path) for path in pathlib.Path(directory).rglob("*") if "__pycache__" not in path.parts)


WRONG = """\
model = dict(type="tests.shell.parts:Net", widht=32)
loss = dict(type="torch.nn:CrossEntropyLos")
train_dataloader = dict(
    dataset=dict(type="tests.shell.parts:Pears"),
    batch_size="16",
    batchsize=3,
)
train_cfg = dict(by_epoch=True, max_epochs=3.5)
optim_wrapper = dict(
    type="AmpOptimWrapper", dtype="float16",
    optimizer=dict(type="SDG", lr="fast"),
    clip_grad=dict(max_norm=-1),
)
strategy = dict(type="DDPStrategy")
val_dataloader = dict(dataset=dict(type="nopkg.nomod:D"), batch_size=2)
custom_hooks = [dict(type="tests.shell.parts:Quiet", priority="LOWER", speed=2)]
"""

WRONG_SHAPE = [
    "train_dataloader.batch_size (wrong.py:5:5): must be an integer or None, got '16'. Correct the value. [FK011]",
    'train_dataloader.batchsize (wrong.py:6:5): is not a setting of DataLoader. Did you mean "batch_size"? [FK010]',
    "train_cfg.max_epochs (wrong.py:8:33): must be an integer, got 3.5. Correct the value. [FK011]",
    "optim_wrapper.optimizer.lr (wrong.py:11:32): must be a finite number >= 0, got 'fast'. Correct the LR. [FK020]",
    "optim_wrapper.clip_grad.max_norm (wrong.py:12:20): must be a finite number > 0, got -1.0. Correct the value. [FK020]",
    (
        "strategy (wrong.py:14:1): DDPStrategy shares a model among ranks, and no launcher started any. "
        "Run with --nproc N or torchrun, or use SingleDeviceStrategy. [FP001]"
    ),
    (
        "custom_hooks.0.priority (wrong.py:16:54): must be 0-100 or a priority's name, got 'LOWER'. Names: HIGHEST, VERY_HIGH, "
        "HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]"
    ),
    (
        "val_cfg (wrong.py:1): is missing while val_dataloader is given; val_dataloader, val_cfg, val_evaluator come together. "
        "Add val_cfg and val_evaluator, or remove val_dataloader. [FK018]"
    ),
]

WRONG_PARTS = [
    (
        "model (wrong.py:1:1): tests.shell.parts:Net cannot be called so: got an unexpected keyword argument 'widht'. "
        'Did you mean "width"? [FK013]'
    ),
    'loss.type (wrong.py:2:13): "torch.nn" has no "CrossEntropyLos". Did you mean "CrossEntropyLoss"? [FK013]',
    'optim_wrapper.optimizer.type (wrong.py:11:20): "torch.optim" has no "SDG". Did you mean "SGD"? [FK013]',
]


def report(name, problems):
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    return f"flexcore: {name}: {count}\n" + "".join(f"  {line}\n" for line in problems)


def test_plan_reports_every_problem_at_once_with_its_place(here, command):
    (here / "wrong.py").write_text(WRONG)
    assert command("plan", "wrong.py") == (2, "", report("wrong.py", WRONG_SHAPE))
    assert files() == ["good.py", "wrong.py"]


def test_lint_says_the_same_one_finding_a_line(here, command):
    (here / "wrong.py").write_text(WRONG)
    lines = [f"wrong.py: error: {line}\n" for line in WRONG_SHAPE]
    assert command("lint", "wrong.py") == (1, "".join(lines), "")


def test_run_adds_what_only_importing_shows_and_writes_nothing(here, command):
    (here / "wrong.py").write_text(WRONG)
    code, out, err = command("run", "wrong.py")
    precision = (
        "optim_wrapper.dtype (wrong.py:10:29): float16 autocast is not supported on this cpu device. "
        'Set dtype="bfloat16". [FP004]'
    )
    assert (code, out) == (2, "")
    told = err.splitlines()
    assert told[0] == f"flexcore: wrong.py: {len(told) - 1} problems"
    lines = {line.strip() for line in told[1:]}
    assert {*WRONG_SHAPE, *WRONG_PARTS, precision} <= lines
    assert lines - {*WRONG_SHAPE, *WRONG_PARTS, precision} == {
        (
            "val_dataloader.dataset.type (wrong.py:15:36): module \"nopkg.nomod\" cannot be imported: No module named 'nopkg'. "
            'Install or correct "nopkg", or run where it is importable. [FK013]'
        ),
        (
            "custom_hooks.0 (wrong.py:16:17): tests.shell.parts:Quiet cannot be called so: got an unexpected keyword argument "
            "'speed'. It takes nothing. [FK013]"
        ),
    }
    assert files() == ["good.py", "wrong.py"]


def test_the_real_command_refuses_without_a_trace(here):
    """A process of its own: one output, exit 2, no traceback, nothing on disk."""
    (here / "wrong.py").write_text(
        GOOD + 'model = dict(type="tests.shell.parts:Net", widht=3)\nlauncher = "mpi"\n'
    )
    done = python("run", "wrong.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == report(
        "wrong.py",
        [
            (
                "model (wrong.py:14:1): tests.shell.parts:Net cannot be called so: got an unexpected keyword argument 'widht'. "
                'Did you mean "width"? [FK013]'
            ),
            (
                'launcher (wrong.py:15:1): is "mpi", but its variables are not in the environment. Start with that launcher, '
                "or remove the key. [FP002]"
            ),
        ],
    )
    assert files() == ["good.py", "wrong.py"]


def python(*arguments, code=("-m", "shell"), **environ):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environ}
    return subprocess.run(
        [sys.executable, *code, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )


FIRST = "flexcore: {}: 1 problem\n  "
ONE_PROBLEM = {
    "gone": (
        ("gone.py",),
        'config (gone.py:1): There is no file "gone.py". Give the path of a readable config file. [FK001]',
    ),
    "unknown key": (
        ("good.py", "train_cgf=1"),
        'train_cgf (<override>:1:1): is not a setting of the config. Did you mean "train_cfg"? [FK010]',
    ),
    "missing class": (
        ("good.py", "train_dataloader.dataset.type=tests.shell.parts:Pair"),
        'train_dataloader.dataset.type (<override>:1:1): "tests.shell.parts" has no "Pair". Did you mean "Pairs"? [FK013]',
    ),
    "missing module": (
        ("good.py", "train_dataloader.dataset.type=tests.shell.partz:Pairs"),
        (
            'train_dataloader.dataset.type (<override>:1:1): module "tests.shell.partz" cannot be imported: No module named '
            "'tests.shell.partz'. Install or correct \"tests.shell.partz\", or run where it is importable. [FK013]"
        ),
    ),
    "strategy without ranks": (
        ("good.py", "strategy=DDPStrategy"),
        (
            "strategy (<override>:1:1): DDPStrategy shares a model among ranks, and no launcher started any. "
            "Run with --nproc N or torchrun, or use SingleDeviceStrategy. [FP001]"
        ),
    ),
    "half precision on cpu": (
        ("good.py", "optim_wrapper.type=AmpOptimWrapper", "optim_wrapper.dtype=float16"),
        (
            "optim_wrapper.dtype (<override>:2:1): float16 autocast is not supported on this cpu device. "
            'Set dtype="bfloat16". [FP004]'
        ),
    ),
    "optimizer argument": (
        ("good.py", "optim_wrapper.optimizer.momentun=0.9"),
        (
            "optim_wrapper.optimizer (good.py:5:22): SGD cannot be called so: got an unexpected keyword argument 'momentun'. "
            'Did you mean "momentum"? [FK013]'
        ),
    ),
    "no such override": (
        ("good.py", "model.width.deep=1"),
        (
            "model.width (<override>:1:1): model.width is 3, so it has no 'deep' to override. Override model.width as a whole. "
            "[FK006]"
        ),
    ),
    "work_dir is a file": (
        ("good.py", "work_dir=good.py"),
        (
            "work_dir (<override>:1:1): good.py cannot be looked into: good.py is a file. "
            "Name a directory that can be read and written. [FC010]"
        ),
    ),
    "not a model": (
        ("good.py", "model={'type': 'tests.shell.parts:Holder'}"),
        "model (<override>:1:1): is a Holder, not a torch.nn.Module. Name a Module class or a function returning one. [FK011]",
    ),
}


@pytest.mark.parametrize("name", ONE_PROBLEM)
def test_run_says_the_one_thing_that_is_wrong(here, command, name):
    argv, line = ONE_PROBLEM[name]
    assert command("run", *argv) == (2, "", FIRST.format(argv[0]) + line + "\n")
    assert files() == ["good.py"]


def test_a_live_object_is_refused_where_it_stands(here, command):
    (here / "live.py").write_text("import torch\nmodel = torch.nn.Linear(3, 2)\n")
    code, out, err = command("plan", "live.py")
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"flexcore: live.py: 1 problem\n  (config|model) \(live.py:[12]:\d+\): .*\[FK003\]\n", err
    ), err


def test_a_constructor_that_fails_shows_the_users_traceback_and_the_place(here, command):
    fragile = ("model.type=tests.shell.parts:Fragile", "~model.width")
    code, out, err = command("run", "good.py", *fragile)
    assert (code, out) == (2, "")
    trace, _, problem = err.partition("flexcore: ")
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.count("File ") == 1
    assert 'parts.py", line' in trace
    assert trace.endswith("RuntimeError: no\n")
    assert problem == (
        "good.py: 1 problem\n  model (good.py:1:1): tests.shell.parts:Fragile could not be built: RuntimeError: no. "
        "Correct its arguments, or the class. [FK013]\n"
    )
    assert files() == ["good.py"]
    assert command("plan", "good.py", "--probe", *fragile) == (2, "", err)


def test_lint_exits_0_1_or_2(here, command):
    (here / "bad.py").write_text("modell = 1\n")
    assert command("lint", "good.py") == (0, "", "")
    code, out, err = command("lint", "good.py", "bad.py")
    assert (code, err) == (1, "")
    assert out.startswith(
        'bad.py: error: modell (bad.py:1:1): is not a setting of the config. Did you mean "model"? [FK010]\n'
    )
    line = 'gone.py: error: config (gone.py:1): There is no file "gone.py". Give the path of a readable config file. [FK001]\n'
    assert command("lint", "gone.py", "good.py") == (2, line, "")
    assert command("lint", "bad.py", "gone.py")[0] == 2


def test_usage_is_2(command):
    assert command("plan", "good.py", "--world-size", "0") == (2, "", command_usage("plan", capture="'0'"))
    assert command("fly")[0] == 2


def command_usage(name, capture):
    parser = cli._parser()
    sub = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[name]
    error = f"argument --world-size: must be an integer of at least 1, got {capture}"
    return f"{sub.format_usage()}flexcore {name}: error: {error}\n"


def test_report_on_nothing(command):
    text = "flexcore: nowhere: no recorded run. Give the work_dir of `flexcore run`.\n"
    assert command("report", "nowhere") == (2, "", text)


def test_version(command):
    code, out, err = command("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"flexcore (\d+\.\d+\.\d+\S*|\(run from its source, not installed\))\n", out)


def test_plan_names_the_flags_that_settle_what_is_unknown(command):
    code, out, _ = command("plan", "good.py")
    assert code == 0
    assert out.splitlines()[-1] == (
        "to settle    --device cpu --train-samples N --val-samples N, or --probe to build model and data"
    )
    flags = ("--device", "cpu", "--train-samples", "10", "--val-samples", "6", "--world-size", "2")
    code, out, _ = command("plan", "good.py", *flags)
    assert code == 0
    assert "to settle" not in out
    assert "length       2 epochs x 2 iterations = 4; 4 optimizer steps" in out.splitlines()
    assert "DDPStrategy, 2 ranks on cpu over gloo (launcher pytorch)" in out
    code, out, _ = command("plan", "good.py", "custom_hooks=[{'type': 'tests.shell.parts:Quiet'}]", *flags)
    assert out.splitlines()[-1] == "to settle    --probe builds model and data"


def test_every_unknown_names_a_fact_with_a_flag_or_one_a_run_brings():
    known = {*cli.FLAG_OF_FACT, "entropy", "started_at", "checkpoints", "named_checkpoint"}
    source = (ROOT / "flexcore" / "noticing.py").read_text()
    named = set(re.findall(r'"([a-z_]+)"', source)) & set(flexcore.Facts.__annotations__)
    assert named <= known


def test_plan_with_probe_builds_and_leaves_nothing_unknown(here, command):
    code, out, err = command(
        "plan", "good.py", "--probe", "custom_hooks=[{'type': 'tests.shell.parts:Quiet'}]"
    )
    assert (code, err) == (0, "")
    assert "             10 samples, shuffled, 0 dropped and 0 repeated per epoch" in out
    assert "              70 Quiet                after_train" in out
    assert "SingleDeviceStrategy, 1 rank on cpu" in out
    unknown = [line for line in out.splitlines() if line.startswith(("unknown", "to settle"))]
    assert [line for line in unknown if "started_at" not in line] == []
    assert files() == ["good.py"]


def test_a_plan_is_written_and_read_back(here, command):
    code, out, err = command(
        "plan", "good.py", "train_cfg.max_epochs=5", "-o", "plan.json", "--train-samples", "10"
    )
    assert (code, err) == (0, "")
    plan = flexcore.Plan.from_json((here / "plan.json").read_text())
    assert plan.timeline.max_iters == 15
    assert out.startswith(str(plan))
    code, out, err = command(
        "plan", "good.py", "train_cfg.max_epochs=5", "--format", "json", "--train-samples", "10"
    )
    assert flexcore.Plan.from_json(out) == plan
    assert json.loads(out)["kind"] == "flexcore.plan"


def test_a_plan_that_cannot_be_written_is_one_line(command):
    line = "flexcore: -o nodir/plan.json: cannot be written: No such file or directory.\n"
    assert command("plan", "good.py", "-o", "nodir/plan.json") == (2, "", line)


def test_smoke_does_one_batch_of_everything_under_work_dir(here, command):
    code, out, err = command("run", "good.py", "--smoke", "--quiet", "work_dir=wd")
    assert code == 0
    assert [line[line.index("INFO") :] for line in err.splitlines()] == [
        "INFO validation after epoch 1  accuracy 0.5000",
        "INFO test  accuracy 0.5000",
    ]
    assert (
        out == "done: epoch 1, iteration 1; accuracy 0.5000; checkpoints in wd/smoke/checkpoints: epoch_1\n"
    )
    assert {path.split("/")[1] for path in files("wd") if "/" in path} == {"smoke"}
    events = [json.loads(line) for path in here.glob("wd/smoke/*/events.jsonl") for line in path.open()]
    assert [(e["event"], e.get("samples")) for e in events if e["event"] in ("validate", "test")] == [
        ("validate", [2]),
        ("test", [2]),
    ]
    assert command("report", "wd/smoke")[0] == 0


def test_run_val_and_test_from_the_command_and_report(here, command):
    code, out, _ = command("run", "good.py", "work_dir=wd", "train_cfg.max_epochs=1")
    assert code == 0
    assert out.startswith("Plan         train: good_")
    assert out.splitlines()[-1] == (
        "done: epoch 1, iteration 3; accuracy 0.5000; checkpoints in wd/checkpoints: epoch_1"
    )
    code, out, _ = command("report", "wd")
    assert code == 0
    assert out.splitlines()[0] == "Plan versus actual: wd, finished"
    assert out.splitlines()[-1].split() == ["differences", "0"]
    for mode in ("val", "test"):
        code, out, _ = command(mode, "good.py", "work_dir=wd", "load_from=wd/checkpoints/epoch_1", "--quiet")
        assert (code, out) == (0, "done: epoch 0, iteration 0; accuracy 0.5000\n")


def refusal(here, command, *argv):
    before = files()
    code, out, err = command("run", "good.py", "--quiet", "work_dir=wd", *argv)
    assert files() == before
    assert out == ""
    return code, err


def test_named_checkpoint_that_is_not_there_is_4(here, command):
    (here / "wd").mkdir()
    code, err = refusal(here, command, "resume=wd/checkpoints/epoch_9")
    assert code == 4
    assert err == "flexcore: wd/checkpoints/epoch_9: holds no manifest.json\n"


class Payload:
    """What runs if it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("way", ["resume=x.pth", "load_from=x.pth"])
def test_a_file_with_code_in_place_of_weights_is_4(here, command, way):
    import torch

    torch.save({"state_dict": {"w": Payload()}, "meta": Payload()}, "x.pth")
    (here / "wd").mkdir()
    code, err = refusal(here, command, way)
    assert code == 4
    expected = {
        "resume=x.pth": "holds no training state: neither flexcore's nor mmengine's meta. "
        "Take its weights: load_from, resume=False.",
        "load_from=x.pth": "holds a mapping with w, not tensors by name. Save the model's state_dict.",
    }
    assert err == f"flexcore: x.pth {expected[way]}\n"
    assert not (here / "executed").exists()


def test_what_does_not_fit_may_be_left_out_and_names_revised(here, command):
    """The warning names what is left out; where nothing fits, nothing is started."""
    import torch

    torch.save({"net.weight": torch.ones(2, 3), "net.bias": torch.ones(5)}, "x.pth")
    told = 'load_from={"path": "x.pth", "strict": False, "revise_keys": [["^net[.]", ""]]}'
    other = ("model.type=torch.nn:Linear", "~model.width", "model.in_features=3", "model.out_features=2")
    code, _, err = command("run", "good.py", "--quiet", "work_dir=other", told, *other)
    assert code == 0
    assert (
        "x.pth fits the model in part, and what does not fit is left out: "
        "1 of the model's 2 names fit (2 there): 1 of another shape\n  shape  bias  [5] there  [2] here\n"
        in err
    )
    code, _, err = command("run", "good.py", "--quiet", "work_dir=more", told.replace("^net", "^nut"), *other)
    assert code == 4
    assert err.endswith("With revise_keys=[['^net\\\\.', '']] 1 of 2 fit.\n")


def test_weights_that_do_not_fit_are_4(here, command):
    assert command("run", "good.py", "work_dir=wd", "--quiet", "--smoke")[0] == 0
    other = ("model.type=torch.nn:Linear", "~model.width", "model.in_features=3", "model.out_features=4")
    first = "load_from=wd/smoke/checkpoints/epoch_1"
    code, _, err = command("run", "good.py", "--quiet", "work_dir=other", first, *other)
    assert (code, err) == (
        4,
        (
            "flexcore: wd/smoke/checkpoints/epoch_1 does not fit the model: "
            "0 of the model's 2 names fit (2 there): 2 of another shape\n"
            "  shape  weight  [2, 3] there  [4, 3] here\n"
            "  shape  bias    [2] there     [4] here\n"
        ),
    )


def test_a_work_dir_in_use_is_7(here, command):
    from shell.locking import work_dir_lock

    with work_dir_lock("wd", "abc"):
        code, err = refusal(here, command)
    assert code == 7
    assert re.fullmatch(
        rf"flexcore: wd/.lock is held by run abc process {os.getpid()} on \S+ since \S+; one run at a time may write to a "
        r"work_dir. Wait for it, stop it, or choose another work_dir.\n",
        err,
    ), err


def test_a_broken_launcher_environment_is_2(here, command, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "x")
    code, err = refusal(here, command)
    line = "LOCAL_RANK: is 'x', but must be a whole number. Let the launcher set it."
    assert (code, err) == (2, f"flexcore: {line}\n")


AROUND = {
    "nothing": ({}, None),
    "torchrun": ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "1"}, 1),
    "torchrun with two": ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "2"}, 2),
    "srun with one task": ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
    "srun with four tasks": ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, 4),
    "sbatch script": ({"SLURM_NTASKS": "4"}, None),
    "mpirun": ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 2),
}


@pytest.mark.parametrize("name", AROUND)
def test_ranks_a_launcher_has_started_are_not_started_again(name):
    environ, ranks = AROUND[name]
    assert running.ranks_started(environ) == ranks


def test_nproc_inside_a_launcher_of_another_size_is_refused(here, capfd, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "good.py", "--nproc", "3"])
    assert left.value.code == 2
    text = "flexcore: --nproc: 3 ranks are asked for, and a launcher has started 2 already. Leave --nproc out, or start one process.\n"
    assert capfd.readouterr() == ("", text)


WIDHT = (
    "model (good.py:1:1): tests.shell.parts:Net cannot be called so: got an unexpected keyword argument 'widht'. "
    'Did you mean "width"? [FK013]\n'
)


def test_a_broken_config_starts_no_ranks(here, capfd):
    """What is wrong with the plan is told together with what is wrong with the components."""
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "good.py", "--nproc", "2", "model.widht=3", "sede=1"])
    assert left.value.code == 2
    said = capfd.readouterr().err
    assert said.startswith("flexcore: good.py: 2 problems\n")
    assert f"  {WIDHT}" in said


def test_a_component_that_cannot_be_built_is_told_once_for_all_ranks(here, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[2]))
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "good.py", "--nproc", "2", "model.widht=3"])
    assert left.value.code == 2
    assert capfd.readouterr() == ("", FIRST.format("good.py") + WIDHT)


NO_TORCH = (
    "import sys; sys.modules.update(torch=None, numpy=None); from shell.cli import main; main(sys.argv[1:])"
)


def test_planning_needs_no_torch_and_running_says_so():
    example = str(ROOT / "examples" / "digits.py")
    done = python("plan", example, code=("-c", NO_TORCH))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Plan         train: digits\n")
    assert python("lint", example, code=("-c", NO_TORCH)).returncode == 0
    done = python("run", example, code=("-c", NO_TORCH))
    line = '`run` needs torch, which is not installed here. Install it with pip install "flexcore[train]".'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"flexcore: {line}\n")


def test_output_survives_a_terminal_that_cannot_show_it(here, capfd):
    done = python("plan", "good.py", "experiment_name=é\N{SNOWMAN}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Plan         train: \\xe9\\u2603\n")


def test_a_reader_that_has_seen_enough_is_no_trouble(here):
    """`flexcore plan good.py | head -1`, with the reader gone before the first line."""
    ours, theirs = os.pipe()
    os.close(ours)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "shell", "plan", "good.py"]
    done = subprocess.run(argv, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_before_the_run_is_one_line_and_130(here):
    code = (
        "import sys\nfrom shell import probe\n"
        "def device(facts): raise KeyboardInterrupt\n"
        "probe.device = device\n"
        "from shell.cli import main\nmain(['run', 'good.py', *sys.argv[1:]])"
    )
    for ranks in ((), ("--nproc", "2")):
        done = python(*ranks, code=("-c", code))
        text = "flexcore: interrupted outside the run; nothing more is saved.\n"
        assert (done.returncode, done.stdout, done.stderr) == (130, "", text)
    assert files() == ["good.py"]


def test_start_up_stays_cheap(here):
    """A plan costs no import it does not use, and at most a few times what importing attrs and cattrs costs."""
    code = "import sys; from shell.cli import main\ntry: main(['plan', 'good.py'])\nfinally: print(*sys.modules, file=sys.stderr)"
    loaded = set(python(code=("-c", code)).stderr.split())
    heavy = {
        "torch",
        "numpy",
        "yaml",
        "importlib.metadata",
        "datetime",
        "hmac",
        "shell.manifests",
        "shell.execute",
        "logging",
    }
    assert not heavy & loaded


def test_an_evaluation_loads_no_compiler_and_no_logger_it_does_not_use(here):
    code = (
        "import sys, shell.processes as p\n"
        "p.leave = lambda code: (print(code, *sys.modules), sys.exit())\n"
        "from shell.cli import main\nmain(['val', 'good.py', '--quiet', 'work_dir=wd'])"
    )
    code, *loaded = python(code=("-c", code)).stdout.splitlines()[-1].split()
    assert code == "0"
    assert not {"torch._dynamo", "torchmetrics", "rich", "tensorboard", "shell.launching"} & set(loaded)


@pytest.mark.slow
def test_a_bare_environment_plans_and_lints(here):
    """Installed without extras: three dependencies, no torch, no numpy."""
    target = here / "bare"
    venv.create(target, with_pip=False, symlinks=True)
    install = [sys.executable, "-m", "pip", "--python", str(target / "bin" / "python"), "install", "-q"]
    source = here / "source"
    subprocess.run(
        [
            "cp",
            "-r",
            *(str(ROOT / name) for name in ("flexcore", "shell", "pyproject.toml", "README.md")),
            "-t",
            _made(source),
        ],
        check=True,
    )
    done = subprocess.run([*install, str(source)], capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package index here")
    assert done.returncode == 0, done.stderr
    python_there = str(target / "bin" / "python")
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    absent = "import importlib.util as u; print([m for m in ('torch', 'numpy') if u.find_spec(m)])"
    there = subprocess.run([python_there, "-c", absent], capture_output=True, text=True, env=environ)
    assert there.stdout == "[]\n"
    for verb, first in (("plan", "Plan         train: digits\n"), ("lint", "")):
        argv = [str(target / "bin" / "flexcore"), verb, str(ROOT / "examples" / "digits.py")]
        done = subprocess.run(argv, capture_output=True, text=True, env=environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(first)
    done = subprocess.run([*argv[:1], "--version"], capture_output=True, text=True, env=environ)
    assert re.fullmatch(r"flexcore \d+\.\d+\.\d+\n", done.stdout)


def _made(path):
    path.mkdir()
    return str(path)


def terminal(code, **environ):
    """What a process prints with its stderr on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", **environ}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        process.wait(60)
    os.close(ours)
    return process.returncode, seen.decode()


def test_the_real_command_trains_on_a_terminal(here):
    """The whole way out: the plan is printed, rich shows progress, the process leaves with its code."""
    code = "import sys; sys.argv[1:] = ['run', 'good.py', 'work_dir=wd', '--quiet']; from shell.cli import main; main()"
    returned, seen = terminal(code)
    assert returned == 0, seen
    assert "\x1b[" in seen
    assert "validation after epoch 2  accuracy 0.5000" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)


def test_plan_says_where_one_value_comes_from(command):
    assert command("plan", "good.py", "--why", "train_dataloader.batch_size") == (
        0,
        "train_dataloader.batch_size = 4\n  user: written in the config\n  at good.py:3:71\n",
        "",
    )
    assert command(
        "plan", "good.py", "train_dataloader.batch_size=5", "--why", "batching.micro_batch_size"
    ) == (
        0,
        (
            "batching.micro_batch_size = 5\n"
            "  user: the loader's batch_size, else global_batch_size / (accumulation x data_parallel_size)\n"
            "  at <override>:1:1\n"
        ),
        "",
    )
    assert command("plan", "good.py", "--why", "log_level") == (
        0,
        "log_level = 'INFO'\n  default: the key's default\n",
        "",
    )


def test_a_key_that_nothing_has_is_told(command):
    assert command("plan", "good.py", "--why", "log_levle") == (
        2,
        "",
        'flexcore: --why: "log_levle" is neither a plan field nor a config key. Did you mean "log_level"?\n',
    )


def test_plan_lays_world_sizes_side_by_side(command):
    code, out, err = command("plan", "good.py", "--world-size", "1,8", "--train-samples", "64")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["world", "size", "1", "8"]
    assert out.splitlines()[6].split() == ["iterations", "32", "4"]


def test_world_sizes_are_numbers(command):
    code, out, err = command("plan", "good.py", "--world-size", "1,x")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        "flexcore plan: error: argument --world-size: must be an integer of at least 1, got 'x'"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nodes", "2"], "--nodes: belongs to --launch. Say what is to start the run."),
        (["--launch", "mpi", "--time", "60"], "--time: means nothing to --launch mpi. Leave it out."),
        (
            ["--launch", "k8s"],
            "--image: is missing. Name the container that holds flexcore and the config.",
        ),
        (
            ["--launch", "slurm", "--world-size", "4"],
            "--world-size: does not go with --launch, which plans for --nodes times --nproc ranks. Leave it out.",
        ),
    ],
)
def test_flags_of_launching_that_do_not_fit_are_refused(command, flags, message):
    assert command("plan", "good.py", *flags) == (2, "", f"flexcore: {message}\n")


def test_each_way_to_launch_has_its_flags_and_its_script(command):
    assert launch_flags.FLAGS.keys() == launch_scripts.DESCRIBING.keys()
    for kind in launch_flags.FLAGS:
        image = ["--image", "hub/train"] if kind == "k8s" else []
        code, script, said = command(
            "plan", "good.py", "--launch", kind, "--nodes", "2", "--nproc", "3", *image
        )
        assert (code, said) == (0, "")
        assert "# 6 ranks on 2 nodes, 24 samples a step" in script
        assert (
            script == command("plan", "good.py", "--launch", kind, "--nproc", "3", "--nodes", "2", *image)[1]
        )


def test_a_script_is_for_a_plan_that_its_ranks_can_carry_out(command):
    overrides = ("global_batch_size=10", "train_dataloader.batch_size=None")
    code, script, said = command("plan", "good.py", *overrides, "--launch", "slurm", "--nproc", "3")
    assert (code, script) == (2, "")
    assert "[FD00" in said


def test_a_time_that_slurm_would_not_take_is_refused(command):
    for text in ("1h", "12:0", "1-", "-5", ""):
        code, _, said = command("plan", "good.py", "--launch", "slurm", f"--time={text}")
        assert code == 2
        assert f"argument --time: must be a time like 90, 12:00:00 or 1-12:00:00, got {text!r}" in said


def test_restarts_are_for_ranks_of_ones_own_that_resume(here, capfd):
    """Without --nproc there is nobody to start again; without resume a restart would undo what was done."""
    for flags, text in (
        (
            ("--max-restarts", "2"),
            "is for the ranks of --nproc. Add --nproc N, or leave restarts to the launcher.",
        ),
        (
            ("--nproc", "2", "--max-restarts", "2"),
            "each start would begin anew, since resume is false. Add resume=true.",
        ),
    ):
        with pytest.raises(SystemExit) as left:
            cli.main(["run", "good.py", *flags])
        assert left.value.code == 2
        assert capfd.readouterr().err == f"flexcore: --max-restarts: {text}\n"
        assert not (here / "work_dirs").exists()


@pytest.mark.parametrize(("given", "expected"), [
    ([], []),
    (["a/epoch 3"], ['load_from="a/epoch 3"', "resume=False"]),
    (["epoch_3", "test_cfg.fp16=true"], ['load_from="epoch_3"', "resume=False", "test_cfg.fp16=true"]),
    (["work_dir=x", "~loss"], ["work_dir=x", "~loss"]),
    (["~loss"], ["~loss"]),
])  # fmt: skip
def test_a_checkpoint_named_after_the_config_is_the_one_evaluated(given, expected):
    """Whatever the config resumes or loads; a training takes overrides alone."""
    from shell.cli import parsed

    assert parsed(["test", "config.py", *given]).overrides == expected
    assert parsed(["run", "config.py", *given]).overrides == given
