"""The flexcore command: reads arguments and files, prints, and turns every ending into its exit code."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from attrs import evolve

import flexcore
from flexcore.facts import Facts
from flexcore.problems import ConfigError, Problem, located
from shell import files

MODES = ("run", "val", "test")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Parse, dispatch, exit. `run`, `val` and `test` leave without interpreter teardown (see processes.leave)."""
    arguments = _parser().parse_args(argv)
    sys.path.insert(0, "")
    if arguments.command in MODES:
        from shell.running import run_command

        run_command(arguments, list(sys.argv[1:] if argv is None else argv))
    sys.exit(COMMANDS[arguments.command](arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flexcore", description="Plan a PyTorch training run, then do exactly that.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("run", "train as planned"), ("val", "validate"), ("test", "test")):
        one = _with_config(commands, name, text)
        one.add_argument("--nproc", type=_positive, metavar="N", help="start N ranks on this host through torchrun's agent")
        one.add_argument("--smoke", action="store_true", help="one batch of everything, then done")
        one.add_argument("--quiet", action="store_true", help="do not print the plan first")
    plan = _with_config(commands, "plan", "print what a run would do; no torch needed")
    _add_facts(plan)
    plan.add_argument("--mode", choices=("train", "val", "test"), default="train")
    plan.add_argument("--format", choices=("text", "json"), default="text")
    plan.add_argument("--probe", action="store_true", help="build model and data, so that nothing stays unknown")
    plan.add_argument("-o", dest="output", metavar="FILE", help="write the plan as JSON")
    lint = commands.add_parser("lint", help="report every problem of a config; no torch needed")
    lint.add_argument("configs", nargs="+", metavar="CONFIG")
    _add_facts(lint)
    report = commands.add_parser("report", help="compare what was planned with what happened")
    report.add_argument("work_dir")
    return parser


def _with_config(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change single values")
    return parser


def _add_facts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--world-size", type=_positive, metavar="N", help="plan for N ranks")
    parser.add_argument("--train-samples", type=_positive, metavar="N", help="length of the training dataset")
    parser.add_argument("--val-samples", type=_positive, metavar="N", action="append", help="length of a validation dataset, once each")
    parser.add_argument("--device", choices=("cpu", "cuda"))


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 19 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def given_facts(arguments: argparse.Namespace, path: str) -> Facts:
    """The facts the command line states; --world-size stands for a launcher with so many ranks."""
    world = arguments.world_size
    launched = () if world in (None, 1) else (("RANK", "0"), ("WORLD_SIZE", str(world)))
    return Facts(
        environment=launched if world is not None else None, world_size=world, train_samples=arguments.train_samples,
        val_samples=tuple(arguments.val_samples) if arguments.val_samples else None, device_type=arguments.device,
        config_stem=pathlib.Path(path).stem,
    )  # fmt: skip


def with_places(error: ConfigError, source: files.Source | None) -> ConfigError:
    """The same problems, each with the file and line its value came from."""
    if source is None:
        return error
    return ConfigError([p if p.where else located(p, source.where(p.path)) for p in error.problems])


def complain(problems: Sequence[Problem], name: str) -> None:
    """Every problem on stderr, one a line, under a heading that counts them."""
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    say(f"flexcore: {name}: {count}", *(f"  {p}" for p in problems), file=sys.stderr)


def say(*lines: str, file: Any = None) -> None:
    """Print, whatever the text holds and the terminal's encoding is."""
    stream = file or sys.stdout
    for line in lines:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _plan(arguments: argparse.Namespace) -> int:
    source = None
    try:
        source = files.read(arguments.config, arguments.overrides)
        made = _probed(arguments, source) if arguments.probe else _dry(arguments, source)
    except ConfigError as error:
        complain(with_places(error, source).problems, arguments.config)
        return 2
    if arguments.output:
        pathlib.Path(arguments.output).write_text(made.to_json(indent=1), encoding="utf-8")
    say(made.to_json(indent=1) if arguments.format == "json" else str(made).rstrip("\n"))
    return 0


def _dry(arguments: argparse.Namespace, source: files.Source) -> "flexcore.Plan":
    """From config, flags and environment alone; work_dir is looked at, nothing is built."""
    from shell import probe

    facts = probe.environment(given_facts(arguments, arguments.config))
    facts = evolve(facts, entropy=None, started_at=None)
    first = flexcore.plan(source.data, facts, mode=arguments.mode)
    return flexcore.plan(first.config, probe.checkpoints(facts, first.config, first.names.work_dir), mode=arguments.mode)


def _probed(arguments: argparse.Namespace, source: files.Source) -> "flexcore.Plan":
    from shell.running import probed_plan

    return probed_plan(source.data, given_facts(arguments, arguments.config), arguments.mode)


def _lint(arguments: argparse.Namespace) -> int:
    from shell import probe

    worst = 0
    for path in arguments.configs:
        source = None
        try:
            source = files.read(path)
            found: Sequence[Problem] = flexcore.lint(source.data, probe.environment(given_facts(arguments, path)))
        except ConfigError as error:
            found = error.problems
        shown = [p for p in with_places(ConfigError(found), source).problems if p.severity != "info"]
        if shown:
            say(*(f"{path}: {p.severity}: {p}" for p in shown))
        worst = max(worst, int(bool(shown)))
    return worst


def _report(arguments: argparse.Namespace) -> int:
    from shell.report import report

    text, different = report(pathlib.Path(arguments.work_dir))
    say(text)
    return different


COMMANDS = {"plan": _plan, "lint": _lint, "report": _report}
