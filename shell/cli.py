"""The flexcore command: reads arguments and files, prints, and turns every ending into its exit code."""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from attrs import evolve

import flexcore
from flexcore.facts import Facts
from flexcore.problems import ConfigError, Problem, located
from shell import checkpoint_commands, files, launch_flags
from shell.words import counted, positive, sizes

MODES = ("run", "val", "test")

# What settles an unknown of a plan, by the fact it waits for; the facts left out are there once a run starts.
FLAG_OF_FACT: Mapping[str, str] = {
    "world_size": "--world-size N",
    "device_type": "--device cpu",
    "train_samples": "--train-samples N",
    "val_samples": "--val-samples N",
    "test_samples": "--test-samples N",
    "train_batches": "--probe",
    "train_batch_size": "--probe",
    "hooks": "--probe",
    "parameters": "--probe",
    "modules": "--probe",
    "device_memory": "--probe",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Parse, dispatch, exit. `run`, `val` and `test` leave without interpreter teardown (see processes.leave)."""
    arguments = parsed(argv)
    sys.path.insert(0, "")
    if arguments.command in MODES:
        from shell.running import run_command

        run_command(arguments, list(sys.argv[1:] if argv is None else argv))
    try:
        code = COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `flexcore plan ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + 13
    sys.exit(code)


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; overrides may also follow options, which argparse alone does not let them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    takes = hasattr(arguments, "overrides")
    strange = [word for word in rest if word.startswith("-") or not takes]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if takes:
        arguments.overrides += rest
    if arguments.command in ("val", "test"):
        arguments.overrides = with_checkpoint(arguments.overrides)
    return arguments


def with_checkpoint(words: Sequence[str]) -> list[str]:
    """Overrides of an evaluation, with a checkpoint named first of all as the one whose weights are evaluated."""
    if not words or "=" in words[0] or words[0].startswith("~"):
        return list(words)
    return [f"load_from={json.dumps(words[0])}", "resume=False", *words[1:]]


class _Version(argparse.Action):
    """Looks the version up when it is asked for, since importlib.metadata takes as long to load as a plan."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            say(f"flexcore {version('flexcore')}")
        except PackageNotFoundError:
            say("flexcore (run from its source, not installed)")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    text = "Plan a PyTorch training run, then do exactly that."
    parser = argparse.ArgumentParser(prog="flexcore", description=text)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("run", "train as planned"), ("val", "validate"), ("test", "test")):
        one = _with_config(commands, name, text)
        ranks = "start N ranks on this host through torchrun's agent"
        one.add_argument("--nproc", type=positive, metavar="N", help=ranks)
        again = "start them again after a crash or a hang, up to N times"
        one.add_argument("--max-restarts", type=counted, metavar="N", default=0, help=again)
        one.add_argument("--smoke", action="store_true", help="one batch of everything, then done")
        one.add_argument("--quiet", action="store_true", help="do not print the plan first")
    plan = _with_config(commands, "plan", "print what a run would do; no torch needed")
    _add_facts(plan, several=True)
    plan.add_argument("--why", metavar="KEY", help="say where one value comes from, and nothing else")
    plan.add_argument("--mode", choices=("train", "val", "test"), default="train")
    plan.add_argument("--format", choices=("text", "json"), default="text")
    everything = "build model and data, so that nothing stays unknown"
    plan.add_argument("--probe", action="store_true", help=everything)
    plan.add_argument("-o", dest="output", metavar="FILE", help="write the plan as JSON")
    launch_flags.add(plan)
    lint = commands.add_parser("lint", help="report every problem of a config; no torch needed")
    lint.add_argument("configs", nargs="+", metavar="CONFIG")
    _add_facts(lint)
    report = commands.add_parser("report", help="compare what was planned with what happened")
    report.add_argument("work_dir")
    checkpoint_commands.add(commands)
    return parser


def _with_config(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change single values")
    return parser


def _add_facts(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    if several:
        text = "plan for N ranks; several are laid side by side"
        parser.add_argument(
            "--world-size", type=sizes, metavar="N[,N...]", default=(), dest="world_sizes", help=text
        )
    else:
        parser.add_argument("--world-size", type=positive, metavar="N", help="plan for N ranks")
    parser.add_argument("--train-samples", type=positive, metavar="N", help="length of the training dataset")
    for mode, what in (("val", "validation"), ("test", "test")):
        once_each = f"length of a {what} dataset, once each"
        parser.add_argument(f"--{mode}-samples", type=positive, metavar="N", action="append", help=once_each)
    parser.add_argument("--device", choices=("cpu", "cuda"))


def given_facts(arguments: argparse.Namespace, path: str) -> Facts:
    """The facts the command line states; --world-size or --launch stands for a launcher with so many ranks."""
    world = arguments.world_size
    launched = () if world in (None, 1) else (("RANK", "0"), ("WORLD_SIZE", str(world)))
    if getattr(arguments, "launch", None) is not None:
        from flexcore.launch_scripts import environment

        asked = launch_flags.request(arguments)
        world, launched = asked.nodes * asked.nproc, environment(arguments.launch, asked)
    return Facts(
        environment=launched if world is not None else None,
        world_size=world,
        train_samples=arguments.train_samples,
        val_samples=tuple(arguments.val_samples) if arguments.val_samples else None,
        test_samples=tuple(arguments.test_samples) if arguments.test_samples else None,
        device_type=arguments.device,
        config_stem=pathlib.Path(path).stem,
    )


def with_places(error: ConfigError, source: files.Source | None) -> ConfigError:
    """The same problems in the order of the config's keys, each with the file and line its value came from."""
    if source is None:
        return error
    keys = {key: place for place, key in enumerate(source.data)}
    ordered = sorted(error.problems, key=lambda p: keys.get(p.path[0], len(keys)) if p.path else -1)
    return ConfigError([p if p.where else located(p, source.where(p.path)) for p in ordered])


def complain(problems: Sequence[Problem], name: str) -> None:
    """Every problem on stderr, one a line, under a heading that counts them."""
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    say(f"flexcore: {name}: {count}", *(f"  {p}" for p in problems), file=sys.stderr)


def say(*lines: str, file: Any = None) -> None:
    """Print, whatever the text holds and the terminal's encoding is."""
    stream = file or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for line in lines:
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _plan(arguments: argparse.Namespace) -> int:
    source = None
    worlds = arguments.world_sizes
    arguments.world_size = worlds[0] if worlds else None
    misused = launch_flags.misused(arguments)
    if misused is not None:
        say(f"flexcore: {misused}", file=sys.stderr)
        return 2
    try:
        source = files.read(arguments.config, arguments.overrides)
        made = _probed(arguments, source) if arguments.probe else _dry(arguments, source)
        script = _script(made, arguments)
    except ConfigError as error:
        complain(with_places(error, source).problems, arguments.config)
        return 2
    if not _written(made, arguments.output):
        return 2
    if arguments.why is not None:
        return _why(made, arguments.why, source)
    if script is not None:
        say(script.rstrip("\n"))
        return 0
    if len(worlds) > 1:
        from flexcore.columns import side_by_side

        say(side_by_side(made, worlds))
        return 0
    if arguments.format == "json":
        say(made.to_json(indent=1))
    else:
        say(str(made).rstrip("\n"), *_hint(made))
    return 0


def _script(plan: "flexcore.Plan", arguments: argparse.Namespace) -> str | None:
    if arguments.launch is None:
        return None
    from flexcore.launch_scripts import launch_script

    return launch_script(plan, arguments.launch, launch_flags.request(arguments))


def _why(plan: "flexcore.Plan", key: str, source: files.Source) -> int:
    """Where one value comes from, with the file and line that gave it."""
    from flexcore.provenance import why

    try:
        found = why(plan, key)
    except KeyError as error:
        say(f"flexcore: --why: {error.args[0]}", file=sys.stderr)
        return 2
    where = source.where(found.path) if found.kind == "user" else None
    say(str(found), *([f"  at {where}"] if where else []))
    return 0


def _written(plan: "flexcore.Plan", output: str | None) -> bool:
    try:
        if output is not None:
            pathlib.Path(output).write_text(plan.to_json(indent=1), encoding="utf-8")
    except OSError as error:
        say(f"flexcore: -o {output}: cannot be written: {error.strerror or error}.", file=sys.stderr)
        return False
    return True


def _hint(plan: "flexcore.Plan") -> list[str]:
    """A last row naming the flags that settle what is unknown; none if only a run can tell."""
    waiting = [FLAG_OF_FACT[u.fact] for u in plan.unresolved if u.fact in FLAG_OF_FACT]
    flags = [flag for flag in dict.fromkeys(waiting) if flag != "--probe"]
    if not waiting:
        return []
    told = (
        f"{' '.join(flags)}, or --probe to build model and data" if flags else "--probe builds model and data"
    )
    return [f"{'to settle':<12} {told}"]


def _dry(arguments: argparse.Namespace, source: files.Source) -> "flexcore.Plan":
    """From config, flags, environment and what stands in work_dir; nothing is built, and twice gives the same."""
    from shell import probe

    facts = probe.environment(given_facts(arguments, arguments.config))
    facts = evolve(facts, entropy=None, started_at=None)
    first = flexcore.plan(source.data, facts, mode=arguments.mode)
    if len(arguments.world_sizes) > 1:
        return (
            first  # worlds side by side are what-ifs: what stands in work_dir belongs to one of them at most
        )
    facts = evolve(probe.checkpoints(facts, first.config, first.names), free_disk=None)
    return flexcore.plan(first.config, facts, mode=arguments.mode)


def _probed(arguments: argparse.Namespace, source: files.Source) -> "flexcore.Plan":
    from shell.running import probed_plan

    return probed_plan(source.data, given_facts(arguments, arguments.config), arguments.mode)


def _lint(arguments: argparse.Namespace) -> int:
    """0 clean, 1 findings, 2 a file that cannot be read at all."""
    from shell import probe

    worst = 0
    for path in arguments.configs:
        source = None
        try:
            source = files.read(path)
            facts = probe.environment(given_facts(arguments, path))
            found: Sequence[Problem] = flexcore.lint(source.data, facts)
        except ConfigError as error:
            found = error.problems
        shown = [p for p in with_places(ConfigError(found), source).problems if p.severity != "info"]
        say(*(f"{path}: {p.severity}: {p}" for p in shown))
        worst = max(worst, _severity_of(shown))
    return worst


def _severity_of(shown: Sequence[Problem]) -> int:
    return 2 if any(p.code == "FK001" for p in shown) else int(bool(shown))


def _report(arguments: argparse.Namespace) -> int:
    from shell.report import report

    text, code = report(pathlib.Path(arguments.work_dir))
    say(text, file=sys.stderr if code == 2 else sys.stdout)
    return code


COMMANDS = {
    "plan": _plan, "lint": _lint, "report": _report, "checkpoints": checkpoint_commands.checkpoints,
    "verify": checkpoint_commands.verify, "export": checkpoint_commands.export,
}  # fmt: skip
