"""`flexcore run|val|test`: the process around execute(): ranks, printed problems, exit codes."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import flexcore
from flexcore.facts import Facts
from flexcore.problems import ConfigError
from flexcore.run_plan import Mode, Plan
from shell import files
from shell.cli import complain, say, with_places
from shell.results import EXIT_CODES


def run_command(arguments: argparse.Namespace, argv: Sequence[str]) -> NoReturn:
    """Carry the command out in this process, or in --nproc ranks of it, and leave with its exit code."""
    from shell.processes import die_with_parent

    if arguments.nproc is not None and not _is_worker():
        sys.exit(_launched(arguments, argv))
    die_with_parent()
    _carry_out(arguments)


def _is_worker() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _launched(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Check what can be checked in one process, then start the ranks."""
    try:
        source = files.read(arguments.config, arguments.overrides)
    except ConfigError as error:
        complain(error.problems, arguments.config)
        return EXIT_CODES["usage"]
    try:
        world = arguments.nproc
        facts = Facts(environment=(("RANK", "0"), ("WORLD_SIZE", str(world))), world_size=world)
        flexcore.plan(source.data, facts, mode=_mode(arguments), smoke=arguments.smoke)
    except ConfigError as error:
        complain(with_places(error, source).problems, arguments.config)
        return EXIT_CODES["usage"]
    from shell.launching import launch

    return launch(arguments.nproc, argv)


def _mode(arguments: argparse.Namespace) -> Mode:
    modes: dict[str, Mode] = {"run": "train", "val": "val", "test": "test"}
    return modes[arguments.command]


def _carry_out(arguments: argparse.Namespace) -> NoReturn:
    """One rank: everything happens inside `held`, so that models outlive the group until the process leaves."""
    from shell.processes import leave

    held: list[Any] = []
    code = _guarded(lambda: _run(arguments, held), arguments)
    leave(code)


def _run(arguments: argparse.Namespace, held: list[Any]) -> int:
    from shell import settling
    from shell.execute import execute

    source = files.read(arguments.config, arguments.overrides)
    try:
        facts = settling.first_round(settling.with_stem(Facts(), arguments.config), source.data, _mode(arguments), smoke=arguments.smoke)
        plan = flexcore.plan(source.data, facts, mode=_mode(arguments), smoke=arguments.smoke)
        result = execute(plan, _before_start=_print_plan if not arguments.quiet else None, _hold=held)
    except ConfigError as error:
        raise with_places(error, source) from error
    if _speaks():
        say(f"{result.reason}: epoch {result.epoch}, iteration {result.iter}  " + "  ".join(f"{k} {v:.4f}" for k, v in result.metrics.items()))
    return result.exit_code


def _print_plan(plan: Plan) -> None:
    if _speaks():
        say(str(plan).rstrip("\n"), "", file=sys.stdout)
        sys.stdout.flush()


def _speaks() -> bool:
    """Whether this process is rank 0, told before any group is there."""
    names = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
    return next((os.environ[name] == "0" for name in names if name in os.environ), True)


def _guarded(work: Callable[[], int], arguments: argparse.Namespace) -> int:
    """The work's exit code; errors are printed once, by rank 0, as problems rather than tracebacks."""
    from shell.building import BuildError
    from shell.contracts import Prediction  # noqa: F401  (torch is loaded from here on)
    from shell.settling import PeerFailed, code_of

    try:
        return work()
    except ConfigError as error:
        if _speaks():
            complain(error.problems, arguments.config)
        return EXIT_CODES["usage"]
    except PeerFailed as error:
        return error.code
    except BuildError as error:
        if _speaks() and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
            complain([error.problem], arguments.config)
        return EXIT_CODES["usage"]
    except Exception as error:
        code = code_of(error)
        if code == 1:
            traceback.print_exc()
        elif _speaks():
            say(f"flexcore: {error}", file=sys.stderr)
        return code


def probed_plan(data: Any, given: Facts, mode: Mode) -> Plan:
    """The plan with model and data built in this process, on behalf of however many ranks are asked for."""
    from attrs import evolve

    from shell import building, probe
    from shell.assembling import observed_by_building

    facts = probe.environment(given)
    facts = probe.device(evolve(facts, entropy=None, started_at=None) if given.entropy is None else facts)
    first = flexcore.plan(data, facts, mode=mode)
    facts = probe.checkpoints(facts, first.config, first.names.work_dir)
    building.check(first)
    seen = observed_by_building(first)
    return flexcore.plan(first.config, evolve(facts, **seen), mode=mode)
