"""`flexcore run|val|test`: the process around execute(): ranks, printed problems, exit codes."""

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from attrs import evolve

import flexcore
from flexcore import launchers
from flexcore.facts import Facts
from flexcore.problems import ConfigError
from flexcore.run_plan import Mode, Plan
from shell import files, probe, settling
from shell.building import BuildError
from shell.cli import complain, say, with_places
from shell.loggers.packages import installed
from shell.processes import die_with_parent, leave
from shell.ranks import LauncherError, read_rank
from shell.results import EXIT_CODES, RunResult
from shell.settling import PeerFailed, code_of, planned

MODES: Mapping[str, Mode] = {"run": "train", "val": "val", "test": "test"}
USAGE = EXIT_CODES["usage"]
SHOWN = 3


def run_command(arguments: argparse.Namespace, argv: Sequence[str]) -> NoReturn:
    """Carry the command out in this process, or in --nproc ranks of it, and leave with its exit code."""
    if not installed("torch"):
        text = f"`{arguments.command}` needs torch, which is not installed here"
        say(f'flexcore: {text}. Install it with pip install "flexcore[train]".', file=sys.stderr)
        sys.exit(USAGE)
    started = ranks_started(os.environ)
    if started is not None and arguments.nproc not in (None, started):
        text = f"--nproc: {arguments.nproc} ranks are asked for, and a launcher has started {started} already"
        say(f"flexcore: {text}. Leave --nproc out, or start one process.", file=sys.stderr)
        sys.exit(USAGE)
    if arguments.max_restarts and arguments.nproc is None:
        text = "--max-restarts: is for the ranks of --nproc. Add --nproc N, or leave restarts to the launcher"
        say(f"flexcore: {text}.", file=sys.stderr)
        sys.exit(USAGE)
    try:
        if started is None and arguments.nproc is not None:
            sys.exit(_launched(arguments, argv))
        die_with_parent()
        leave(_carried_out(arguments))
    except KeyboardInterrupt:  # before or after the part in which signals are requests to stop and save
        say("flexcore: interrupted outside the run; nothing more is saved.", file=sys.stderr)
        leave(EXIT_CODES["interrupted"])


def ranks_started(environ: Mapping[str, str]) -> int | None:
    """How many ranks a launcher around this process has started; None: this process may start its own."""
    launcher = launchers.infer(environ)
    world = launchers.world_size(launcher, environ)
    return world if "TORCHELASTIC_RUN_ID" in environ or (world or 1) > 1 else None


def _launched(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Check what the plan alone can tell, then start the ranks; they import what it names, all at once."""
    source, world = None, arguments.nproc
    try:
        source = files.read(arguments.config, arguments.overrides)
        facts = Facts(environment=(("RANK", "0"), ("WORLD_SIZE", str(world))), world_size=world)
        mode = MODES[arguments.command]
        plan = _told_whole(source.data, probe.device(facts), mode, smoke=arguments.smoke)
    except ConfigError as error:
        complain(with_places(error, source).problems, arguments.config)
        return USAGE
    if arguments.max_restarts and mode == "train" and plan.config.resume is False:
        text = "--max-restarts: each start would begin anew, since resume is false. Add resume=true"
        say(f"flexcore: {text}.", file=sys.stderr)
        return USAGE
    from shell.launching import launch

    return launch(world, argv, max_restarts=arguments.max_restarts)


def _told_whole(data: Any, facts: Facts, mode: Mode, *, smoke: bool) -> Plan:
    """The plan without a look at the components it names, unless it is refused: then with theirs, all problems at once."""
    try:
        return flexcore.plan(data, facts, mode=mode, smoke=smoke)
    except ConfigError:
        return planned(data, facts, mode, smoke=smoke)


def _carried_out(arguments: argparse.Namespace) -> int:
    """One rank's work and its exit code; what ends it is printed once, as problems where the user caused it."""
    source = None
    try:
        source = files.read(arguments.config, arguments.overrides)
        return _run(arguments, source)
    except ConfigError as error:
        if _speaks():
            complain(with_places(error, source).problems, arguments.config)
        return USAGE
    except BuildError as error:
        if _speaks():
            complain(with_places(_told(error), source).problems, arguments.config)
        return USAGE
    except Exception as error:
        return _ended_by(error)


def _ended_by(error: Exception) -> int:
    """A failure that is no config's fault: one line if it is foreseen, else its traceback."""
    code = code_of(error)
    if code == 1 and not isinstance(error, PeerFailed):
        traceback.print_exc()
    elif _speaks() or isinstance(error, LauncherError):  # without an environment nobody knows who speaks
        say(f"flexcore: {error}", file=sys.stderr)
    return code


def _told(error: BuildError) -> ConfigError:
    """The problem, after the traceback of the user's own code."""
    cause = error.__cause__
    if cause is not None:
        own = cause.__traceback__.tb_next if cause.__traceback__ is not None else None
        traceback.print_exception(type(cause), cause, own)
    return ConfigError([error.problem])


def _run(arguments: argparse.Namespace, source: files.Source) -> int:
    from shell.execute import execute

    mode = MODES[arguments.command]
    read_rank(
        launchers.infer(os.environ), os.environ
    )  # what others make of a broken environment is hard to read
    facts = probe.device(probe.environment(settling.with_stem(Facts(), arguments.config)))
    first = planned(source.data, facts, mode, smoke=arguments.smoke)
    facts = probe.checkpoints(facts, first.config, first.names)
    plan = flexcore.plan(first.config, facts, mode=mode, smoke=arguments.smoke)
    result = execute(plan, _before_start=None if arguments.quiet else _print_plan, _leaves=True)
    if _speaks():
        with suppress(OSError):  # where nobody can read it, the exit code still tells
            say(summary(result))
    return result.exit_code


def summary(result: RunResult) -> str:
    """How a run ended, in one line: where it stands, the last metrics, where its checkpoints are."""
    parts = [f"{result.reason}: epoch {result.epoch}, iteration {result.iter}"]
    parts += [f"{name} {value:.{result.plan.logging.digits}f}" for name, value in result.metrics.items()]
    if result.plan.mode == "train":
        names = [path.rpartition("/")[2] for path in result.checkpoints]
        shown = ", ".join([*(["..."] if len(names) > SHOWN else []), *names[-SHOWN:]]) or "no new one"
        parts.append(f"checkpoints in {result.plan.names.checkpoint_dir}: {shown}")
    if result.save_failed:
        parts.append(f"not saved: {', '.join(result.missing) or 'what was to be published'}; see the log")
    return "; ".join(parts)


def _print_plan(plan: Plan) -> None:
    if _speaks():
        say(str(plan).rstrip("\n"), "")
        sys.stdout.flush()


def _speaks() -> bool:
    """Whether this process is rank 0, told before any group is there."""
    names = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
    return next((os.environ[name] == "0" for name in names if name in os.environ), True)


def probed_plan(data: Any, given: Facts, mode: Mode) -> Plan:
    """The plan with model and data built in this process, on behalf of however many ranks are asked for.

    Raises:
        ConfigError: as `planned`; also for a component whose constructor raises, after its traceback.
    """
    from shell.assembling import observed_by_building

    facts = probe.device(evolve(probe.environment(given), entropy=given.entropy, started_at=given.started_at))
    first = planned(data, facts, mode)
    facts = probe.checkpoints(facts, first.config, first.names)
    try:
        seen = observed_by_building(first)
    except BuildError as error:
        raise _told(error) from error
    return flexcore.plan(first.config, evolve(facts, **seen), mode=mode)
