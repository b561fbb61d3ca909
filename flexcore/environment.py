"""Launcher, ranks, strategy and process settings, chosen from config and facts."""

from attrs import asdict

from flexcore import launchers, starting
from flexcore.config import Config
from flexcore.facts import Facts
from flexcore.memory import model_states
from flexcore.run_plan import Environment
from flexcore.strategies import DDP, DISTRIBUTED, FSDP, Auto, SingleDevice, Strategy, TensorParallel
from flexcore.tensor_parallel import group_size


def chosen_launcher(config: Config, facts: Facts) -> str:
    """As given, else what the environment shows; a world of several ranks without one was started by torchrun."""
    if config.launcher is not None:
        return config.launcher
    found = launchers.infer(dict(facts.environment or ()))
    return "pytorch" if found == "none" and (facts.world_size or 1) > 1 else found


def known_world_size(config: Config, facts: Facts) -> int | None:
    """Ranks in the run: the fact, else what the launcher's variables say; 1 without a launcher."""
    launcher = chosen_launcher(config, facts)
    if facts.world_size is not None:
        return facts.world_size
    return 1 if launcher == "none" else launchers.world_size(launcher, dict(facts.environment or ()))


def chosen_strategy(config: Config, facts: Facts) -> Strategy:
    """As given, else SingleDevice without a launcher and DDP with one; Auto takes FSDP where DDP's states do not fit."""
    given = config.strategy
    if given is not None and not isinstance(given, Auto):
        return given
    if chosen_launcher(config, facts) == "none":
        return SingleDevice()
    if given is None:
        return DDP()
    needed, there = model_states(config, facts), facts.device_memory
    return (
        FSDP()
        if needed is not None and there is not None and needed > there
        else DDP(**asdict(given, recurse=False))
    )


def data_parallel_size(strategy: Strategy, world_size: int | None) -> int | None:
    """How many see different samples: every rank, or every group of those that compute a copy together."""
    if not isinstance(strategy, DISTRIBUTED):
        return 1
    if isinstance(strategy, TensorParallel) and strategy.size is None:
        return 1
    group = group_size(strategy, world_size)
    return None if world_size is None or not group else world_size // group


def environment(config: Config, facts: Facts) -> Environment:
    env, randomness = config.env_cfg, config.randomness
    defaults = {"cuda": "nccl", None: None}
    seed = randomness.seed
    if seed is None:
        recorded = starting.recorded_seed(config, facts)
        seed = facts.entropy if recorded is None else recorded
    return Environment(
        launcher=chosen_launcher(config, facts),
        world_size=known_world_size(config, facts),
        device_type=facts.device_type,
        backend=env.dist_cfg.backend or defaults.get(facts.device_type, "gloo"),
        timeout=env.dist_cfg.timeout,
        seed=None if seed is None else seed % 2**32,
        seed_given=randomness.seed is not None,
        diff_rank_seed=randomness.diff_rank_seed,
        deterministic=randomness.deterministic,
        cudnn_benchmark=env.cudnn_benchmark and not randomness.deterministic,
        mp_start_method=env.mp_cfg.mp_start_method,
        opencv_num_threads=env.mp_cfg.opencv_num_threads,
        resource_limit=env.resource_limit,
        hang_timeout=env.hang_timeout,
    )
