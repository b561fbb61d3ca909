"""`flexcore checkpoints`, `verify` and `export`: their arguments, and what they print; the work is done elsewhere."""

import argparse
import pathlib
import sys
from typing import Any

from shell.words import size

REFUSED = 4  # a checkpoint that cannot be used, as for `run`


def add(commands: Any) -> None:
    listing = commands.add_parser("checkpoints", help="list what a run has saved; no torch needed")
    listing.add_argument("work_dir", metavar="WORK_DIR", type=pathlib.Path)
    listing.add_argument("--quick", action="store_true", help="look at sizes only, hash nothing")
    verify = commands.add_parser("verify", help="hash every file of checkpoints; no torch needed")
    verify.add_argument("places", metavar="CHECKPOINT", nargs="+", type=pathlib.Path, help="or a WORK_DIR")
    export = commands.add_parser("export", help="write a checkpoint's weights as safetensors")
    export.add_argument("checkpoint", metavar="CHECKPOINT", type=pathlib.Path)
    export.add_argument("target", metavar="TARGET", help="FILE.safetensors, a directory, or the URL of one")
    export.add_argument("--averages", action="store_true", help="EMAHook's averages instead of the weights")
    most = "in a directory, start another file before one grows larger (5GB)"
    export.add_argument("--max-shard-size", type=size, metavar="SIZE", default=5 * 10**9, help=most)


def checkpoints(arguments: argparse.Namespace) -> int:
    from shell.inventory import listed

    return _said(*listed(arguments.work_dir, quick=arguments.quick))


def verify(arguments: argparse.Namespace) -> int:
    from shell.inventory import verified

    return _said(*verified(arguments.places))


def _said(text: str, code: int) -> int:
    print(text, file=sys.stderr if code == 2 else sys.stdout)
    return code


def export(arguments: argparse.Namespace) -> int:
    from shell.loggers.packages import installed

    if not installed("torch"):
        text = "`export` needs torch, which is not installed here"
        print(f'flexcore: {text}. Install it with pip install "flexcore[train]".', file=sys.stderr)
        return 2
    from shell import exporting
    from shell.checkpoints import DamagedCheckpoint
    from shell.results import CheckpointRefused

    try:
        count = exporting.export(
            arguments.checkpoint, arguments.target, averages=arguments.averages, max_shard=arguments.max_shard_size,
        )  # fmt: skip
    except (DamagedCheckpoint, CheckpointRefused) as error:
        print(f"flexcore: {error}", file=sys.stderr)
        return REFUSED
    except exporting.ExportRefused as error:
        print(f"flexcore: {error}", file=sys.stderr)
        return 2
    print(f"{count:,} tensors in {arguments.target}")
    return 0
