"""A plan in the engine's own words: the complete configuration DeepSpeed is given. Nothing in it is left open."""

from typing import Any

from flexcore.components import Data, thaw
from flexcore.config import AmpOptim, ClipGrad, Config, OptimWrapper
from flexcore.deepspeed_keys import RESOLVED
from flexcore.facts import Facts
from flexcore.plan_training import Batching, Precision
from flexcore.run_plan import Plan
from flexcore.strategies import DeepSpeed

AUTO = "auto"
NEVER = 10**13  # steps between DeepSpeed's own progress lines: the log is ours
SECTIONS = (
    "zero_optimization", "gradient_clipping", "fp16", "bf16", "amp", "activation_checkpointing", "aio",
    "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "steps_per_print",
)  # fmt: skip
"""Settings of the strategy that are keys of DeepSpeed's configuration; each stands before `config`'s own."""


def asked(strategy: DeepSpeed) -> dict[str, Any]:
    """DeepSpeed's configuration as it was written, in plain data; None and what the plan says in place of "auto" are left out."""
    written = thaw(strategy.config) if isinstance(strategy.config, Data) else {}
    given = {key: thaw(getattr(strategy, key)) for key in SECTIONS if getattr(strategy, key) is not None}
    return {
        str(key): _settled(str(key), value)
        for key, value in {**written, **given}.items()
        if value is not None and not (value == AUTO and key in RESOLVED)
    }


def _settled(section: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: item
        for key, item in value.items()
        if item is not None and not (item == AUTO and f"{section}.{key}" in RESOLVED)
    }


def of(config: Config) -> DeepSpeed | None:
    """The DeepSpeed strategy, if that is what was asked for."""
    return config.strategy if isinstance(config.strategy, DeepSpeed) else None


def stage(strategy: DeepSpeed) -> int:
    """0: every rank holds all; 1: optimizer state is shared out; 2: and gradients; 3: and parameters."""
    section = asked(strategy).get("zero_optimization")
    found = section.get("stage") if isinstance(section, dict) else None
    return found if type(found) is int else 0


def half(strategy: DeepSpeed, wrapper: OptimWrapper | None, key: str) -> bool:
    """Whether the section "bf16" or "fp16" is on; "auto": if AmpOptimWrapper asks for that dtype."""
    section = getattr(strategy, key) or (
        strategy.config.get(key) if isinstance(strategy.config, Data) else None
    )
    enabled = section.get("enabled") if isinstance(section, Data) else None
    if enabled == AUTO:
        return isinstance(wrapper, AmpOptim) and wrapper.dtype == {"bf16": "bfloat16", "fp16": "float16"}[key]
    return enabled is True


def precision(strategy: DeepSpeed, wrapper: OptimWrapper, facts: Facts) -> Precision:
    """The model in half precision where a section says so, else autocast where AmpOptimWrapper does."""
    if half(strategy, wrapper, "bf16"):
        return Precision(dtype="bfloat16", casts_model=True)
    if half(strategy, wrapper, "fp16"):
        return Precision(dtype="float16", casts_model=True)
    return Precision(dtype=amp_dtype(wrapper, facts)) if isinstance(wrapper, AmpOptim) else Precision()


def amp_dtype(wrapper: AmpOptim, facts: Facts) -> Any:
    """torch.autocast's default type where none is given."""
    return wrapper.dtype or ("float16" if facts.device_type == "cuda" else "bfloat16")


def clipping(strategy: DeepSpeed, wrapper: OptimWrapper) -> ClipGrad | None:
    """optim_wrapper's clip_grad, else gradient_clipping; 0 is none."""
    written = asked(strategy).get("gradient_clipping")
    if wrapper.clip_grad is not None or not isinstance(written, int | float) or written == 0:
        return wrapper.clip_grad
    return ClipGrad(max_norm=float(written))


def native(plan: Plan) -> dict[str, Any] | None:
    """All that DeepSpeed is told, as fresh plain data; None for another strategy, or while a batch size is unknown.

    Its own defaults stand for what neither config nor plan speaks of, but never for what the plan decides: its
    gradient_clipping, for one, is 1.0 where nothing is written.
    """
    if not isinstance(plan.strategy, DeepSpeed) or plan.optimizer is None or plan.batching is None:
        return None
    batch = identity(plan.batching)
    if None in batch.values():
        return None
    made = asked(plan.strategy)
    zero = {"stage": stage(plan.strategy), **made.pop("zero_optimization", {})}
    clip, told = plan.optimizer.clip_grad, plan.optimizer.precision
    return {
        "steps_per_print": NEVER,
        "timers": {"throughput": {"enabled": False}},
        "zero_force_ds_cpu_optimizer": False,
        **made,
        **batch,
        "gradient_clipping": clip.max_norm if clip is not None else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
        "bf16": {**made.get("bf16", {}), "enabled": told.casts_model and told.dtype == "bfloat16"},
        "fp16": {**made.get("fp16", {}), "enabled": told.casts_model and told.dtype == "float16"},
        "torch_autocast": _autocast(told),
    }  # fmt: skip


def identity(batching: Batching) -> dict[str, int | None]:
    """The batch identity under DeepSpeed's names."""
    return {
        "train_batch_size": batching.global_batch_size,
        "train_micro_batch_size_per_gpu": batching.micro_batch_size,
        "gradient_accumulation_steps": batching.gradient_accumulation_steps,
    }


def _autocast(told: Precision) -> dict[str, Any]:
    """Autocast as DDP has it: gradients stay in full precision between ranks too, so no module is "safe" in less."""
    if told.dtype is None or told.casts_model:
        return {"enabled": False}
    return {"enabled": True, "dtype": told.dtype, "lower_precision_safe_modules": []}
