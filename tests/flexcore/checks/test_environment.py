"""Launcher, strategy, device, memory and torch.compile: every finding, whole; nothing follows from a key that did not parse."""

import pytest
from attrs import evolve

from flexcore.facts import ParameterFact
from tests.flexcore.base import KNOWN, base, said

PLAIN = {"optimizer": {"type": "SGD", "lr": 0.1}}
AMP = {"type": "AmpOptimWrapper", **PLAIN}
CUDA = evolve(KNOWN, device_type="cuda")
# 2**20 float32 parameters: they and their gradients are 8 MiB.
LARGE = evolve(CUDA, device_memory=2**20, parameters=(ParameterFact(name="w", shape=(2**20,)),))
AUTO = base(strategy="auto", launcher="pytorch")

CASES = {
    "deterministic alone": (base(randomness={"seed": 1, "deterministic": True}), KNOWN, []),
    "cudnn_benchmark alone": (base(env_cfg={"cudnn_benchmark": True}), KNOWN, []),
    "strategy misspelt": (base(strategy="DDPStratgy", launcher="none"), evolve(KNOWN, world_size=4), [
        "strategy.type: 'DDPStratgy' is not a known strategy. Did you mean \"DDPStrategy\"? [FK013]",
    ]),
    "launcher misspelt": (base(strategy="DDPStrategy", launcher="torch"), KNOWN, [
        "launcher: must be \"none\" or \"pytorch\" or \"slurm\" or \"mpi\" or None, got 'torch'. Correct the value. [FK011]",
    ]),
    "no launcher, as asked": (base(launcher="none"), evolve(KNOWN, environment=()), []),
    "a launcher nobody looked for": (base(launcher="slurm"), KNOWN, []),
    "two unrelated models": (base(strategy="SingleDeviceStrategy"), evolve(KNOWN, world_size=2), [
        "strategy: SingleDeviceStrategy in a world of 2 ranks would train 2 unrelated models. Use DDPStrategy, or start one process. [FP003]",
    ]),
    "states for one rank": (AUTO, LARGE, [
        'strategy: "auto" finds model states of 0.00781 GiB (parameters, gradients, optimizer) for devices of 0.000977 GiB. Use a smaller model or optimizer state, larger devices, or more ranks. [FP007]',
    ]),
    "states for three": (AUTO, evolve(LARGE, world_size=3), [
        'strategy: "auto" finds model states of 0.00781 GiB (parameters, gradients, optimizer), in 3 shares for devices of 0.000977 GiB. Use a smaller model or optimizer state, larger devices, or more ranks. [FP007]',
    ]),
    "states for how many ranks": (AUTO, evolve(LARGE, world_size=None), [
        'strategy: "auto" chose FSDPStrategy: launcher pytorch started ranks; model states of 0.00781 GiB need the shares on devices of 0.000977 GiB. Name the strategy to fix it. [FP009]',
    ]),
    "states that just fit": (AUTO, evolve(LARGE, device_memory=2**23), [
        'strategy: "auto" chose DDPStrategy: launcher pytorch started 1 rank; model states of 0.00781 GiB fit devices of 0.00781 GiB. Name the strategy to fix it. [FP009]',
    ]),
    "compile": (base(compile={"qqqqq": 1, "dynamic": "x", "options": 3, "mode": None, "disable": None}), KNOWN, [
        "compile.qqqqq: is not a setting of torch.compile. Known: backend, mode, dynamic, fullgraph, options, disable, target. [FK010]",
        "compile.dynamic: must be true or false or None, got 'x'. Correct the value. [FK011]",
        "compile.options: must be a mapping or None, got 3. Correct the value. [FK011]",
        "compile.disable: must be true or false, got None. Correct the value. [FK011]",
    ]),
    "compile with its last mode": (base(compile={"mode": "defualt", "options": None}), KNOWN, [
        "compile.mode: 'defualt' is not a mode of torch.compile. Did you mean \"default\"? [FK020]",
    ]),
    "bfloat16, the CPU's default, for the second of two": (
        base(optim_wrapper={"a": PLAIN, "b": AMP}), evolve(KNOWN, supports_bf16=False), [
        "optim_wrapper.b.dtype: bfloat16 autocast is not supported on this cpu device. Use OptimWrapper. [FP004]",
    ]
    ),
    "float16, without bfloat16 either": (
        base(optim_wrapper={**AMP, "dtype": "float16"}), evolve(CUDA, supports_fp16=False, supports_bf16=False), [
        "optim_wrapper.dtype: float16 autocast is not supported on this cuda device. Use OptimWrapper. [FP004]",
    ]
    ),
    "float16, CUDA's default": (base(optim_wrapper=AMP), evolve(CUDA, supports_fp16=True, supports_bf16=False), []),
    "nccl on a GPU": (base(env_cfg={"dist_cfg": {"backend": "nccl"}}), CUDA, []),
    "gloo on a GPU": (base(env_cfg={"dist_cfg": {"backend": "gloo"}}), CUDA, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_environment(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
