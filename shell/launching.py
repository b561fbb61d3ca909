"""Ranks on this host, run by torchrun's own elastic agent; what a worker does is the worker's business.

The agent starts, watches, restarts and ends the workers. Added to it: signals are passed on once instead of
turning into a kill sequence, ranks that leave in order are waited for, and exit codes keep their meaning.
Workers live in sessions of their own, so a terminal's Ctrl-C reaches the launcher alone.

Importing this module imports torch: import it late.
"""

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous import registry as rendezvous_registry

from shell.processes import PARENT, exported

FAILURES = frozenset({2, 3, 4, 5, 6, 7, 8})
"""Exit codes that say what went wrong: the launcher passes the first one on."""

STOPS = frozenset({75, 130})
"""Exit codes of a run that was asked to stop, and saved."""

HANG = 5
"""The exit code of ranks that saw no progress."""

WORTH_RESTARTING = frozenset({1, HANG})
"""Of our own exit codes, those another attempt may not meet again; a death by signal is worth it too."""

PATIENCE: Mapping[int, float] = {0: 300.0, 8: 300.0, 75: 300.0, 130: 300.0} | dict.fromkeys(
    (2, 3, 4, 5, 6, 7), 5.0
)
"""Seconds a rank that left with this code may be ahead of the others before the agent ends them.

Ranks leave in order together, but the last may still be saving; ranks that fail alike need a moment to say
so. Any other end leaves its peers waiting in a collective: they are ended at once.
"""

PASSED_ON: Mapping[int, int] = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,  # the terminal is gone: save and end
}


def launch(nproc: int, argv: Sequence[str], *, max_restarts: int = 0, module: str = "shell") -> int:
    """Run `python -m module argv` as `nproc` ranks on this host; the exit code that tells most.

    SIGTERM, SIGUSR1 and SIGINT are passed on to every worker, once each time they are received; the launcher
    then waits for the workers to end by themselves. SIGQUIT ends them by force.

    Raises:
        ValueError: nproc is not positive or max_restarts is negative.
    """
    _require("nproc", nproc, 1)
    _require("max_restarts", max_restarts, 0)
    with ExitStack() as stack:
        stack.enter_context(exported(_worker_environment(nproc), os.environ))
        said = stack.enter_context(_agent_log_held())
        agent = _agent(nproc, ("-m", module, *argv), max_restarts)
        stack.callback(agent.rendezvous.shutdown)
        stack.enter_context(agent.listening())
        code = _run(agent)
        _report(code, agent.ends, said)
    return code


def _require(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}: is {value}, but must be at least {least}. Give a larger number.")


def _worker_environment(nproc: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        PARENT: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // nproc)),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",  # the agent's own kill sequence; the rest is ours
    }


def _agent(nproc: int, command: tuple[str, ...], max_restarts: int) -> "Agent":
    meeting = RendezvousParameters(
        backend="c10d",
        endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        min_nodes=1,
        max_nodes=1,
        local_addr="127.0.0.1",
    )
    spec = WorkerSpec(
        role="rank",
        local_world_size=nproc,
        rdzv_handler=rendezvous_registry.get_rendezvous_handler(meeting),
        entrypoint=sys.executable,
        args=tuple(word.replace("$", "$$") for word in command),  # the agent reads them as templates
        max_restarts=max_restarts,
        local_addr="127.0.0.1",
    )
    return Agent(spec)


def _run(agent: "Agent") -> int:
    try:
        agent.run()
    except SignalException as ended:
        return 128 + ended.sigval
    agent.note_ends()
    return verdict(tuple(agent.ends.values()))


class Agent(LocalElasticAgent):
    """torchrun's agent with our manners.

    Attributes:
        ends: exit code by local rank, in the order in which the ranks of this attempt ended.
        rendezvous: the agent's own, to be shut down by whoever made it.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, DefaultLogsSpecs(log_dir=os.devnull))  # output goes straight to the terminal
        self.ends: dict[int, int] = {}
        self.rendezvous = spec.rdzv_handler
        self._to_pass_on: deque[int] = deque()
        self._last_end: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect signals for the workers; off the main thread Python cannot, and none are."""
        before: dict[int, Any] = {signal.SIGQUIT: signal.getsignal(signal.SIGQUIT)}  # torch takes this one
        with suppress(ValueError):
            for signum in PASSED_ON:
                if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup
                    before[signum] = signal.signal(signum, self._received)
        try:
            yield
        finally:
            with suppress(ValueError):
                for signum, handler in before.items():
                    signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _received(self, signum: int, _frame: FrameType | None) -> None:
        self._to_pass_on.append(PASSED_ON[signum])

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self.ends.clear()
        self._last_end = None
        return super()._start_workers(worker_group)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self._pass_on()
        self.note_ends()
        if self._still_leaving():
            return RunResult(state=WorkerState.HEALTHY)
        return super()._monitor_workers(worker_group)

    def _pass_on(self) -> None:
        while self._to_pass_on:
            signum = self._to_pass_on.popleft()
            self._remaining_restarts = 0  # a run asked to stop is not started again
            for worker in self._workers().values():
                worker.send_signal(signum)

    def note_ends(self) -> None:
        """Write down who has ended since the last look; of several at once, the one that tells most first."""
        new = [
            (rank, code)
            for rank, worker in self._workers().items()
            if rank not in self.ends and (code := worker.poll()) is not None
        ]
        if new:
            self._last_end = time.monotonic()
        self.ends.update(sorted(new, key=lambda end: _tells_less(end[1])))
        if not all(_worth_restarting(code) for code in self.ends.values()):
            self._remaining_restarts = 0

    def _still_leaving(self) -> bool:
        """Whether some ranks have left in a way that the others are about to follow."""
        if self._last_end is None or len(self.ends) == len(self._workers()):
            return False
        patience = min(PATIENCE.get(code, 0.0) for code in self.ends.values())
        if time.monotonic() - self._last_end < patience:
            return True
        if (
            HANG in self.ends.values()
        ):  # who stands still hears no SIGTERM, for which the agent would wait 30 s
            for worker in self._workers().values():
                worker.kill()
        return False

    def _workers(self) -> dict[int, subprocess.Popen[bytes]]:
        handlers = getattr(self._pcontext, "subprocess_handlers", {})
        return {rank: handler.proc for rank, handler in handlers.items()}


def _worth_restarting(code: int) -> bool:
    return code not in FAILURES | STOPS or code in WORTH_RESTARTING


def _tells_less(code: int) -> int:
    """Sort key: our own failures, deaths by signal, other failures, the rest."""
    ranks = (code in FAILURES, code < 0 or code > 128, code not in STOPS | {0})
    return next((place for place, fits in enumerate(ranks) if fits), len(ranks))


def verdict(codes: Sequence[int]) -> int:
    """One exit code for a run from its ranks' codes, given in the order in which they ended.

    The first of our own failures; else 75 or 130 if every rank stopped or was done; else the first failure:
    128 + signal for a death by signal, 1 for anything else.
    """
    for code in codes:
        if code in FAILURES:
            return code
    first = next((code for code in codes if code not in STOPS | {0}), None)
    if first is None:
        return (75 if 75 in codes else max(codes)) if codes else 1
    if first < 0:
        return 128 - first
    return first if first > 128 else 1


class _Held(logging.Handler):
    """Keeps the last log lines instead of showing them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=50)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _agent_log_held() -> Iterator[Sequence[str]]:
    """The agent's log lines, held back: they describe as failures what our exit codes mean."""
    log = logging.getLogger("torch.distributed.elastic")
    held, propagated = _Held(), log.propagate
    log.addHandler(held)
    log.propagate = False
    try:
        yield held.lines
    finally:
        log.removeHandler(held)
        log.propagate = propagated


def _report(code: int, ends: Mapping[int, int], agent_said: Sequence[str]) -> None:
    """Say what the workers could not say themselves: that one died, and what the agent did about it."""
    if code in FAILURES | STOPS | {0}:
        return
    for rank, end in ends.items():
        if end not in STOPS | {0}:
            how = f"was killed by {_signal_name(-end)}" if end < 0 else f"exited with code {end}"
            print(f"flexcore: rank {rank} {how}", file=sys.stderr)
    for line in agent_said:
        print(f"flexcore: agent: {line}", file=sys.stderr)
    sys.stderr.flush()


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
