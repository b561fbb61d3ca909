"""Real processes for tests: functions run on gloo ranks, forked from a server that has torch loaded already.

What runs must be importable (a module-level function) and its result picklable. The process group is not
started here: the code under test does that, from the environment a launcher would have given it.
"""

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Self

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "numpy", "torch", "torch.distributed", "torch._dynamo", "torch.nn.parallel"]
)

SPOKEN_BY_LAUNCHERS = ("OMPI_", "PMI_", "PMIX_", "SLURM_", "TORCHELASTIC_", "MASTER_", "MPI_LOCAL")
RANK_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}


class RankFailed(Exception):
    """A rank raised something that cannot be pickled, or ended without a result."""


class Ranks:
    """Running processes, in rank order."""

    def __init__(self, fn: Callable[..., Any], calls: Sequence[tuple[tuple, dict[str, str]]]) -> None:
        self.processes = []
        self._ends: list[Connection] = []
        try:
            for args, environ in calls:
                self._start(fn, args, environ)
        except BaseException:
            self.end()
            raise

    def _start(self, fn, args, environ) -> None:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_main, args=(theirs, environ, fn, args))
        process.start()
        theirs.close()
        self.processes.append(process)
        self._ends.append(ours)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def kill(self, signum: int, rank: int | None = None) -> None:
        """Send a signal to one rank, or to all; one that has ended already is left out."""
        chosen = self.processes if rank is None else [self.processes[rank]]
        for process in chosen:
            if process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signum)

    def wait(self, timeout: float = 60) -> list[int]:
        """Every rank's exit code (minus the signal's number for a death by signal)."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [rank for rank, process in enumerate(self.processes) if process.exitcode is None]
        codes = [process.exitcode for process in self.processes]
        if late:
            self._give_up(late, timeout)
        self.end()
        return codes

    def results(self, timeout: float = 60) -> list[Any]:
        """Every rank's result; the first exception of any is raised here, its own traceback as a note."""
        deadline = time.monotonic() + timeout
        results: dict[int, Any] = {}
        try:
            while len(results) < len(self._ends):
                waiting = [end for rank, end in enumerate(self._ends) if rank not in results]
                ready = wait(waiting, max(0.0, deadline - time.monotonic()))
                if not ready:
                    self._give_up([rank for rank in range(len(self._ends)) if rank not in results], timeout)
                for end in ready:
                    rank = self._ends.index(end)
                    results[rank] = self._result(rank)
        finally:
            self._let_go(deadline)
        return [results[rank] for rank in range(len(self._ends))]

    def _result(self, rank: int) -> Any:
        try:
            ok, value, text = self._ends[rank].recv()
        except EOFError:
            self.processes[rank].join(10)
            raise RankFailed(f"rank {rank} ended with {self.processes[rank].exitcode}, no result") from None
        if ok:
            return value
        error = value if isinstance(value, BaseException) else RankFailed(f"rank {rank} failed")
        error.add_note(f"on rank {rank}:\n{text}")
        raise error

    def _give_up(self, late: list[int], timeout: float) -> None:
        for rank in late:
            self.kill(signal.SIGUSR2, rank)  # faulthandler: where each of them stands, on stderr
        time.sleep(0.3)
        self.end()
        raise TimeoutError(f"ranks {late} had not ended after {timeout} s (their stacks are on stderr)")

    def _let_go(self, deadline: float) -> None:
        if sys.exc_info()[0] is None:
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
        self.end()

    def end(self) -> None:
        """Kill whoever is left and release what they held."""
        for process in self.processes:
            if process.exitcode is None:
                process.kill()
            process.join(10)
        for end in self._ends:
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()


def start_ranks(n: int, fn: Callable[..., Any], *args: Any) -> Ranks:
    """`fn(rank, *args)` on n ranks, each with the environment torchrun would give it."""
    port = str(free_port())
    return Ranks(fn, [((rank, *args), _environment(rank, n, port)) for rank in range(n)])


def run_ranks(n: int, fn: Callable[..., Any], *args: Any, timeout: float = 60) -> list[Any]:
    """The results of `fn(rank, *args)` on n ranks, in rank order."""
    return start_ranks(n, fn, *args).results(timeout)


def start_alone(fn: Callable[..., Any], *args: Any) -> Ranks:
    """`fn(*args)` in one process that no launcher started."""
    return Ranks(fn, [(args, _plain_environment())])


def run_alone(fn: Callable[..., Any], *args: Any, timeout: float = 60) -> Any:
    """The result of `fn(*args)` in one process that no launcher started."""
    return start_alone(fn, *args).results(timeout)[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _plain_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in RANK_VARIABLES and not name.startswith(SPOKEN_BY_LAUNCHERS)
    }


def _environment(rank: int, n: int, port: str) -> dict[str, str]:
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": n,
        "LOCAL_WORLD_SIZE": n,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return _plain_environment() | {name: str(value) for name, value in told.items()}


def _main(end: Connection, environ: dict[str, str], fn: Callable[..., Any], args: tuple) -> None:
    """One rank: leaves through os._exit, since gloo's teardown in a dying interpreter aborts now and then."""
    _prepare(environ)
    code = 1
    try:
        _send(end, (True, fn(*args), ""))
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException as error:
        _send(end, (False, error, traceback.format_exc()))
    finally:
        _save_coverage()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare(environ: dict[str, str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # not to outlive the server, nor it the tests
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    os.environ.clear()  # the server's is the one it was started with
    os.environ.update(environ)
    import torch

    torch.set_num_threads(1)


def _send(end: Connection, message: tuple[bool, Any, str]) -> None:
    ok, value, text = message
    try:
        pickle.loads(pickle.dumps(value))
    except Exception as error:
        if ok:
            raise
        value, text = None, f"{text}\n(not picklable: {error})"
    end.send((ok, value, text))


def _save_coverage() -> None:
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage else None
    if current is not None:
        current.stop()
        current.save()
