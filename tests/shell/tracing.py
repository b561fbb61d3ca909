"""A process of its own under strace: what it asks of the file system, and one chosen request answered by a fault.

strace attaches to a process forked from this one before it does its first step, so a point costs milliseconds.
The short writes are real ones: the length of a request is lowered on its way into the kernel, which strace cannot do.
"""

import contextlib
import ctypes
import functools
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Final

import pytest
import torch
from attrs import frozen

ALL_FILES: Final = "trace=%file,%desc"
FAULTS: Final = {"kill": "signal=KILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
CHANGING: Final = (
    "write writev pwrite64 pwritev pwritev2 fsync fdatasync rename renameat renameat2 mkdir mkdirat unlink unlinkat "
    "rmdir close ftruncate truncate fallocate link linkat copy_file_range sendfile msync"
).split()
"""What changes files, makes them durable or lets go of them; besides it whatever opens with O_CREAT or a directory."""

_LINE: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (.*)", re.DOTALL)
_PARTS: Final = re.compile(r"(\d+) +(?:(.*) <unfinished \.\.\.>|<\.\.\. \w+ resumed>(.*))", re.DOTALL)
_WRITES: Final = (1, 18)  # write and pwrite64 on x86_64
_TRACE_ME, _GET_REGISTERS, _SET_REGISTERS, _GO_ON, _SET_OPTIONS = 0, 12, 13, 24, 0x4200
_AT_SYSCALL: Final = signal.SIGTRAP | 0x80


@frozen
class Call:
    """One request: the `nth` of its name by its thread since strace attached, as strace tells it.

    first: made by the thread that was there first, so that it comes again whenever the same is done.
    """

    first: bool
    name: str
    nth: int
    arguments: str
    answer: str

    @property
    def changes(self) -> bool:
        opened = self.name == "openat" and ("O_CREAT" in self.arguments or "O_DIRECTORY" in self.arguments)
        return opened or self.name in CHANGING

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.answer


@frozen
class Traced:
    """How the process ended (as os.waitstatus_to_exitcode tells it), and its requests in the order of their ends."""

    code: int
    calls: tuple[Call, ...]

    @property
    def struck(self) -> set[tuple[str, int]]:
        """What was answered by a fault, by name and number."""
        return {(call.name, call.nth) for call in self.calls if call.injected}

    def under(self, root: pathlib.Path) -> tuple[Call, ...]:
        return tuple(call for call in self.calls if str(root) in call.arguments)


@functools.cache
def unavailable() -> str | None:
    """Why nothing can be traced here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    try:
        traced(lambda: None)
    except OSError as error:
        return f"strace cannot attach to a process here: {error}"
    return None


def needs_strace() -> None:
    """Skip the test where nothing can be traced."""
    if (reason := unavailable()) is not None:
        pytest.skip(reason)


def traced(work: Callable[[], int | None], *options: str) -> Traced:
    """Do `work` in a forked process under strace; its exit code is what `work` gives, 0 for None, 1 if it raises."""
    with _waiting(work) as (pid, go), attached(pid, *options) as calls:
        go()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Traced(code, tuple(calls))


def injection(call: Call, fault: str) -> str:
    """The option of strace that answers this very request with the fault."""
    return f"inject={call.name}:{FAULTS[fault]}:when={call.nth}"


@contextlib.contextmanager
def _waiting(work: Callable[[], int | None]) -> Iterator[tuple[int, Callable[[], None]]]:
    """A forked process and the word that lets it begin, which is no request for a file; killed if it never got it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    pid = os.fork()
    if pid == 0:
        leave_with(lambda: signal.sigwait({signal.SIGUSR1}) and work())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    try:
        yield pid, lambda: os.kill(pid, signal.SIGUSR1)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def leave_with(work: Callable[[], int | None]) -> None:
    """End this forked process with what `work` gives. On one thread: a pool of the parent's does not come along."""
    code = 1
    try:
        torch.set_num_threads(1)
        code = work() or 0
    finally:
        os._exit(code)


@contextlib.contextmanager
def attached(pid: int, *options: str, follow: bool = True) -> Iterator[list[Call]]:
    """strace on a running process; the list is filled as the block ends, by when the process should have ended.

    follow: its other threads and children too, or this one thread alone.

    Raises:
        OSError: strace may not attach, in its own words.
    """
    told = os.memfd_create("strace")  # a pipe would fill while nobody reads
    chosen = [word for option in options or (ALL_FILES,) for word in ("-e", option)]
    command = [
        "strace",
        *["-f"] * follow,
        "-y",
        "-s",
        "1000000",
        *chosen,
        "-o",
        f"/dev/fd/{told}",
        "-p",
        str(pid),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=(told,))
    calls: list[Call] = []
    try:
        said = process.stderr.readline()
        if "attached" not in said:
            raise OSError(said.strip())
        yield calls
        process.wait(60)
        with os.fdopen(told, errors="surrogateescape", closefd=False) as lines:
            text = lines.read()
        calls += _parsed(text if follow else re.sub("(?m)^", f"{pid} ", text), str(pid))
    finally:
        os.close(told)
        process.kill()
        process.wait()
        process.stderr.close()


def _parsed(text: str, oldest: str) -> Iterator[Call]:
    counts: dict[tuple[str, str], int] = {}
    begun: dict[str, str] = {}
    for line in text.splitlines():
        whole = line
        if match := _PARTS.fullmatch(line):
            thread, first, rest = match.groups()
            if first is not None:
                begun[thread] = first
                continue
            whole = f"{thread} {begun.pop(thread)}{rest}"
        if match := _LINE.fullmatch(whole):
            thread, name, arguments, answer = match.groups()
            counts[thread, name] = counts.get((thread, name), 0) + 1
            yield Call(thread == oldest, name, counts[thread, name], arguments, answer)


class _Registers(ctypes.Structure):
    """user_regs_struct of x86_64."""

    _fields_ = [(name, ctypes.c_ulong) for name in
                ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
                 "ds es fs gs").split()]  # fmt: skip


def writing_less(work: Callable[[], int | None], chosen: Callable[[int], bool]) -> tuple[int, int]:
    """(exit code, writes) of a forked process for which the kernel takes half of what each chosen write asks.

    chosen: told the number of a write of two bytes or more, from 1. Follows one thread.
    """
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("lowering the length of a write is written for x86_64 Linux")
    c = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        c.ptrace(_TRACE_ME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        leave_with(work)
    os.waitpid(pid, 0)
    c.ptrace(_SET_OPTIONS, pid, None, ctypes.c_void_p(1))  # tell a stop at a syscall from a signal
    registers, entering, seen, passed_on = _Registers(), True, 0, 0
    while True:
        c.ptrace(_GO_ON, pid, None, ctypes.c_void_p(passed_on))
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status), seen
        passed_on = 0 if os.WSTOPSIG(status) == _AT_SYSCALL else os.WSTOPSIG(status)
        if passed_on:
            continue
        if entering:
            c.ptrace(_GET_REGISTERS, pid, None, ctypes.byref(registers))
            if registers.orig_rax in _WRITES and registers.rdx > 1:
                seen += 1
                if chosen(seen):
                    registers.rdx //= 2
                    c.ptrace(_SET_REGISTERS, pid, None, ctypes.byref(registers))
        entering = not entering
