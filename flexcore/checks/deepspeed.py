"""Rules of the DeepSpeed strategy: its configuration key by key, what it may not decide, and what it cannot do."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from flexcore import backends
from flexcore.components import Component, Data, thaw
from flexcore.config import AmpOptim, Config, OptimDict, OptimWrapper
from flexcore.deepspeed_keys import ELEMENTWISE, KEYS, OWN_AUTO, REFUSED, RESOLVED
from flexcore.facts import Facts
from flexcore.hooks import EMA, NaNGuard
from flexcore.plan_training import Batching
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.strategies import DeepSpeed

PLACE: Path = ("strategy",)
KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"), "int": ((int,), "an integer"), "number": ((int, float), "a number"),
    "text": ((str,), "text"), "list": ((list, tuple), "a list"),
}  # fmt: skip
ACCUMULATE = "optim_wrapper.accumulative_counts"


def deepspeed(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    strategy = backends.of(config)
    if strategy is None:
        return
    if isinstance(strategy.config, str):
        text = f"is the file {shown(strategy.config)}, and a plan reads none."
        remedy = "Write the file's content as a mapping, or keep the config in a file: what it names is read with it."
        yield problem("FK015", (*PLACE, "config"), text, remedy)
    wrapper = None if isinstance(config.optim_wrapper, OptimDict) else config.optim_wrapper
    yield from _written(strategy)
    yield from _zero(strategy)
    yield from _precision(wrapper, strategy, facts)
    yield from _clipping(wrapper, strategy)
    yield from _optimizer(wrapper, strategy)
    yield from _hooks(config, wrapper, strategy)
    if config.compile:
        text = "is known but not built yet with DeepSpeedStrategy."
        yield problem("FK014", ("compile",), text, "Remove it, or use DDPStrategy.")


def _written(strategy: DeepSpeed) -> Iterator[Problem]:
    """Every key of the configuration, where it was written."""
    written = thaw(strategy.config) if isinstance(strategy.config, Data) else {}
    given = {
        key: thaw(getattr(strategy, key)) for key in backends.SECTIONS if getattr(strategy, key) is not None
    }
    yield from _keys(written, KEYS, (*PLACE, "config"), "")
    yield from _keys(given, KEYS, PLACE, "")
    for key in written.keys() & given.keys():
        if written[key] != given[key]:
            text = "is set here and, differently, in config."
            yield problem("FK019", (*PLACE, key), text, "Keep one of the two.")


def _keys(
    values: Mapping[Any, Any], known: Mapping[str, Any], place: Path, section: str
) -> Iterator[Problem]:
    names = {name.removeprefix(section) for name in REFUSED if name.startswith(section)} | set(known)
    for key, value in values.items():
        path, full = (*place, key), f"{section}{key}"
        if full in REFUSED:
            code, why, remedy = REFUSED[full]
            yield problem(code, path, why, remedy)
        elif key not in known:
            whose = f"DeepSpeed's {section.removesuffix('.')}" if section else "DeepSpeed's configuration"
            remedy = did_you_mean(str(key), [n for n in names if "." not in n]).strip()
            text = f"is not a key of {whose}, which would ignore it."
            yield problem("FK010", path, text, remedy or "Remove it.")
        else:
            yield from _value(value, known[key], path, full)


def _value(value: Any, kind: Any, path: Path, full: str) -> Iterator[Problem]:
    if value == backends.AUTO and full not in RESOLVED and kind != "text":
        if full != OWN_AUTO:
            text = '"auto" is for a trainer to fill in, and nothing here says how.'
            yield problem("FP031", path, text, "Write a value, or leave it out for DeepSpeed's default.")
    elif value is None or (value == backends.AUTO and full in RESOLVED):
        return
    elif isinstance(kind, Mapping):
        if isinstance(value, dict):
            yield from _keys(value, kind, path, f"{full}.")
        else:
            yield problem("FK011", path, f"must be a mapping, got {shown(value)}.", "Write dict(...).")
    elif isinstance(kind, tuple):
        if value not in kind:
            names = ", ".join(f'"{name}"' for name in kind)
            yield problem("FK011", path, f"must be one of {names}, got {shown(value)}.", "Pick one of them.")
    else:
        types, words = KINDS[kind]
        if type(value) not in types:
            yield problem("FK011", path, f"must be {words}, got {shown(value)}.", "Correct the value.")
        elif type(value) is float and not math.isfinite(value):
            yield problem("FK020", path, f"must be finite, got {shown(value)}.", "Correct the value.")


def _where(strategy: DeepSpeed, *keys: str) -> Path:
    """Where a key was written: beside the type, or in config."""
    return (*PLACE, *keys) if getattr(strategy, keys[0]) is not None else (*PLACE, "config", *keys)


def _zero(strategy: DeepSpeed) -> Iterator[Problem]:
    section = backends.asked(strategy).get("zero_optimization")
    if not isinstance(section, dict):
        return
    stage = section.get("stage", 0)
    if type(stage) is int and not 0 <= stage <= 3:
        text = f"must be 0, 1, 2 or 3, got {shown(stage)}."
        yield problem("FK020", _where(strategy, "zero_optimization", "stage"), text, "Correct the value.")
    for key in ("offload_optimizer", "offload_param"):
        settings = section.get(key)
        if not isinstance(settings, dict):
            continue
        if settings.get("device") == "nvme":
            path = _where(strategy, "zero_optimization", key, "device")
            yield problem("FK014", path, '"nvme" is known but not built yet.', 'Write "cpu".')
        least = 1 if key == "offload_optimizer" else 3
        if type(stage) is int and stage < least and settings.get("device", "none") != "none":
            text = f"needs ZeRO stage {least} or more, and the stage is {stage}."
            yield problem("FK020", _where(strategy, "zero_optimization", key), text, f"Set stage={least}.")


def _precision(wrapper: OptimWrapper | None, strategy: DeepSpeed, facts: Facts) -> Iterator[Problem]:
    supported = {"bf16": facts.supports_bf16, "fp16": facts.supports_fp16}
    on = [key for key in ("bf16", "fp16") if backends.half(strategy, wrapper, key)]
    for key in on:
        path = _where(strategy, key)
        if supported[key] is False:
            text = f"is not supported on this {facts.device_type} device."
            yield problem("FP004", path, text, f"Remove {key}.")
        if backends.stage(strategy) == 0:
            text = "is known but not built yet at ZeRO stage 0, where no full-precision copy is shared out."
            yield problem("FK014", path, text, "Set zero_optimization=dict(stage=1).")
    if len(on) == 2:
        yield problem("FK019", _where(strategy, "fp16"), "is enabled, and so is bf16.", "Keep one of them.")
    yield from _autocast(strategy, wrapper, facts, on)


def _autocast(
    strategy: DeepSpeed, wrapper: OptimWrapper | None, facts: Facts, on: list[str]
) -> Iterator[Problem]:
    written = backends.asked(strategy).get("torch_autocast")
    asked = backends.amp_dtype(wrapper, facts) if isinstance(wrapper, AmpOptim) else None
    enabled = written.get("enabled") if isinstance(written, dict) else None
    if enabled is not None and enabled != (asked is not None and not on):
        text = f"has enabled={shown(enabled)}, and optim_wrapper says otherwise."
        path = (*PLACE, "config", "torch_autocast")
        yield problem("FK019", path, text, "Remove it; AmpOptimWrapper switches autocast on.")
    if asked is None:
        return
    half = {"bf16": "bfloat16", "fp16": "float16"}
    if on and half[on[0]] != asked:
        text = f"computes in {asked}, and strategy.{on[0]} in {half[on[0]]}."
        yield problem("FK019", ("optim_wrapper", "dtype"), text, "Keep one of them.")
    elif not on and asked == "float16":
        text = "float16 autocast scales the loss outside the engine, which would not know."
        remedy = 'Set dtype="bfloat16", or use OptimWrapper and strategy.fp16=dict(enabled=True).'
        yield problem("FP030", ("optim_wrapper", "dtype"), text, remedy)


def _clipping(wrapper: OptimWrapper | None, strategy: DeepSpeed) -> Iterator[Problem]:
    clip = wrapper.clip_grad if wrapper is not None else None
    written = backends.asked(strategy).get("gradient_clipping")
    place: Path = ("optim_wrapper", "clip_grad")
    if isinstance(written, int | float) and written < 0:
        yield problem(
            "FK020", _where(strategy, "gradient_clipping"), f"must be >= 0, got {written}.", "Correct it."
        )
    if clip is None:
        return
    if clip.type == "value":
        text = "clips by value, and DeepSpeed clips by the total norm alone."
        yield problem("FK014", (*place, "type"), text, "Write clip_grad=dict(max_norm=...).")
    elif clip.norm_type != 2:
        text = f"is {clip.norm_type:g}, and DeepSpeed clips by the norm of type 2."
        yield problem("FK014", (*place, "norm_type"), text, "Remove it.")
    elif isinstance(written, int | float) and written != clip.max_norm:
        text = f"has max_norm={clip.max_norm}, and strategy.gradient_clipping is {written}."
        yield problem("FK019", place, text, "Keep one of them.")
    if clip.error_if_nonfinite:
        text = "is known but not built yet with DeepSpeedStrategy."
        yield problem("FK014", (*place, "error_if_nonfinite"), text, "Use NaNGuardHook.")


def _optimizer(wrapper: OptimWrapper | None, strategy: DeepSpeed) -> Iterator[Problem]:
    """ZeRO steps flat shares of parameters: an optimizer must treat each element alone."""
    if wrapper is None or backends.stage(strategy) == 0:
        return
    optimizer = wrapper.optimizer
    place: Path = ("optim_wrapper", "optimizer")
    own = not isinstance(optimizer, Component) or (
        optimizer.is_import_path and not optimizer.type.startswith("torch.optim")
    )
    if isinstance(optimizer, Component) and not own and optimizer.name not in ELEMENTWISE:
        text = f"{optimizer.name} cannot step flat shares of parameters, which ZeRO gives it."
        remedy = "Use AdamW, or zero_optimization=dict(stage=0)."
        yield problem("FP032", (*place, "type"), text, remedy)
    elif own and not backends.asked(strategy).get("zero_allow_untested_optimizer"):
        text = "is not torch's, and ZeRO gives it flat shares of parameters."
        remedy = "If it treats each element alone, set zero_allow_untested_optimizer=True in strategy.config."
        yield problem("FP032", place, text, remedy)


def _hooks(config: Config, wrapper: OptimWrapper | None, strategy: DeepSpeed) -> Iterator[Problem]:
    places: list[tuple[Path, object]] = [
        (("default_hooks", slot.key), slot.hook) for slot in config.default_hooks
    ]
    places += [(("custom_hooks", i), hook) for i, hook in enumerate(config.custom_hooks)]
    halved = any(backends.half(strategy, wrapper, key) for key in ("bf16", "fp16"))
    for path, hook in places:
        if isinstance(hook, EMA) and (backends.stage(strategy) == 3 or halved):
            why = "in half precision" if halved else "shared out, at ZeRO stage 3"
            text = f"EMAHook averages the model's parameters, and they are {why}."
            yield problem(
                "FP032", path, text, "Use stage 2 or less without bf16 and fp16, or remove the hook."
            )
        if isinstance(hook, NaNGuard) and (hook.action, hook.check, hook.interval) != ("stop", "loss", 1):
            text = "NaNGuardHook can see no gradient and take no update back inside DeepSpeed's engine."
            yield problem("FP032", path, text, 'Use action="stop", check="loss" and interval=1.')


def identity(config: Config, batching: Batching | None) -> Iterator[Problem]:
    """DeepSpeed's own batch keys say what the plan says, or nothing."""
    strategy = backends.of(config)
    if strategy is None or batching is None:
        return
    asked = backends.asked(strategy)
    remedies = {
        "train_batch_size": "Remove it, or set global_batch_size.",
        "train_micro_batch_size_per_gpu": "Remove it, or set train_dataloader.batch_size.",
        "gradient_accumulation_steps": f"Remove it, or set {ACCUMULATE}.",
    }
    for key, planned in backends.identity(batching).items():
        written = asked.get(key)
        if planned is not None and type(written) is int and written != planned:
            path = _where(strategy, key) if hasattr(strategy, key) else (*PLACE, "config", key)
            yield problem("FD002", path, f"is {written}, and the plan's is {planned}.", remedies[key])
