"""What execute() and run() do around the training itself: one process may carry out several runs."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import os
import pathlib
import subprocess
import sys

from tests.ranks import run_ranks
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
