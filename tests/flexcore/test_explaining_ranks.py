"""Where a plan runs and how its ranks share the model, in whole lines."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts
from flexcore.explaining_ranks import ranks_of
from tests.flexcore.base import KNOWN, base
from tests.flexcore.test_sharding import SEEN
from tests.strategies import checkpoint

SEED = "seed         1 (given)"


def lines(changes, facts):
    return list(ranks_of(flexcore.plan(base(**changes), facts)))


AMONG = {"launcher": "pytorch"}
UNSEEDED = {"randomness": {}}


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, KNOWN, ["runs on      SingleDeviceStrategy, 1 rank on cpu", SEED]),
        (AMONG, KNOWN, ["runs on      DDPStrategy, 1 rank on cpu over gloo (launcher pytorch)", SEED]),
        ({**UNSEEDED, **AMONG}, Facts(),
         ["runs on      DDPStrategy, ? (needs world_size) ranks on ? (needs device_type) over ? (launcher pytorch)",
          "seed         ? (needs entropy)"]),
        ({"launcher": "slurm"}, evolve(KNOWN, world_size=2000, device_type="cuda"),
         ["runs on      DDPStrategy, 2,000 ranks on cuda over nccl (launcher slurm)", SEED]),
        ({"randomness": {"deterministic": True}}, KNOWN,
         ["runs on      SingleDeviceStrategy, 1 rank on cpu", "seed         5 (drawn from entropy) deterministic algorithms"]),
        ({**UNSEEDED, "resume": True}, evolve(KNOWN, checkpoints=(checkpoint(50, trajectory=(("seed", "9"),)),)),
         ["runs on      SingleDeviceStrategy, 1 rank on cpu", "seed         9 (the checkpoint's)"]),
    ],
)  # fmt: skip
def test_where_it_runs_and_whose_seed(changes, facts, expected):
    assert lines(changes, facts) == expected


LINE = "runs on      FSDPStrategy, 4 ranks on cpu over gloo (launcher pytorch)"
BF16 = {"param_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"wrap": ["Block"], "reshard_after_forward": True}, ["shares       over 4 ranks; 2 units beside the whole"]),
        ({"wrap": ["Embedding"], "mixed_precision": {**BF16, "reduce_dtype": "float32"}, "cpu_offload": True,
          "reshard_after_forward": False},
         ["shares       over 4 ranks; 1 unit beside the whole, gathered until backward",
          "             computes in bfloat16, reduces in float32", "             shares rest in host memory"]),
        ({"mixed_precision": BF16, "activation_checkpointing": ["Block"]},
         ["shares       over 4 ranks; 0 units beside the whole", "             computes in bfloat16, reduces in bfloat16",
          "             activations of 2 modules are computed again in backward"]),
        ({"mixed_precision": {}, "shard_size": 2, "reshard_after_forward": 2},
         ["shares       over 2 ranks, 2 copies; 0 units beside the whole, shared by 2 ranks until backward",
          "             computes in the own dtype, reduces in the own dtype"]),
        ({"meta_init": True},
         ["shares       over 4 ranks; 0 units beside the whole",
          "             weights are initialised on rank 0 alone, which deals them out"]),
    ],
)  # fmt: skip
def test_how_fsdp_shares_the_model(settings, expected):
    assert lines({"strategy": {"type": "FSDPStrategy", **settings}}, SEEN) == [LINE, *expected, SEED]


def test_shares_that_wait_for_the_model_and_the_ranks():
    nobody = evolve(SEEN, world_size=None, environment=None, modules=None)
    found = [
        lines({**AMONG, "strategy": {"type": "FSDPStrategy", **more}}, nobody)[1]
        for more in ({}, {"shard_size": 2})
    ]
    assert found == [
        "shares       over ? (needs world_size) ranks; ? (needs modules) units beside the whole",
        "shares       over 2 ranks; ? (needs modules) units beside the whole",
    ]


@pytest.mark.parametrize(
    ("stage", "shared"),
    [
        (0, "every rank holds all of it"), (1, "ranks share optimizer state"),
        (2, "ranks share optimizer state and gradients"), (3, "ranks share optimizer state, gradients and parameters"),
    ],
)  # fmt: skip
def test_what_each_zero_stage_shares(stage, shared):
    zero = {"type": "DeepSpeedStrategy", "zero_optimization": {"stage": stage}}
    changes = {"strategy": zero, "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}}, **AMONG}
    assert lines(changes, evolve(KNOWN, world_size=2)) == [
        "runs on      DeepSpeedStrategy, 2 ranks on cpu over gloo (launcher pytorch)",
        f"             ZeRO stage {stage}: {shared}",
        SEED,
    ]
