"""What execute() and run() do around the training itself: one process may carry out several runs."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import os
import pathlib
import subprocess
import sys

import pytest

import flexcore
import shell
from flexcore.problems import ConfigError
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

ROOT = pathlib.Path(__file__).parents[2]


def several(rank, directory):
    """Three runs, the second of which fails on both ranks in the midst of it."""
    ends = []
    for name in ("first", "failing", "second"):
        work_dir = pathlib.Path(directory) / name
        hooks = [dict(type="tests.shell.toys:Breaks")] if name == "failing" else []
        try:
            ends.append(toys.trained(toys.config(work_dir, custom_hooks=hooks))["reason"])
        except RuntimeError as error:
            ends.append(str(error))
    return ends


def test_ranks_carry_out_one_run_after_the_other(tmp_path):
    """Under one launcher and its one port: each run goes as planned, and ends with the bits of a run alone."""
    assert run_ranks(2, several, str(tmp_path)) == [["done", "breaks", "done"]] * 2
    assert toys.differences(tmp_path / "first") == toys.differences(tmp_path / "second") == []
    assert toys.weights(tmp_path / "first") == toys.weights(tmp_path / "second")


def test_they_do_so_under_torchrun(tmp_path):
    """Where ranks meet in the agent's own store, which outlives each run."""
    script = tmp_path / "several.py"
    script.write_text(
        "import json, os, pathlib\n"
        "from tests.shell.test_execute import several\n"
        f"directory = pathlib.Path({str(tmp_path)!r})\n"
        "rank = int(os.environ['RANK'])\n"
        "(directory / f'ends.{rank}').write_text(json.dumps(several(rank, directory)))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, str(script)], cwd=ROOT, env=environ, check=True, timeout=300)
    for rank in range(2):
        assert json.loads((tmp_path / f"ends.{rank}").read_text()) == ["done", "breaks", "done"]
    assert toys.differences(tmp_path / "second") == []


def test_the_package_offers_its_verbs_however_often_and_whatever_was_imported_before():
    code = (
        "import shell, shell.execute, shell.run; from shell.run import Run; from shell import execute, run\n"
        "assert run is shell.run is shell.run and callable(run) and execute is shell.execute is shell.execute\n"
        "assert shell.RunResult.__name__ == 'RunResult' and not hasattr(shell, 'missing')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


WRONG = dict(
    model=flexcore.Supplied(),
    loss=dict(type="torch.nn:CrossEntropyLos"),
    train_cfg=dict(by_epoch=True, max_epoch=3),
    optim_wrapper=dict(optimizer=dict(type="SDG", lr=-1)),
    custom_hooks=[dict(type="tests.shell.toys:Counting", seen=3)],
)


def test_a_notebook_is_told_everything_at_once(tmp_path):
    """Settings, components and live objects in one go, and nothing is written."""
    cfg = toys.config(tmp_path / "w", **WRONG)
    with pytest.raises(ConfigError) as caught:
        shell.run(cfg, mode="train", loss=1)
    assert str(caught.value).splitlines() == [
        'train_cfg: lacks the key "max_epochs". Add "max_epochs". [FK012]',
        'train_cfg.max_epoch: is not a setting of EpochBasedTrainLoop. Did you mean "max_epochs"? [FK010]',
        "optim_wrapper.optimizer.lr: must be a finite number >= 0, got -1. Correct the LR. [FK020]",
        'loss.type: "torch.nn" has no "CrossEntropyLos". Did you mean "CrossEntropyLoss"? [FK013]',
        'optim_wrapper.optimizer.type: "torch.optim" has no "SDG". Did you mean "SGD"? [FK013]',
        (
            "custom_hooks.0: tests.shell.toys:Counting cannot be called so: got an unexpected keyword argument 'seen'. "
            "It takes nothing. [FK013]"
        ),
        "model: waits for an object. Pass model=... to execute. [FK012]",
        "loss: was supplied, but the plan has no slot for it. Put flexcore.Supplied() in the config. [FK010]",
    ]
    assert not (tmp_path / "w").exists()


def test_a_plan_made_for_execute_is_told_of_components_and_objects_at_once(tmp_path):
    cfg = toys.config(tmp_path / "w", model=flexcore.Supplied(), loss=dict(type="torch.nn:L"))
    with pytest.raises(ConfigError) as caught:
        shell.execute(flexcore.plan(cfg))
    assert [str(problem).partition(":")[0] for problem in caught.value.problems] == ["loss.type", "model"]


def supplied(cfg):
    result = shell.run(cfg | dict(model=flexcore.Supplied()), model=toys.Net())
    return result.reason


def test_a_run_with_live_objects_leaves_its_plan_for_others_to_read(tmp_path):
    """The report compares with it; another process executes it only with an object for each slot."""
    cfg = toys.config(tmp_path)
    assert run_alone(supplied, cfg) == "done"
    assert toys.differences(tmp_path) == []
    (file,) = tmp_path.glob("*/plan.json")
    plan = flexcore.Plan.from_json(file.read_text())
    assert plan.supplied == ("model",)
    with pytest.raises(ConfigError) as caught:
        shell.execute(plan)
    assert str(caught.value) == "model: waits for an object. Pass model=... to execute. [FK012]"
    manifest = json.loads((tmp_path / "checkpoints" / "epoch_3" / "manifest.json").read_text())
    assert flexcore.Plan.from_json(manifest["plan"]).model == flexcore.Supplied()
