"""Inputs for fuzzing: valid configs of every feature, and what input number i makes of them. A function of (seed, i)."""

import json
import sys
from functools import cache
from random import Random
from typing import Any

import attrs
from attrs import evolve

import flexcore
from flexcore.facts import CheckpointFact, Facts, GroupFact, HookFact, ModuleFact, ParameterFact
from flexcore.hooks import STAGES
from tests.flexcore.base import DIGITS, KNOWN, base, validating
from tests.nasty import LIVE, NASTY, PLAIN

LOADER = {"dataset": {"type": "pkg:D", "root": "x", "shape": (3, 4)}, "batch_size": 4}
TESTING = {"test_dataloader": LOADER, "test_evaluator": ["pkg:M"], "test_cfg": {"dtype": "bfloat16"}}
CLOCKS = {"begin": 1, "end": 9, "by_epoch": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "digits": {**DIGITS, **TESTING},
    "sections": {
        **validating(**TESTING), "strategy": {"type": "SingleDeviceStrategy"}, "launcher": "none", "load_from": "a",
        "resume": False, "compile": {"mode": "default"}, "loss": "torch.nn:MSELoss", "global_batch_size": 128,
        "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
                    "dist_cfg": {"timeout": 5, "backend": "gloo"}, "resource_limit": 9},
        "log_processor": {"window_size": 3, "num_digits": 2, "mean_pattern": "loss|lr"}, "log_level": "INFO",
        "visualizer": {"type": "Visualizer", "vis_backends": ["LocalVisBackend", {"type": "TensorboardVisBackend"}]},
        "format_version": 1, "runner_type": "FlexibleRunner", "default_scope": "x", "init_weights_for_test_or_val": True,
        "data_preprocessor": {"type": "pkg:P", "mean": [1.0, 2.0]},
        "randomness": {"seed": 3, "deterministic": True, "diff_rank_seed": True},
    },
    "iterations": validating(
        train_cfg={"by_epoch": False, "max_iters": 40, "val_begin": 3, "val_interval": 5, "dynamic_intervals": [(20, 2)],
                   "max_time": 60.0},
        train_dataloader={**LOADER, "sampler": {"type": "InfiniteSampler", "seed": 4}, "num_workers": 2, "timeout": 3.0,
                          "persistent_workers": True, "prefetch_factor": 2, "num_batch_per_epoch": 7},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.1, **CLOCKS}, {"type": "CosineAnnealingLR", "begin": 9, "eta_min": 1e-4},
            {"type": "PolyMomentum", "power": 2, "eta_min_ratio": 0.5}, {"type": "StepParamScheduler", "param_name": "lr",
                                                                          "step_size": 3, "gamma": 0.5},
        ],
        optim_wrapper={"type": "AmpOptimWrapper", "dtype": "float16", "loss_scale": {"init_scale": 8.0, "growth_interval": 3},
                       "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "accumulative_counts": 3,
                       "accumulation_tail": "drop", "clip_grad": {"type": "value", "clip_value": 1.0}},
    ),
    "schedules": validating(param_scheduler=[
        {"type": "ConstantLR", "factor": 0.5, "begin": 0, "end": 2}, {"type": "ExponentialLR", "gamma": 0.9},
        {"type": "MultiStepLR", "milestones": [1, 2], "gamma": 0.5, "by_epoch": True, "convert_to_iter_based": True},
        {"type": "CosineRestartLR", "periods": [5, 5], "restart_weights": [1, 0.5], "eta_min": 1e-3, "by_epoch": False},
        {"type": "OneCycleParamScheduler", "param_name": "weight_decay", "eta_max": 0.3, "total_steps": 50,
         "by_epoch": False, "three_phase": True},
        {"type": "ReduceOnPlateauMomentum", "monitor": "acc", "rule": "greater", "patience": 2},
    ], optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3, "betas": (0.9, 0.99)}, "accumulation_tail": "step",
                      "accumulative_counts": 4}),
    "hooks": validating(
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 3, "by_epoch": False, "save_begin": 2,
                                      "max_keep_ckpts": 2, "save_best": ["acc", "x"], "rule": ["greater", "less"],
                                      "filename_tmpl": "it_{}.pth", "published_keys": ["state_dict", "hooks"]},
                       "logger": {"type": "LoggerHook", "interval": 3, "ignore_last": False}, "timer": None,
                       "mine": {"type": "pkg:Hook", "priority": "LOW", "x": [1]}},
        custom_hooks=[
            {"type": "EMAHook", "ema_type": "MomentumAnnealingEMA", "gamma": 5, "begin_iter": 3},
            {"type": "EarlyStoppingHook", "monitor": "acc", "patience": 3, "stopping_threshold": 0.5},
            {"type": "NaNGuardHook", "action": "skip", "check": "both"}, {"type": "SyncBuffersHook"},
            {"type": "EmptyCacheHook", "after_iter": True}, {"type": "ThroughputHook", "flops_per_sample": 1e9, "peak_flops": 1e12},
            {"type": "ProfilerHook", "schedule": {"wait": 1, "warmup": 1, "active": 2}, "json_trace_path": "t.json",
             "on_trace_ready": {"type": "log_trace"}},
            "pkg.hooks:Counter",
        ],
    ),
    "groups": base(
        strategy={"type": "DDPStrategy", "find_unused_parameters": True, "bucket_cap_mb": 3, "comm_hook": {"type": "fp16_compress"}, "sync_bn": False}, launcher="pytorch",
        auto_scale_lr={"enable": True, "base_batch_size": 16}, resume=True,
        optim_wrapper={"optimizer": {"type": "torch.optim.SGD", "lr": 0.1, "weight_decay": 1e-4}, "accumulative_counts": 2,
                       "clip_grad": {"max_norm": 1.0, "norm_type": 2.0},
                       "paramwise_cfg": {"norm_decay_mult": 0, "bias_lr_mult": 2.0, "custom_keys": {
                           "backbone": {"lr_mult": 0.1, "decay_mult": 0.5}, "head": {"lr": 0.3, "momentum": 0.5}}}},
        train_dataloader={**LOADER, "collate_fn": "pkg:c", "worker_init_fn": "pkg:w", "drop_last": True, "pin_memory": True,
                          "sampler": {"type": "DefaultSampler", "shuffle": False, "round_up": True}},
    ),
    "opaque": base(train_dataloader={"dataset": "pkg:D", "batch_sampler": {"type": "pkg:B", "batch_size": 3}},
                   strategy="auto", val_dataloader=[LOADER, {**LOADER, "drop_last": True}], val_cfg={"type": "ValLoop", "fp16": True},
                   val_evaluator={"a": {"type": "pkg:A"}, "b": {"type": "pkg:B"}}),
    "several": base(
        optim_wrapper={"backbone": {"optimizer": {"type": "SGD", "lr": 0.1}, "clip_grad": {"max_norm": 1.0}},
                       "head": {"type": "AmpOptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3}, "dtype": "bfloat16"}},
        param_scheduler={"backbone": [{"type": "LinearLR", "end": 2}], "head": [{"type": "CosineAnnealingLR", "T_max": 3}]},
        strategy={"type": "DDPStrategy"},
    ),
    "own loops": validating(
        train_cfg={"type": "pkg:Loop", "max_epochs": 3, "teacher": {"momentum": 0.9}}, val_cfg={"type": "pkg:Val", "times": 2},
        test_cfg={"tta": {"transforms": ["identity", {"type": "hflip"}, "pkg:rot"], "merge": "mean"}},
        test_dataloader=LOADER, test_evaluator="pkg:M",
    ),
    "trackers": validating(
        visualizer={"vis_backends": [
            {"type": "WandbVisBackend", "init_kwargs": {"project": "p", "mode": "offline"}, "commit": True},
            {"type": "MLflowVisBackend", "exp_name": "e", "params": {"a": 1}, "tracked_config_keys": ["model"]}]},
        log_processor={"custom_cfg": [{"data_src": "loss", "log_name": "low", "method_name": "min", "window_size": "epoch"}],
                       "log_with_hierarchy": True, "by_epoch": True},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 2, "out_dir": "elsewhere", "interval_minutes": 5},
                       "logger": {"type": "LoggerHook", "interval_exp_name": 3, "out_suffix": [".log"], "keep_local": True}},
        env_cfg={"hang_timeout": 60.0},
    ),
    "shares": base(
        strategy={"type": "FSDPStrategy", "wrap": ["Block"], "shard_size": 2, "reshard_after_forward": False, "cpu_offload": True,
                  "mixed_precision": {"param_dtype": "bfloat16"}, "activation_checkpointing": ["Block"], "skip_init_weights": True,
                  "model_wrapper": {"auto_wrap_policy": {"type": "t:ModuleWrapPolicy", "module_classes": ["m:Block"]},
                                    "cpu_offload": {"offload_params": True}, "sharding_strategy": "FULL_SHARD"}},
        load_from="weights.safetensors",
    ),
    "cut": base(
        strategy={"type": "FSDPStrategy", "tensor_parallel": {
            "size": 2, "plan": {"blocks.*": "fewer_heads", "blocks.*.qkv": {"style": "colwise", "parts": 3}, "blocks.*.proj": "rowwise"}}},
    ),
    "cut alone": base(strategy={"type": "TensorParallelStrategy", "size": 2, "plan": {"head": "colwise_rep"}}),
    "zero": base(
        strategy={"type": "DeepSpeedStrategy", "zero_optimization": {"stage": 2, "overlap_comm": True}, "gradient_clipping": 1.0,
                  "bf16": {"enabled": True}, "config": {"steps_per_print": 7}},
        optim_wrapper={"type": "DeepSpeedOptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3}},
    ),
    "predictions": {"model": "pkg:M", **TESTING, "test_evaluator": {"type": "DumpResults", "out_file_path": "x.jsonl"}},
}  # fmt: skip
MODES = {"predictions": "test"}
PARAMETERS = tuple(
    ParameterFact(name=f"{part}.{i}.{own}", shape=(4, 3) if own == "weight" else (4,), kind=kind)
    for part in ("backbone", "head") for i, kind in enumerate(("conv", "norm", None)) for own in ("weight", "bias")
)  # fmt: skip
STANDING = CheckpointFact(
    path="runs/base/checkpoints/epoch_1",
    name="epoch_1",
    epoch=1,
    iter=12,
    trajectory=(("seed", "1"), ("clock", '"micro"')),
)
LAYERS = tuple(ParameterFact(name=f"{path}.weight", shape=shape) for path, shape in (
    ("blocks.0", (8, 8)), ("blocks.0.qkv", (24, 8)), ("blocks.0.proj", (8, 8)), ("head", (10, 8))))  # fmt: skip
FACTS: dict[str, Facts] = {
    "known": KNOWN, "nothing": Facts(),
    "torchrun": evolve(KNOWN, world_size=2, environment=(("RANK", "0"), ("WORLD_SIZE", "2")), parameters=PARAMETERS,
                       checkpoints=(STANDING,), train_samples=97),
    "slurm": Facts(environment=(("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "1")), device_type="cuda",
                   device_memory=2**34, train_samples=1000, entropy=9, hooks=(HookFact(place=7, stages=STAGES[:3]),)),
    "built": evolve(KNOWN, train_batches=20, train_batch_size=3, val_samples=(10, 7), hooks=(HookFact(place=0, stages=STAGES),),
                    parameter_groups=(GroupFact(values=(("lr", 0.1), ("momentum", 0.9), ("weight_decay", 0.0))),) * 2),
    "shared": evolve(KNOWN, world_size=4, environment=(("RANK", "0"), ("WORLD_SIZE", "4")), parameters=PARAMETERS, train_step=True,
                     modules=(ModuleFact(path="backbone", type="Block"), ModuleFact(path="head", type="Linear"))),
    "cut": evolve(KNOWN, world_size=4, environment=(("RANK", "0"), ("WORLD_SIZE", "4")), parameters=LAYERS,
                  modules=tuple(ModuleFact(path=one.name.removesuffix(".weight"), type="Linear", kind="linear", heads=(4,) * (one.name != "head.weight"))
                                for one in LAYERS)),
    "stream": evolve(KNOWN, train_samples=None, train_iterable=True, named_checkpoint=STANDING),
}  # fmt: skip
FITTING = {"several": "shared", "shares": "shared", "zero": "shared", "cut": "cut", "cut alone": "cut", "own loops": "known", "trackers": "known",
           "digits": "built", "groups": "torchrun", "opaque": "built", "hooks": "known"}  # fmt: skip
NAMES = tuple(NASTY)
TEXTS = tuple(PLAIN)
Path = tuple[Any, ...]


def places(value: Any, path: Path = ()):
    """Every place of a value, containers and leaves."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def at(value: Any, path: Path) -> Any:
    for step in path:
        if type(value) not in (dict, list, tuple):
            raise LookupError(step)
        value = value[step]
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """A copy with `new` at the place; what is not on the way there is shared."""
    if not path:
        return new
    if isinstance(value, dict):
        return {**value, path[0]: replaced(value[path[0]], path[1:], new)}
    return type(value)(replaced(v, path[1:], new) if i == path[0] else v for i, v in enumerate(value))


def without(value: Any, path: Path) -> Any:
    owner = at(value, path[:-1])
    rest = {k: v for k, v in owner.items() if k != path[-1]} if isinstance(owner, dict) else type(owner)(
        v for i, v in enumerate(owner) if i != path[-1])  # fmt: skip
    return replaced(value, path[:-1], rest)


GROUPS = ("val_dataloader", "val_evaluator", "val_cfg"), ("test_dataloader", "test_evaluator", "test_cfg")


@cache
def small() -> tuple[tuple[str, dict[str, Any]], ...]:
    """(name, config) of each part of a valid config alone, where it is valid so: a twentieth of the cost to plan."""
    found = [("base", base())]
    for name, config in CONFIGS.items():
        for key, value in config.items():
            group = next((group for group in GROUPS if key in group), ())
            alone = {**base(), **{mate: config[mate] for mate in group}, key: value}
            try:
                flexcore.plan(alone, KNOWN)
            except flexcore.ConfigError:
                continue
            found.append((f"{name}.{key}", alone))
    return tuple(found)


@cache
def spots(name: str) -> tuple[Path, ...]:
    return tuple(places(CONFIGS.get(name) or dict(small())[name]))


@cache
def pool() -> dict[Any, list[Any]]:
    """Every value of every valid config by the key it stands at."""
    found: dict[Any, list[Any]] = {}
    for name, config in (*CONFIGS.items(), *small()):
        for path in spots(name):
            found.setdefault(path[-1], []).append(at(config, path))
    return found


KEYS = tuple(key for key in pool() if isinstance(key, str))


def garbage(draw: Random, depth: int = 0, names: tuple[str, ...] = NAMES) -> Any:
    """Any data at all, most of it small."""
    kind = draw.randrange(12 if depth < 4 else 8)
    if kind < 3:
        return NASTY[draw.choice(names)]
    if kind < 8:
        own = (None, True, draw.randint(-3, 300), draw.random() * 10, draw.choice(KEYS), -draw.getrandbits(70), "".join(
            chr(draw.choice((0x20, 0x41, 0x7b, 0x7d, 0xd800, 0x1f600, 0x2e, 0, 0x2f))) for _ in range(draw.randrange(9))))  # fmt: skip
        return draw.choice(own)
    if kind < 10:
        return [garbage(draw, depth + 1, names) for _ in range(draw.randrange(4))]
    return {draw.choice(KEYS): garbage(draw, depth + 1, names) for _ in range(draw.randrange(5))}


def moved(value: Any, draw: Random) -> Any:
    """A value near this one, or of another kind that looks like it."""
    if isinstance(value, bool) or value is None:
        return draw.choice((not value, int(value or 0), str(value), None, "auto"))
    if type(value) in (int, float):
        if abs(value) > 2**70:
            return draw.choice((-value, [value], {"type": value}, 2.5))
        return draw.choice((value + 1, value - 1, -value, value * 10, value / 3, value * 10**draw.randrange(30), str(value), [value],
                            2**draw.randrange(70), draw.randrange(12), float(value), 0))  # fmt: skip
    if type(value) is str:
        return draw.choice(
            (
                value + "x",
                value[:-1],
                value.upper(),
                [value],
                {"type": value},
                value * 2,
                f"pkg.{value}",
                draw.choice(KEYS),
            )
        )
    if isinstance(value, dict):
        return draw.choice(
            (list(value.items()), [value], {**value, draw.choice(KEYS): 1}, value.get("type"), {})
        )
    if type(value) not in (list, tuple):
        return draw.choice(KEYS)
    return draw.choice(
        (
            [*value, *value],
            value[:-1],
            tuple(value),
            {"0": value},
            dict(enumerate(value)),
            value[0] if value else None,
        )
    )


def mutated(value: Any, spots: tuple[Path, ...], draw: Random, names: tuple[str, ...] = NAMES) -> Any:
    """One to four changes: a value replaced, moved, spliced from elsewhere, left out or put under another key."""
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        path = draw.choice(spots)
        try:
            old = at(value, path)
        except (LookupError, TypeError):
            continue  # gone by a change before
        match draw.randrange(8):
            case 0 | 1:
                value = replaced(value, path, NASTY[draw.choice(names)])
            case 2 | 3:
                value = replaced(value, path, moved(old, draw))
            case 4:
                value = replaced(value, path, draw.choice(pool().get(path[-1], [garbage(draw, 2, names)])))
            case 5:
                value = without(value, path)
            case 6:
                value = replaced(value, path, draw.choice(pool()[draw.choice(KEYS)]))
            case _:
                owner = at(value, path[:-1])
                if isinstance(owner, dict):
                    value = replaced(
                        value,
                        path[:-1],
                        {**owner, draw.choice(KEYS): draw.choice((old, garbage(draw, 2, names)))},
                    )
    return value


FIELDS = tuple(field.name for field in attrs.fields(Facts))


def odd_facts(facts: Facts, draw: Random) -> Facts:
    """Facts with a field or two that nobody could have observed, or of another machine."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        name = draw.choice(FIELDS)
        other = getattr(draw.choice(tuple(FACTS.values())), name)
        facts = evolve(
            facts,
            **{
                name: draw.choice(
                    (other, moved(getattr(facts, name), draw), garbage(draw, 2), draw.randrange(9))
                )
            },
        )
    return facts


@attrs.frozen
class Input:
    """What one call is given. kind: "config", "garbage" or "json" (then `value` is the text of a plan).

    deep: ask everything that can be asked of it, which costs as much as ten plans.
    """

    kind: str
    value: Any
    facts: Facts
    mode: Any
    smoke: bool
    deep: bool = False


@cache
def plan_data() -> tuple[tuple[Any, tuple[Path, ...]], ...]:
    made = [flexcore.plan(config, KNOWN) for _, config in small()[::5]]
    made += [
        flexcore.plan(config, FACTS[FITTING.get(name, "known")], mode=MODES.get(name, "train"))
        for name, config in CONFIGS.items()
    ]
    data = [json.loads(plan.to_json()) for plan in made if not plan.supplied]
    return tuple((one, tuple(places(one))) for one in data)


class _Long(json.JSONEncoder):
    """Writes integers of any length."""

    def iterencode(self, o: Any, _one_shot: bool = False) -> Any:
        limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            yield "".join(super().iterencode(o))
        finally:
            sys.set_int_max_str_digits(limit)


def text_of(data: Any) -> str:
    """As a file holds it; Python's own writer stops at 4,300 digits, and a file need not."""
    try:
        return json.dumps(data)
    except ValueError:
        return json.dumps(data, default=str, cls=_Long)


JSON_NAMES = tuple(
    name for name in TEXTS if "deep" not in name and "set" not in name and "odd keys" not in name
)


def input_of(seed: int, index: int) -> Input:
    """Input number `index`."""
    draw = Random(f"{seed}:{index}")
    kind = draw.randrange(20)
    if kind == 0:
        return Input("garbage", garbage(draw), draw.choice(tuple(FACTS.values())), "train", False)
    if kind == 1:
        top = {draw.choice(KEYS): garbage(draw, 1) for _ in range(draw.randrange(6))}
        return Input("garbage", top, odd_facts(KNOWN, draw), draw.choice(("train", "val", "test")), False)
    if kind == 2:
        data, where = draw.choice(plan_data())
        return Input("json", text_of(mutated(data, where, draw, JSON_NAMES)), Facts(), "train", False)
    if kind < 16:
        name, config = draw.choice(small())
        facts = odd_facts(KNOWN, draw) if draw.random() < 0.1 else KNOWN
        names = NAMES if draw.random() < 0.3 else TEXTS
        value = mutated(config, spots(name), draw, names)
        return Input("config", value, facts, "train", False, draw.random() < 0.03)
    name = draw.choice(tuple(CONFIGS))
    facts = FACTS[FITTING.get(name, "known")] if draw.random() < 0.6 else draw.choice(tuple(FACTS.values()))
    if draw.random() < 0.2:
        facts = odd_facts(facts, draw)
    mode = MODES.get(name, "train") if draw.random() < 0.8 else draw.choice(("train", "val", "test"))
    names = NAMES if draw.random() < 0.3 else TEXTS
    return Input(
        "config",
        mutated(CONFIGS[name], spots(name), draw, names),
        facts,
        mode,
        draw.random() < 0.1,
        draw.random() < 0.2,
    )


assert not set(LIVE) & set(PLAIN)
