"""The hang watch: a thread that sees no progress, names the rank that stands still, and ends the run with 5.

Progress is looked at from outside and costs a step nothing: iterations, evaluated batches, bytes moved to or from
storage (a large checkpoint is on its way). Time is counted in the watch's own ticks, so a process, or a machine,
that was suspended as a whole has not stood still. Ranks speak through the store their group met at, and only
once one of them has been still for half the time.
"""

import faulthandler
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic, sleep
from types import FrameType
from typing import Any

from attrs import evolve, frozen

from shell.hangs import JUDGES, Board, Others, Sight, Verdict, judged
from shell.results import EXIT_CODES
from shell.run import Run

TICKS = 20
"""Looks within one timeout: at most CALM seconds apart, and ALERT once half of it has passed."""

CALM, ALERT = 15.0, 1.0

SILENT_TICKS = 5
"""A rank that has said nothing for so many ticks, and for SILENT seconds, does not answer."""

SILENT = 1.5

LAST_WORDS = 4.0
"""Seconds the ranks wait for each other's stacks before they end."""

WAITING = ("/torch/distributed/", "/torch/nn/parallel/distributed.py", "/torch/autograd/graph.py")
"""Where a rank stands that waits for others; a backward pass reduces gradients in its last part."""


@frozen(kw_only=True)
class Who:
    """A rank's process. born: its start, in the kernel's ticks, so that another with its number is not meant."""

    host: str
    pid: int
    born: str


class StoreBoard:
    """A connection of its own to the store at MASTER_ADDR: the group's is busy while the main thread waits in it."""

    def __init__(self, address: str, port: int, prefix: str) -> None:
        from torch.distributed import TCPStore

        self._prefix = prefix
        self._store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=30))  # fmt: skip

    def put(self, name: str, text: str) -> None:
        self._store.set(f"{self._prefix}/{name}", text)

    def get(self, name: str) -> str | None:
        key = f"{self._prefix}/{name}"
        return self._store.get(key).decode() if self._store.check([key]) else None

    def remove(self, name: str) -> None:
        self._store.delete_key(f"{self._prefix}/{name}")


class Watch:
    """The watch of one rank. `run` is only looked at: its counts are plain numbers."""

    def __init__(self, run: Run, timeout: float, board: Board | None, crew: Sequence[Who]) -> None:
        self.run, self.timeout, self.board, self.crew = run, timeout, board, crew
        self.stacks = pathlib.Path(run.log_dir or run.work_dir) / "stacks"
        self.still = 0.0
        self.over, self.ending = threading.Event(), threading.Event()
        keeper = None if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else 0
        self.others = Others(run.rank, run.world_size, board, keeper)
        self._watched = threading.get_ident()
        self._begun = self._last = (*self._counts(), 0)

    @property
    def suspicious(self) -> bool:
        return self.still >= self.timeout / 2

    @property
    def tick(self) -> float:
        return min(self.timeout / TICKS, ALERT if self.suspicious else CALM)

    def start(self) -> None:
        if self.board is not None:
            threading.Thread(target=self._speak, name="hang-watch-speaker", daemon=True).start()
        threading.Thread(target=self._watch, name="hang-watch", daemon=True).start()

    def stop(self) -> None:
        """The end of the watch; once it ends the process nothing else does: peers that are gone are no news then."""
        self.over.set()
        while self.ending.is_set():
            sleep(LAST_WORDS)

    def sight(self) -> Sight:
        place, waits = standing(sys._current_frames().get(self._watched))
        return Sight(
            rank=self.run.rank,
            word=0,
            still=self.still,
            completed=self.run.completed,
            place=place,
            waits=waits,
        )

    def _counts(self) -> tuple[int, int]:
        return self.run.completed, self.run.beats

    def _watch(self) -> None:
        """Count ticks without progress. Until the first iteration is over everything is progress."""
        tick = self.tick
        while not self.over.wait(tick):
            seen = (*self._counts(), _storage())
            moved = seen != self._last or seen[:2] == self._begun[:2]
            self.still, self._last = 0.0 if moved else self.still + tick, seen
            self.others.age(tick, suspicious=self.suspicious)
            verdict = self.others.verdict or (self._judged() if self.still >= self.timeout else None)
            if verdict is not None:
                self._end(verdict)
            tick = self.tick

    def _judged(self) -> Verdict | None:
        """The verdict, if this rank is to give one; the others wait as long again before they end without."""
        if self.others.lost or (self.run.rank >= JUDGES and self.still >= 2 * self.timeout):
            return Verdict(timeout=self.timeout, completed=self.run.completed, faults=())
        if self.run.rank >= JUDGES:
            return None
        silent = self.others.silent(max(SILENT, SILENT_TICKS * self.tick))
        return judged(self.sight(), self.others.heard, silent, self.timeout, self.tick)

    def _speak(self) -> None:
        """The talk with other ranks, in a thread of its own: the board's keeper may be the one that is stopped."""
        try:
            while not self.over.wait(self.tick):
                self.others.talk(self.sight(), suspicious=self.suspicious)
            self.others.say(evolve(self.sight(), left=True))
        except Exception:
            self.others.lost = True

    def _end(self, verdict: Verdict) -> None:
        """The stacks, the verdict in words, a push to those near here that are stopped, and out."""
        self.ending.set()
        if self.board is not None:
            threading.Thread(target=self._pass_on, args=(verdict,), daemon=True).start()
        with suppress(Exception):
            _dump(self.stacks, self.run.rank)
        at_fault = {rank for rank, _ in verdict.faults}
        speaker = next((rank for rank in range(self.run.world_size) if rank not in at_fault), 0)
        if self.run.rank == speaker and not self.others.lost:
            _tell(verdict.lines(self.stacks), self.run.log_dir)
        if self.run.rank not in at_fault:
            host = self.crew[self.run.rank].host
            near = [self.crew[rank] for rank in at_fault if self.crew[rank].host == host]
            _push(near, self.tick)
            sleep(0 if near else 2 * self.tick)  # the others have yet to read the verdict
        os._exit(EXIT_CODES["hang"])

    def _pass_on(self, verdict: Verdict) -> None:
        assert self.board is not None
        with suppress(Exception):
            self.board.put("verdict", verdict.text())


def _push(stopped: Sequence[Who], tick: float) -> None:
    """Let stopped processes go on: they read the verdict, leave their stacks and end with 5. Else they are killed."""
    for who in stopped:
        _signal(who, signal.SIGCONT)
    deadline = monotonic() + LAST_WORDS
    while monotonic() < deadline and any(_born(who.pid) == who.born for who in stopped):
        sleep(tick / 4)
    for who in stopped:
        _signal(who, signal.SIGKILL)


def _signal(who: Who, signum: int) -> None:
    with suppress(OSError):
        if _born(who.pid) == who.born:
            os.kill(who.pid, signum)


def _born(pid: int) -> str:
    """When a process started; "" if there is none, or it is dead and waits to be collected."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def standing(frame: FrameType | None) -> tuple[str, bool]:
    """(where a thread stands in code that is not torch's, whether it waits for other ranks there)."""
    place, waits = "", False
    while frame is not None:
        name = frame.f_code.co_filename
        waits = waits or any(part in name for part in WAITING)
        if not place and "/torch/" not in name and not name.startswith("<"):
            short = "/".join(pathlib.Path(name).parts[-2:])
            place = f"{short}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return place or "an unknown place", waits


def _storage() -> int:
    """Bytes this process has moved to and from storage; 0 where the kernel does not tell."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            rows = dict(line.split(": ") for line in file.read().splitlines())
        return int(rows["read_bytes"]) + int(rows["write_bytes"])
    except (OSError, KeyError, ValueError):
        return 0


def _dump(folder: pathlib.Path, rank: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"rank_{rank}.txt").open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)


def _tell(lines: Sequence[str], log_dir: pathlib.Path | None) -> None:
    """On stderr and in the log, past whatever locks the main thread may hold."""
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    with suppress(OSError, ValueError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text)
    with suppress(OSError):
        if log_dir is not None:
            with (log_dir / "run.log").open("ab") as log:
                log.write(text)


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """The run under watch for the length of the block, if its plan has a hang_timeout."""
    timeout = run.plan.environment.hang_timeout
    if timeout is None:
        yield
        return
    crew = [Who(host=host, pid=pid, born=born) for host, pid, born in run.group.gather(_self())]
    board = _board(run)
    if board is None and run.world_size > 1:  # alone a rank cannot tell a hang from a slow peer
        run.logger.warning("no store at MASTER_ADDR and MASTER_PORT: nobody watches whether the ranks hang")
        yield
        return
    watch = Watch(run, timeout, board, crew)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def _self() -> list[Any]:
    return [socket.gethostname(), os.getpid(), _born(os.getpid())]


def _board(run: Run) -> Board | None:
    """The store the group met at; None for a run of one, and where it is not there (a group someone else made)."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if run.world_size == 1 or not address or not port.isdecimal():
        return None
    start = f"{run.plan.names.run_id}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        return StoreBoard(address, int(port), f"flexcore/hang/{start}")
    except (OSError, RuntimeError, ValueError):
        return None
