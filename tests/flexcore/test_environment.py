"""How every process is set up, from the config, else the facts, else a default."""

import pytest
from attrs import evolve

from flexcore import Facts
from flexcore.config import Config
from flexcore.converting import parse
from flexcore.environment import (
    chosen_launcher,
    chosen_strategy,
    data_parallel_size,
    environment,
    known_world_size,
)
from flexcore.run_plan import Environment
from flexcore.strategies import DDP, SingleDevice
from tests.strategies import checkpoint

TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "4"))
SLURM = (("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "3"))
USUAL = Environment(
    launcher="none", world_size=1, device_type=None, backend=None, timeout=1800.0, seed=None, seed_given=False,
    diff_rank_seed=False, deterministic=False, cudnn_benchmark=False, mp_start_method="fork", opencv_num_threads=0,
    resource_limit=4096, hang_timeout=300.0,
)  # fmt: skip


@pytest.mark.parametrize(("config", "facts", "launcher", "ranks"), [
    ({}, {}, "none", 1), ({}, {"environment": ()}, "none", 1), ({}, {"world_size": 1}, "none", 1),
    ({}, {"world_size": 2}, "pytorch", 2), ({}, {"environment": TORCHRUN}, "pytorch", 4),
    ({}, {"environment": TORCHRUN, "world_size": 5}, "pytorch", 5), ({}, {"environment": SLURM}, "slurm", 3),
    ({}, {"environment": SLURM, "world_size": 2}, "slurm", 2), ({"launcher": "pytorch"}, {}, "pytorch", None),
    ({"launcher": "none"}, {"environment": TORCHRUN}, "none", 1), ({"launcher": "mpi"}, {"environment": TORCHRUN}, "mpi", None),
])  # fmt: skip
def test_the_launcher_and_how_many_it_started(config, facts, launcher, ranks):
    asked, seen = parse(config), Facts(**facts)
    assert chosen_launcher(asked, seen) == launcher
    assert known_world_size(asked, seen) == ranks
    found = environment(asked, seen)
    assert (found.launcher, found.world_size) == (launcher, ranks)


@pytest.mark.parametrize(("strategy", "facts", "expected"), [
    (None, {}, SingleDevice()), (None, {"world_size": 2}, DDP()), ("auto", {}, SingleDevice()),
    ("auto", {"world_size": 2}, DDP()), ({"type": "auto", "static_graph": True}, {"world_size": 2}, DDP(static_graph=True)),
    ({"type": "auto", "static_graph": True}, {}, SingleDevice()), ("SingleDeviceStrategy", {"world_size": 2}, SingleDevice()),
    ({"type": "DDPStrategy", "static_graph": True}, {}, DDP(static_graph=True)),
])  # fmt: skip
def test_the_strategy_is_as_given_else_by_the_launcher(strategy, facts, expected):
    asked = parse({} if strategy is None else {"strategy": strategy})
    assert chosen_strategy(asked, Facts(**facts)) == expected


def test_ranks_see_different_data_under_a_distributed_strategy():
    assert [data_parallel_size(DDP(), ranks) for ranks in (None, 1, 4)] == [None, 1, 4]
    assert [data_parallel_size(SingleDevice(), ranks) for ranks in (None, 1, 4)] == [1, 1, 1]


@pytest.mark.parametrize(("config", "facts", "changes"), [
    ({}, {}, {}),
    ({}, {"device_type": "cuda"}, {"device_type": "cuda", "backend": "nccl"}),
    ({}, {"device_type": "cpu"}, {"device_type": "cpu", "backend": "gloo"}),
    ({}, {"device_type": "xpu"}, {"device_type": "xpu", "backend": "gloo"}),
    ({"env_cfg": {"dist_cfg": {"backend": "mpi", "timeout": 7}}}, {"device_type": "cuda"},
     {"device_type": "cuda", "backend": "mpi", "timeout": 7.0}),
    ({"env_cfg": {"mp_cfg": {"mp_start_method": "spawn", "opencv_num_threads": 2}, "resource_limit": 9}}, {},
     {"mp_start_method": "spawn", "opencv_num_threads": 2, "resource_limit": 9}),
    ({"env_cfg": {"cudnn_benchmark": True, "hang_timeout": 60}}, {}, {"cudnn_benchmark": True, "hang_timeout": 60.0}),
    ({"env_cfg": {"cudnn_benchmark": True}, "randomness": {"deterministic": True}}, {}, {"deterministic": True}),
    ({"randomness": {"diff_rank_seed": True}}, {}, {"diff_rank_seed": True}),
    ({"randomness": {"seed": 0}}, {"entropy": 9}, {"seed": 0, "seed_given": True}),
    ({}, {"entropy": 2**32 + 9}, {"seed": 9}), ({}, {"entropy": 0}, {"seed": 0}),
    ({"randomness": {"seed": 2**32 - 1}}, {}, {"seed": 2**32 - 1, "seed_given": True}),
])  # fmt: skip
def test_process_settings(config, facts, changes):
    assert environment(parse(config), Facts(**facts)) == evolve(USUAL, **changes)


def test_a_resumed_run_keeps_the_seed_it_was_started_with():
    """Recorded in the checkpoint; a seed in the config is as given all the same."""
    stands = checkpoint(25, trajectory=(("seed", "12"),))
    seen = Facts(checkpoints=(stands,), entropy=9)
    assert environment(Config(resume=True), seen).seed == 12
    assert environment(Config(), seen).seed == 9
    assert environment(parse({"resume": True, "randomness": {"seed": 3}}), seen).seed == 3
