"""A toy run as each launcher starts it, in processes of its own, and what is left of it to compare."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.shell import toys

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TAKEN = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "OMPI_", "PMI", "TORCHELASTIC_", "PYTEST_")


def environ(**more: str) -> dict[str, str]:
    """Of a user who has flexcore on the path; one thread a rank, so that sums are done alike everywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TAKEN)}
    path = f"{BIN}:{kept['PATH']}"
    return (
        kept | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | more
    )


def config(folder: Path, *, slow: float = 0.0, **changes) -> Path:
    """The file of a run of three epochs of eight iterations on two ranks; slow: seconds a sample takes to read."""
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=64, slow=slow), batch_size=4)
    made = toys.config(
        folder / "run",
        **(dict(train_dataloader=data, custom_hooks=[dict(type="tests.shell.toys:Pids")]) | changes),
    )
    file = folder / "toy.json"
    file.write_text(json.dumps(made))
    return file


def script(folder: Path, kind: str, *flags: str, **changes) -> Path:
    """What `flexcore plan --launch` prints for the toy run, as a file."""
    command = ["flexcore", "plan", str(config(folder, **changes)), "--launch", kind, *flags]
    done = subprocess.run(command, env=environ(), capture_output=True, text=True, cwd=folder, check=True)
    file = folder / f"{kind}.sh"
    file.write_text(done.stdout)
    return file


@contextlib.contextmanager
def started(folder: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own; killed with all of that session if it is left running."""
    with (folder / f"out.{time.monotonic_ns()}").open("w+") as out:
        process = subprocess.Popen(
            words, env=environ(**more), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def ran(folder: Path, *words: str, timeout: float = 120, **more: str) -> int:
    with started(folder, *words, **more) as process:
        return process.wait(timeout)


def output(folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(folder.glob("out.*")))


def pids(folder: Path, ranks: Sequence[int] = (0, 1), timeout: float = 90) -> list[int]:
    """The ranks' processes, once both have begun to train."""
    deadline = time.monotonic() + timeout
    files = [folder / "run" / f"pid.{rank}" for rank in ranks]
    while time.monotonic() < deadline:
        texts = [file.read_text() if file.exists() else "" for file in files]
        if all(texts):
            return [int(text) for text in texts]
        time.sleep(0.05)
    raise TimeoutError(f"the ranks did not begin to train:\n{output(folder)[-3000:]}")


def saved(folder: Path, name: str, timeout: float = 90) -> None:
    """Wait for a checkpoint; one is there whole or not at all."""
    deadline = time.monotonic() + timeout
    while not (folder / "run" / "checkpoints" / name).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} was not saved:\n{output(folder)[-3000:]}")
        time.sleep(0.02)


def weights(folder: Path) -> str:
    return toys.weights(folder / "run")


def differences(folder: Path) -> list[str]:
    return toys.differences(folder / "run")


def starts(folder: Path) -> list[int]:
    """The iteration of each start."""
    return [event["iter"] for event in toys.recorded(folder / "run", "start")]


def stops(folder: Path) -> list[tuple[str, int]]:
    return [(event["reason"], event["iter"]) for event in toys.recorded(folder / "run", "stop")]


def worlds(folder: Path) -> list[int]:
    """The number of ranks of each start."""
    return [event["world_size"] for event in toys.recorded(folder / "run", "start")]
