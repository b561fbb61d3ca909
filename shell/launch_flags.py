"""The flags of `flexcore plan --launch`: which there are, which go together, and what they ask for."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shell.words import plain, positive, time_limit

if TYPE_CHECKING:
    from flexcore.launch_scripts import Request

FLAGS: Mapping[str, tuple[str, ...]] = {
    "slurm": ("nodes", "nproc", "cpus", "time", "partition"),
    "torchrun": ("nodes", "nproc", "cpus"),
    "mpi": ("nodes", "nproc", "cpus"),
    "k8s": ("nodes", "nproc", "image"),
}
"""What can be said of each way to start a run."""


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("launching", "print what starts the run, instead of its plan")
    group.add_argument("--launch", choices=tuple(FLAGS), help="a batch script, a command line or a manifest")
    group.add_argument("--nodes", type=positive, metavar="N", help="hosts (1)")
    group.add_argument("--nproc", type=positive, metavar="N", help="ranks on each (1)")
    group.add_argument("--cpus", type=positive, metavar="N", help="cores of each rank (1)")
    group.add_argument("--time", type=time_limit, metavar="D-HH:MM:SS", help="of a Slurm job")
    group.add_argument("--partition", type=plain, metavar="NAME", help="of a Slurm cluster")
    group.add_argument("--image", type=plain, metavar="NAME", help="the container Kubernetes runs")


def misused(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the flags taken together, in words."""
    known = dict.fromkeys(name for names in FLAGS.values() for name in names)
    given = [name for name in known if getattr(arguments, name) is not None]
    if arguments.launch is None:
        return f"--{given[0]}: belongs to --launch. Say what is to start the run." if given else None
    strange = [name for name in given if name not in FLAGS[arguments.launch]]
    if strange:
        return f"--{strange[0]}: means nothing to --launch {arguments.launch}. Leave it out."
    if arguments.launch == "k8s" and arguments.image is None:
        return "--image: is missing. Name the container that holds flexcore and the config."
    other = next((flag for flag in ("probe", "why", "world_sizes") if getattr(arguments, flag)), None)
    if other is not None:
        flag = "--world-size" if other == "world_sizes" else f"--{other}"
        return (
            f"{flag}: does not go with --launch, which plans for --nodes times --nproc ranks. Leave it out."
        )
    return None


def request(arguments: argparse.Namespace) -> "Request":
    from flexcore.launch_scripts import Request

    return Request(
        config=arguments.config,
        overrides=tuple(arguments.overrides),
        nodes=arguments.nodes or 1,
        nproc=arguments.nproc or 1,
        time=arguments.time,
        partition=arguments.partition,
        cpus=arguments.cpus,
        image=arguments.image,
    )
