"""`make mutants`: every change mutmut can make to the core, each against the tests that reach it.

mutmut writes the mutants, one function that picks the mutated body by name at run time, and keeps what became
of each (`mutants/**/*.meta`; `mutmut show NAME` shows one). Here they run: pytest collects once, and a fork of the collecting
process runs, mutant by mutant, the tests that reach its function, those that killed its neighbours first, until one
fails. A survivor is run again only when those tests changed. Interrupt it and run it again.
"""

import argparse
import gc
import hashlib
import json
import os
import resource
import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation import trampoline
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant

KILLED, SURVIVED, UNREACHED, TIMEOUT = 1, 0, 33, 36  # mutmut's own exit codes
MEMORY = 8 << 30  # bytes of address space: a mutant that grows without end fails
KNOWN = Path("tests/flexcore/equivalent_mutants.toml")
REPORT = Path("docs/mutants.md")
PARSING = {"flexcore.converting.x_parse_partly", "flexcore.converting.x_structure"}
TOLD = {
    KILLED: "killed",
    3: "killed",
    TIMEOUT: "timed out",
    SURVIVED: "survived",
    UNREACHED: "not reached",
    None: "not run",
}


def generated() -> None:
    """Write the mutants of what changed since the last call, and have the mutated core imported from here on."""
    Path("mutants").mkdir(exist_ok=True)
    for table in Path("mutants").rglob("*.meta"):
        made = table.with_suffix("")
        if made.exists() and made.stat().st_mtime > table.stat().st_mtime:  # killed while it was written
            made.unlink()
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    mutmut.create_mutants(1)


def tables() -> Iterator[SourceFileMutationData]:
    """What became of each file's mutants so far."""
    for path in sorted(mutmut.walk_mutatable_files()):
        table = SourceFileMutationData(path=path)
        table.load()
        yield table


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()


class Switches:
    """Which body each function of the core runs. Mutmut's own trampoline asks the environment at each call."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any], bool, Any, list[Any]]] = []
        self.entered: set[str] = set()

    def wrap(self, mutants: dict[str, Any], is_classmethod: bool = False) -> Callable[[Any], Any]:
        def wrapped(function: Any) -> Any:
            body = [function]

            @wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                return body[0](*args, **kwargs)

            self.made.append((function.__module__, mutants, is_classmethod, function, body))
            return call

        return wrapped

    def watch(self) -> None:
        """From here on, note each function at its first call."""
        self.entered.clear()
        for module, mutants, _, function, body in self.made:
            name = mutmut.mangled_name_from_mutant_name(f"{module}.{mutants['_mutmut_orig'].__name__}")
            body[0] = partial(self._enter, name, function, body)

    def _enter(self, name: str, function: Any, body: list[Any], *args: Any, **kwargs: Any) -> Any:
        self.entered.add(name)
        body[0] = function
        return function(*args, **kwargs)

    def unwatch(self) -> None:
        for *_, function, body in self.made:
            body[0] = function

    def choose(self, mutant: str) -> None:
        module, _, name = mutant.rpartition(".")
        for home, mutants, is_classmethod, _, body in self.made:
            if home == module and name in mutants:
                body[0] = mutants[name].__func__ if is_classmethod else mutants[name]
                return
        raise AssertionError(mutant)


class Reach:
    """Which functions each test enters, and the CPU seconds it takes; kept between runs, by its file's digest."""

    kept = Path("reach.json")

    def __init__(self, switches: Switches) -> None:
        self.switches = switches
        self.data: dict[str, Any] = json.loads(self.kept.read_text()) if self.kept.exists() else {"tests": {}}
        self.digests: dict[str, str] = {}

    def of(self, item: pytest.Item) -> dict[str, Any]:
        """The entry of a test: its functions, seconds and file digest; the test is run if there is none."""
        file = str(item.path)
        now = self.digests.setdefault(file, digest(item.path))
        entry = self.data["tests"].get(item.nodeid)
        if entry is None or entry["digest"] != now:
            self.switches.watch()
            began = time.process_time()
            passed, entered = passes(item), sorted(self.switches.entered)
            seconds = time.process_time() - began
            if not passed:
                sys.__stderr__.write(f"left out, as it fails without any mutant: {item.nodeid}\n")
                return {"digest": now, "seconds": seconds, "functions": []}
            entry = {"digest": now, "seconds": seconds, "functions": entered}
            self.data["tests"][item.nodeid] = entry
        return entry

    def over(self, items: list[pytest.Item]) -> dict[str, dict[str, Any]]:
        try:
            return {item.nodeid: self.of(item) for item in items}
        finally:
            self.kept.write_text(json.dumps(self.data))


def passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


@contextmanager
def rebuilt() -> Iterator[bool]:
    """The converter is built once, at import and at the first use of a class; here is another one.

    Yields whether it could be built.
    """
    from flexcore import converting, structuring

    kept = structuring.CONVERTER
    try:
        made = structuring._build()
    except Exception:
        yield False
        return
    structuring.CONVERTER = converting.CONVERTER = made
    try:
        yield True
    finally:
        structuring.CONVERTER = converting.CONVERTER = kept


def makers(switches: Switches) -> set[str]:
    """What only runs while a converter is built or meets a class for the first time, so before most tests."""
    from flexcore import config, structuring

    switches.watch()
    structuring._build().get_structure_hook(config.Config)
    switches.unwatch()
    return set(switches.entered)


class Loop:
    """Takes the place of pytest's loop over tests: a loop over mutants."""

    def __init__(self, wanted: list[str], jobs: int, patience: float) -> None:
        self.wanted, self.jobs, self.patience = wanted, jobs, patience
        self.switches = Switches()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        pytest.Function.repr_failure = lambda *_: ""  # type: ignore[assignment,method-assign] - nobody reads it
        os.chdir("mutants")  # as mutmut does
        try:
            self.entries = Reach(self.switches).over(session.items)
        finally:
            os.chdir("..")
        self.switches.unwatch()
        self.tests: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            for function in self.entries[item.nodeid]["functions"]:
                self.tests[function].append(item)
        self.makers = makers(self.switches)
        parsing = [
            item for item in session.items if not PARSING.isdisjoint(self.entries[item.nodeid]["functions"])
        ]
        self.tests |= dict.fromkeys(self.makers, parsing)
        gc.collect()
        gc.freeze()
        every = sorted(tables(), key=self.place)
        workers = [self.worker(every[i :: self.jobs]) for i in range(self.jobs)]
        for worker in workers:
            os.waitpid(worker, 0)
        return True

    def worker(self, files: list[SourceFileMutationData]) -> int:
        child = os.fork()
        if not child:
            try:
                for table in files:
                    self.file(table)
            finally:
                os._exit(0)
        return child

    def place(self, table: SourceFileMutationData) -> int:
        module = ".".join(Path(table.path).with_suffix("").parts[1:])
        return self.wanted.index(module) if module in self.wanted else len(self.wanted)

    def is_wanted(self, name: str) -> bool:
        module = name.rpartition(".")[0]
        return not self.wanted or any(
            module in (w, f"flexcore.{w}") or name.startswith(f"flexcore.{w}.") for w in self.wanted
        )

    def mark(self, function: str) -> str:
        """Which tests there are for it, as they are written now."""
        told = sorted(item.nodeid + self.entries[item.nodeid]["digest"] for item in self.tests[function])
        return hashlib.sha256("".join(told).encode()).hexdigest()

    def file(self, table: SourceFileMutationData) -> None:
        """Every mutant of one file that is not settled yet."""
        kept = Path(f"mutants/{table.path}.survivors")
        survived: dict[str, list[Any]] = json.loads(kept.read_text()) if kept.exists() else {}
        left, marks = [], {}
        for name in filter(self.is_wanted, table.exit_code_by_key):
            function = mutmut.mangled_name_from_mutant_name(name)
            if table.exit_code_by_key[name] in (KILLED, 3, TIMEOUT):
                continue
            if not self.tests[function]:
                table.exit_code_by_key[name] = UNREACHED
                continue
            marks[name] = self.mark(function)
            before = survived.get(name)
            if before is None or before[0] != marks[name] or before[1] < self.patience:
                left.append(name)
        began = time.monotonic()
        while left:
            done = 0
            for name, code, seconds in self.batch(left):
                done += 1
                table.exit_code_by_key[name] = code
                table.durations_by_key[name] = seconds
                survived.pop(name, None)
                if code == SURVIVED:
                    survived[name] = [marks[name], self.patience]
                if time.monotonic() - began > 5:
                    began = time.monotonic()
                    table.save()
                    kept.write_text(json.dumps(survived))
                    self.tell(table)
            left = left[done:]
        if marks:
            self.tell(table)
        table.save()
        kept.write_text(json.dumps(survived))

    def tell(self, table: SourceFileMutationData) -> None:
        counts = Counter(TOLD[code] for code in table.exit_code_by_key.values())
        sys.__stderr__.write(f"{time.strftime('%H:%M:%S')} {table.path}: {dict(counts)}\n")

    def batch(self, names: list[str]) -> Iterator[tuple[str, int, float]]:
        """What becomes of mutants, in order, as far as one child gets: each that dies or is spoilt ends it."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                self.run(names, writing)
            finally:
                os._exit(0)
        os.close(writing)
        told = 0
        with os.fdopen(reading) as pipe:
            for line in pipe:
                code, seconds = line.split()
                yield names[told], int(code), float(seconds)
                told += 1
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            yield names[told], TIMEOUT, 0.0

    def run(self, names: list[str], writing: int) -> None:
        """In the child: each mutant until a test fails, or takes far longer than it should, which ends the child.

        A test that still fails with the function as it is has been spoilt by what the mutant left behind: what
        follows runs in a child of its own.
        """
        os.chdir("mutants")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        killers: Counter[str] = Counter()
        here = module = ""
        for name in names:
            function = mutmut.mangled_name_from_mutant_name(name)
            if function != here:
                here, module = function, function.split(".x")[0].rpartition(".")[2]
                killers.clear()
            items = self.within(
                sorted(self.tests[function], key=lambda item: self.order(item, killers, module))
            )
            began = time.process_time()
            self.switches.choose(name)
            with rebuilt() if function in self.makers else nullcontext(True) as works:
                killer = next((item for item in items if not self.timed(item)), None) if works else items[0]
            self.switches.unwatch()
            os.write(
                writing, f"{SURVIVED if killer is None else KILLED} {time.process_time() - began}\n".encode()
            )
            if killer is not None:
                killers[killer.nodeid] += 1
                if not self.timed(killer):
                    return

    def order(self, item: pytest.Item, killers: Counter[str], module: str) -> tuple[Any, ...]:
        """What killed the function's other mutants first, then the module's own tests, then what enters little."""
        entry = self.entries[item.nodeid]
        own = item.path.stem == f"test_{module}"
        return (
            -killers[item.nodeid],
            entry["seconds"] > 0.1,
            not own,
            len(entry["functions"]),
            entry["seconds"],
        )

    def timed(self, item: pytest.Item) -> bool:
        signal.setitimer(signal.ITIMER_PROF, 1 + 10 * self.entries[item.nodeid]["seconds"])
        return passes(item)

    def within(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """As many of them as fit one's patience."""
        ends = accumulate(self.entries[item.nodeid]["seconds"] for item in items)
        return [item for item, end in zip(items, ends, strict=True) if end <= self.patience] or items[:1]


def changed(name: str, table: SourceFileMutationData) -> tuple[str, str]:
    """The lines a mutant takes away and those it puts in their place."""
    lines = get_diff_for_mutant(name, path=table.path).splitlines()[2:]
    return tuple("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")  # type: ignore[return-value]


def told(name: str) -> str:
    """A mutant's function as it is written: `flexcore.sampling.Order.at`."""
    module, _, rest = mutmut.mangled_name_from_mutant_name(name).rpartition(".")
    return f"{module}.{rest.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def survivors(
    wanted: Callable[[str], bool], files: Iterable[SourceFileMutationData] | None = None
) -> list[tuple[str, str, str, str]]:
    return [
        (name, told(name), *changed(name, table))
        for table in (tables() if files is None else files)
        for name, code in table.exit_code_by_key.items()
        if code in (SURVIVED, UNREACHED) and wanted(name)
    ]


def known() -> dict[tuple[str, str, str], str]:
    """(function, lines taken away, lines put there) of each mutant that changes nothing, and why."""
    listed = tomllib.loads(KNOWN.read_text())["mutant"] if KNOWN.exists() else []
    return {(entry["function"], entry["was"], entry["is"]): entry["why"] for entry in listed}


HEAD = """\
# Mutants of the core

Written by `make mutants`: [mutmut](https://mutmut.readthedocs.io) {version} changes one thing at a time inside the functions
and methods of flexcore, and each mutant meets the tests of `tests/flexcore` that enter its function, until one fails.
A mutant that a test ran far longer for than without it is killed too (timed out). Not mutated: functions with a
decorator (properties, mostly), tables at module level, annotations, texts in triple quotes. Texts of messages are
mutated as everything else is.

How long a mutant must survive is `--patience`, CPU seconds of the tests nearest to it (60 unless said). The figures here
were taken at 2 to 40: more patience kills more.

{total}

| module | mutants | killed | timed out | survived | of these equivalent | not reached | not run | killed of run |
|---|---|---|---|---|---|---|---|---|
"""


def report() -> str:
    """docs/mutants.md: the figures, every survivor that is equivalent with the reason, and every other."""
    why, rows, survived, sums = known(), [], {True: [], False: []}, Counter()  # type: ignore[var-annotated]
    for table in tables():
        counts = Counter(TOLD[code] for code in table.exit_code_by_key.values())
        if not counts:
            continue
        left = Counter()  # type: ignore[var-annotated]
        for name, function, was, now in survivors(
            lambda name, table=table: name in table.exit_code_by_key, [table]
        ):
            reason = why.get((function, was, now))
            left[reason is not None] += 1
            survived[reason is not None].append((function, was, now, reason or name))
        counts["equivalent"] = left[True]
        sums += counts
        rows.append(_row(str(table.path).removeprefix("flexcore/"), counts))
    text = HEAD.format(
        version=version("mutmut"), total=_killed(sums) + " of the mutants that ran are killed."
    )
    text += "\n".join([*rows, _row("all", sums)])
    text += "\n\n## Survivors that change nothing\n" + "".join(_entry(*entry) for entry in survived[True])
    return text + "\n## Survivors that may mean something\n\n" + _by_function(survived[False])


def _by_function(survivors: list[tuple[str, str, str, str]]) -> str:
    """A line a function with its mutants' numbers; `mutmut show NAME` has what each changes."""
    numbers = defaultdict(list)
    for function, _, _, name in survivors:
        numbers[function].append(name.rpartition("_")[2])
    lines = (f"- `{function}`: {', '.join(own)}\n" for function, own in numbers.items())
    return "".join(lines) or "None.\n"


def _killed(counts: Counter[str]) -> str:
    run = sum(counts.values()) - counts["not run"] - counts["equivalent"]
    return f"{100 * (counts['killed'] + counts['timed out']) / run:.1f} %" if run else "-"


def _row(name: str, counts: Counter[str]) -> str:
    total = sum(counts.values()) - counts["equivalent"]
    kinds = ("killed", "timed out", "survived", "equivalent", "not reached", "not run")
    return f"| {name} | {total} | {' | '.join(str(counts[kind]) for kind in kinds)} | {_killed(counts)} |"


def _entry(function: str, was: str, now: str, why: str) -> str:
    return f"\n`{function}`: {why}\n\n```diff\n{_signed('-', was)}\n{_signed('+', now)}\n```\n"


def _signed(sign: str, lines: str) -> str:
    return "\n".join(f"{sign} {line}" for line in lines.split("\n"))


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    asked.add_argument("modules", nargs="*", help="sampling, checks.data, ...; all without any")
    asked.add_argument("-j", "--jobs", type=int, default=1, help="files tested at a time")
    asked.add_argument(
        "--patience", type=float, default=60, help="CPU seconds of tests a mutant must survive"
    )
    asked.add_argument("--report", action="store_true", help="run nothing; write docs/mutants.md")
    args = asked.parse_args()
    loop = Loop(args.modules, args.jobs, args.patience)
    if not args.report:
        generated()
        if code := collected(loop):
            return code
    REPORT.write_text(report())
    listed = known()
    left = [found for found in survivors(loop.is_wanted) if found[1:] not in listed]
    for name, function, was, now in left:
        print(f"\n{name}  ({function})\n{_signed('-', was)}\n{_signed('+', now)}")
    print(f"{len(left)} survivors not known to be equivalent")
    return bool(left)


def collected(loop: Loop) -> int:
    """Hand pytest's loop over; 0 unless collecting or a test without any mutant fails."""
    options = [*config().pytest_add_cli_args_test_selection, *config().pytest_add_cli_args]
    trampoline.wrap_in_trampoline = loop.switches.wrap  # type: ignore[assignment]
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.modules.pop("tests", None)  # the tests, too, are those beside the mutants
    root = Path.cwd()
    os.chdir("mutants")
    try:
        code = pytest.main(
            ["-q", "--rootdir=.", "--tb=no", "-s", "-p", "no:logging", *options], plugins=[Home(root), loop]
        )
    finally:
        os.chdir(root)
    return 0 if code in (0, 5) else int(code)


class Home:
    """After collecting from mutants/, the work is done from the repository's root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        os.chdir(self.root)


if __name__ == "__main__":
    sys.exit(main())
