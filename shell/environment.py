"""Sets this process up as the plan says: device, seeds, determinism, limits; and puts things back after."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flexcore.run_plan import Plan
from flexcore.sampling import derived_seed
from shell.data import seed_everything
from shell.processes import Group


def device_of(plan: Plan, group: Group) -> torch.device:
    """The device of this rank."""
    if plan.environment.device_type == "cuda":
        device = torch.device("cuda", group.rank.local_rank)
        torch.cuda.set_device(device)
        return device
    return torch.device(plan.environment.device_type or "cpu")


@contextmanager
def prepared(plan: Plan) -> Iterator[None]:
    """Seeded alike on every rank, so that models start equal; `diverge` sets ranks apart afterwards."""
    env = plan.environment
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
    _deterministic(env.deterministic)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = (
        env.cudnn_benchmark,
        env.deterministic,
    )
    _raise_file_limit(env.resource_limit)
    settle(plan)
    seed_everything(env.seed or 0)
    try:
        yield
    finally:
        _deterministic(before[0])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[1:]


def settle(plan: Plan) -> None:
    """What waits for modules that only the run's own objects import: OpenCV's threads."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(plan.environment.opencv_num_threads)


def _deterministic(wanted: bool) -> None:
    """Set only where it is not so already: setting it imports the compiler, 1.5 s an evaluation need not pay."""
    if torch.are_deterministic_algorithms_enabled() != wanted:
        torch.use_deterministic_algorithms(wanted)


AFTER_MODEL = (0, 0, 0)  # ranks and resumes take seeds of one and two numbers


def apart_from_model(plan: Plan) -> None:
    """What data and hooks draw as they are built depends neither on the model nor on who initialised it."""
    seed_everything(derived_seed(plan.environment.seed or 0, *AFTER_MODEL))


def diverge(plan: Plan, data_rank: int) -> None:
    """Give each rank a stream of its own if the plan says so; else all go on alike (FlexibleRunner's default).

    data_rank: ranks that compute one copy of the model together draw alike always.
    """
    if plan.environment.diff_rank_seed:
        seed_everything(derived_seed(plan.environment.seed or 0, data_rank))


def reseed(plan: Plan, iteration: int, data_rank: int) -> None:
    """RNG for a resume on another number of ranks: a pure function of (seed, iteration, rank)."""
    seed_everything(derived_seed(plan.environment.seed or 0, iteration, data_rank))


def _raise_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
