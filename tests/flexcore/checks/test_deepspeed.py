"""The DeepSpeed strategy: every finding, whole, beside those of test_messages; and the settings that pass."""

from math import inf, nan

import pytest
from attrs import evolve

from tests.flexcore.base import KNOWN, base, said

TWO = evolve(KNOWN, world_size=2, train_samples=96)
CUDA = evolve(TWO, device_type="cuda")
ADAMW = {"optimizer": {"type": "AdamW", "lr": 0.1}}
AMP = {"type": "AmpOptimWrapper", **ADAMW}
AUTO = {"enabled": "auto"}


def deep(wrapper=ADAMW, custom_hooks=None, **settings):
    return base(
        strategy={"type": "DeepSpeedStrategy", **settings}, optim_wrapper=wrapper, custom_hooks=custom_hooks
    )


def zero(stage, **settings):
    return deep(zero_optimization={"stage": stage, **settings})


def untested(kind, **settings):
    return deep({"optimizer": {"type": kind, "lr": 0.1}}, zero_optimization={"stage": 1}, **settings)


def half(dtype):
    return {**AMP, "dtype": dtype}


CASES = {
    "a misspelt key of those refused": (deep(config={"zero_optimization": {"zenflo": {}}}), TWO, [
        "strategy.config.zero_optimization.zenflo: is not a key of DeepSpeed's zero_optimization, which would ignore it. Did you mean \"zenflow\"? [FK010]",
    ]),
    "a key with its section": (deep(config={"zero_optimization.zenflo": {}}), TWO, [
        "strategy.config.zero_optimization.zenflo: is not a key of DeepSpeed's configuration, which would ignore it. Did you mean \"zero_optimization\"? [FK010]",
    ]),
    "text is text": (deep(config={"tensorboard": {"enabled": True, "job_name": "auto"}}), TWO, []),
    "numbers": (deep(gradient_clipping=nan, config={"gradient_predivide_factor": inf, "fp16": {"loss_scale": "x"}}), TWO, [
        "strategy.config.gradient_predivide_factor: must be finite, got inf. Correct the value. [FK020]",
        "strategy.config.fp16.loss_scale: must be a number, got 'x'. Correct the value. [FK011]",
        "strategy.gradient_clipping: must be finite, got nan. Correct the value. [FK020]",
    ]),
    "a section that is none": (deep(config={"zero_optimization": 5}), TWO, [
        "strategy.config.zero_optimization: must be a mapping, got 5. Write dict(...). [FK011]",
    ]),
    "stages": (zero(-1), TWO, [
        "strategy.zero_optimization.stage: must be 0, 1, 2 or 3, got -1. Correct the value. [FK020]",
    ]),
    "offloading the optimizer of all": (zero(0, offload_optimizer={"device": "cpu"}), TWO, [
        "strategy.zero_optimization.offload_optimizer: needs ZeRO stage 1 or more, and the stage is 0. Set stage=1. [FK020]",
    ]),
    "offloading its shares": (zero(1, offload_optimizer={"device": "cpu"}), TWO, []),
    "offloading whole parameters": (zero(2, offload_param={"device": "cpu"}), TWO, [
        "strategy.zero_optimization.offload_param: needs ZeRO stage 3 or more, and the stage is 2. Set stage=3. [FK020]",
    ]),
    "offloading shares of them": (zero(3, offload_param={"device": "cpu"}), TWO, []),
    "offloading nowhere": (zero(0, offload_param={"pin_memory": True}, offload_optimizer={"device": "none"}), TWO, []),
    "bfloat16 as the wrapper asks": (deep(half("bfloat16"), [{"type": "EMAHook"}], bf16=AUTO), TWO, [
        "strategy.bf16: is known but not built yet at ZeRO stage 0, where no full-precision copy is shared out. Set zero_optimization=dict(stage=1). [FK014]",
        "custom_hooks.0: EMAHook averages the model's parameters, and they are in half precision. Use stage 2 or less without bf16 and fp16, or remove the hook. [FP032]",
    ]),
    "float16 as the wrapper asks": (deep(half("float16"), fp16=AUTO, zero_optimization={"stage": 1}), TWO, []),
    "autocast by default on a GPU": (deep(AMP), CUDA, [
        'optim_wrapper.dtype: float16 autocast scales the loss outside the engine, which would not know. Set dtype="bfloat16", or use OptimWrapper and strategy.fp16=dict(enabled=True). [FP030]',
    ]),
    "autocast by default on a CPU, and said so": (deep(AMP, config={"torch_autocast": {"enabled": True}}), TWO, []),
    "no autocast, and said so": (deep(config={"torch_autocast": {"enabled": False}}), TWO, []),
    "autocast of another kind": (deep(half("bfloat16"), fp16={"enabled": True}, zero_optimization={"stage": 1}), TWO, [
        "optim_wrapper.dtype: computes in bfloat16, and strategy.fp16 in float16. Keep one of them. [FK019]",
    ]),
    "torch's own by its path": (untested("torch.optim.AdamW"), TWO, []),
    "torch's that steps whole parameters": (untested("torch.optim:Adafactor"), TWO, [
        "optim_wrapper.optimizer.type: Adafactor cannot step flat shares of parameters, which ZeRO gives it. Use AdamW, or zero_optimization=dict(stage=0). [FP032]",
    ]),
    "one's own, allowed": (untested("pkg:Mine", config={"zero_allow_untested_optimizer": True}), TWO, []),
    "a guard that stops at the loss": (
        deep(custom_hooks=[{"type": "NaNGuardHook", "action": "stop", "check": "loss", "interval": 1}]), TWO, []
    ),
    "a guard that looks now and then": (
        deep(custom_hooks=[{"type": "NaNGuardHook", "action": "stop", "check": "loss", "interval": 2}]), TWO, [
        "custom_hooks.0: NaNGuardHook can see no gradient and take no update back inside DeepSpeed's engine. Use action=\"stop\", check=\"loss\" and interval=1. [FP032]",
    ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_deepspeed(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
