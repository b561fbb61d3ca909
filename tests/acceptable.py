"""Whether a job may be planned, from DESIGN.md and the documentation alone: a predicate over plain data, no core in it.

It covers what `tests.strategies.jobs` can draw. Each rule is a line: its name, and whether the job breaks it.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from flexcore.facts import Facts

Section = dict[str, Any]
PRIORITIES = (
    "HIGHEST",
    "VERY_HIGH",
    "HIGH",
    "ABOVE_NORMAL",
    "NORMAL",
    "BELOW_NORMAL",
    "LOW",
    "VERY_LOW",
    "LOWEST",
)
NUMBER_OF = dict(zip(PRIORITIES, (0, 10, 30, 40, 50, 60, 70, 90, 100), strict=True))
GROUPS = (("train_dataloader", "train_cfg", "optim_wrapper"), ("val_dataloader", "val_cfg", "val_evaluator"),
          ("test_dataloader", "test_cfg", "test_evaluator"))  # fmt: skip
DEFAULTS = {"runtime_info": "RuntimeInfoHook", "timer": "IterTimerHook", "sampler_seed": "DistSamplerSeedHook",
            "logger": "LoggerHook", "param_scheduler": "ParamSchedulerHook", "checkpoint": "CheckpointHook"}  # fmt: skip
BEST = {"acc": True, "top1": True, "loss": True, "fid": False}  # whether the name says which way is better


def broken(config: Section, facts: Facts) -> list[str]:
    """The names of the rules a job breaks; none: it is accepted."""
    return [name for family in FAMILIES for name, breaks in family(config, facts) if breaks]


Rules = Iterator[tuple[str, bool]]


def _groups(config: Section, _: Facts) -> Rules:
    yield "a model", "model" not in config
    yield "something to train", not any(key in config for key in GROUPS[0][:2])
    for group in GROUPS:
        yield f"{group[0]} and its mates come together", 0 < sum(key in config for key in group) < 3
    if "val_dataloader" in config or "test_dataloader" in config:
        several = [config[f"{mode}_dataloader"] for mode in ("val", "test") if f"{mode}_dataloader" in config]
        yield "evaluation loaders", any(_loader(one, True) for given in several for one in listed(given))
    for name in ("val", "test"):
        fp16 = config.get(f"{name}_cfg", {}).get("fp16", False)
        yield f"{name} in float16 where it can", fp16 and _.supports_fp16 is False


def listed(loaders: Any) -> list[Section]:
    return (
        loaders
        if isinstance(loaders, list)
        else [loaders]
        if "dataset" in loaders
        else list(loaders.values())
    )


def _loader(loader: Section, evaluates: bool) -> bool:
    """Whether anything is wrong with a loader's own settings."""
    workers, sampler = loader.get("num_workers", 0), loader.get("sampler") or {}
    idle = workers == 0 and (
        loader.get("persistent_workers") or loader.get("prefetch_factor") or loader.get("timeout")
    )
    return bool(
        workers < 0 or idle or loader.get("prefetch_factor", 1) < 1 or loader.get("num_batch_per_epoch", 1) < 1
        or not 0 <= loader.get("timeout", 0) < math.inf or sampler.get("seed", 0) < 0 or loader.get("batch_size", 1) < 1
        or (evaluates and ("batch_size" not in loader or sampler.get("type") == "InfiniteSampler"))
    )  # fmt: skip


def _train_loop(config: Section, _: Facts) -> Rules:
    loop = config.get("train_cfg")
    if loop is None:
        return
    yield "no negative length", loop.get("max_epochs", loop.get("max_iters")) < 0
    yield "val_begin", loop.get("val_begin", 1) < 0
    yield "val_interval", loop.get("val_interval", 1) < 1
    yield "a time that ends", not 0 < loop.get("max_time", 1) < math.inf
    marks = [0, *(milestone for milestone, _ in loop.get("dynamic_intervals", ()))]
    yield "rising milestones", any(b <= a for a, b in pairwise(marks))
    yield "dynamic intervals", any(interval < 1 for _, interval in loop.get("dynamic_intervals", ()))


def ranks_of(config: Section, facts: Facts) -> tuple[str, str, int | None]:
    """(launcher, strategy, world size) by the rules of the launcher."""
    torchrun = {"RANK", "WORLD_SIZE"} <= {name for name, _ in facts.environment or ()}
    launcher = config.get("launcher") or ("pytorch" if torchrun or (facts.world_size or 1) > 1 else "none")
    given = config.get("strategy", "auto")
    name = given if isinstance(given, str) else given["type"]
    strategy = ("SingleDeviceStrategy" if launcher == "none" else "DDPStrategy") if name == "auto" else name
    world = facts.world_size or (1 if launcher == "none" else None)
    return launcher, strategy, world


def _ranks(config: Section, facts: Facts) -> Rules:
    launcher, strategy, world = ranks_of(config, facts)
    yield "a known strategy", strategy not in ("SingleDeviceStrategy", "DDPStrategy")
    yield "ranks to share a model among", strategy == "DDPStrategy" and launcher == "none"
    yield "one device in a world of one", strategy == "SingleDeviceStrategy" and (world or 1) > 1
    signs = {name for name, _ in facts.environment or ()}
    there = {"RANK", "WORLD_SIZE"} <= signs if launcher == "pytorch" else launcher == "none"
    yield (
        "the given launcher's variables",
        "launcher" in config and facts.environment is not None and not there,
    )
    env = config.get("env_cfg", {})
    backend = env.get("dist_cfg", {}).get("backend", "gloo")
    yield "a backend", backend not in ("nccl", "gloo", "mpi", "ucc")
    yield "a timeout", not env.get("dist_cfg", {}).get("timeout", 1) > 0
    yield "open files", env.get("resource_limit", 1) < 1


def _batches(config: Section, facts: Facts) -> Rules:
    """micro x accumulation x ranks = global, and an epoch has at least one iteration."""
    loader, loop, wrapper = (config.get(key) for key in GROUPS[0])
    if loader is None or wrapper is None or loop is None:
        return
    yield "training loader", _loader(loader, False)
    counts, total, micro = (
        wrapper.get("accumulative_counts"),
        config.get("global_batch_size"),
        loader.get("batch_size"),
    )
    yield "accumulation", counts is not None and counts < 1
    yield "global batch", total is not None and total < 1
    yield "a batch size", micro is None and (total is None or counts is None)
    if any(value is not None and value < 1 for value in (counts, total, micro)) or (
        micro is None and not (total and counts)
    ):
        return
    _, strategy, world = ranks_of(config, facts)
    ranks = world if strategy == "DDPStrategy" else 1
    if total is not None and ranks is not None:
        product = math.prod(value for value in (micro, counts, ranks) if value is not None)
        whole = None not in (micro, counts)
        yield "one batch identity", product != total if whole else total % product != 0
        if product != total if whole else total % product:
            return
        counts = counts or total // (micro * ranks)
        micro = micro or total // (counts * ranks)
    if total is None and wrapper.get("accumulation_tail") == "drop" and "max_iters" in loop:
        yield "a whole window in the run", 0 < loop["max_iters"] < (counts or 1)
    if facts.train_samples is None or ranks is None or micro is None:
        return
    yield from _epoch(loader, wrapper, loop, facts.train_samples, ranks, micro, counts or 1, total)


def _epoch(loader: Section, wrapper: Section, loop: Section, samples: int, ranks: int, micro: int, counts: int,
           total: int | None) -> Rules:  # fmt: skip
    sampler, drop = loader.get("sampler") or {}, loader.get("drop_last", False)
    yield (
        "every rank as many batches",
        (
            sampler.get("type") == "DefaultSampler"
            and not sampler.get("round_up", True)
            and samples % ranks != 0
        ),
    )
    if total is None:
        share = math.ceil(samples / ranks)
        length = share // micro if drop else math.ceil(share / micro)
    else:
        length = (samples // total if drop else math.ceil(samples / total)) * counts
    length = min(length, loader.get("num_batch_per_epoch", length))
    length //= 1 if total is None else counts
    window = counts if total is None else 1
    if wrapper.get("accumulation_tail") == "drop" and "max_epochs" in loop:
        length = length // window * window
    yield "an iteration in an epoch", length == 0


def _optimizer(config: Section, facts: Facts) -> Rules:
    wrapper = config.get("optim_wrapper")
    if wrapper is None:
        return
    lr = wrapper["optimizer"].get("lr", 0)
    yield "an LR", not isinstance(lr, int | float) or not 0 <= lr < math.inf
    clip = wrapper.get("clip_grad")
    if clip is not None:
        own, other = (
            ("max_norm", "clip_value") if clip.get("type", "norm") == "norm" else ("clip_value", "max_norm")
        )
        yield (
            "clipping",
            own not in clip or other in clip or not clip.get(own, 1) > 0 or not clip.get("norm_type", 2) > 0,
        )
    if wrapper.get("type") == "AmpOptimWrapper":
        half = wrapper.get("dtype") or {"cuda": "float16", "cpu": "bfloat16"}.get(facts.device_type or "")
        yield "float16 where it can", half == "float16" and facts.supports_fp16 is False
    scale = wrapper.get("loss_scale", "dynamic") if wrapper.get("type") == "AmpOptimWrapper" else "dynamic"
    yield "a loss scale", isinstance(scale, float) and not 0 < scale < math.inf
    if isinstance(scale, dict):
        yield "settings of the loss scale", scale.get("growth_factor", 2) <= 1 or "backoff" in scale
    yield (
        "wrapper's own keys",
        wrapper.get("type") != "AmpOptimWrapper" and bool({"dtype", "loss_scale"} & set(wrapper)),
    )
    scaling = config.get("auto_scale_lr", {})
    yield "a base of the LR's scale", scaling.get("enable", False) and "base_batch_size" not in scaling
    yield "a base batch", scaling.get("base_batch_size", 1) < 1


FROM_ZERO = ("factor", "gamma", "power", "eta_min", "eta_min_ratio", "patience")
TO_ONE = ("start_factor", "end_factor", "pct_start")
FROM_ONE = ("step_size", "T_max", "total_steps")


def _schedules(config: Section, facts: Facts) -> Rules:
    loop, optimizer = config.get("train_cfg"), config.get("optim_wrapper", {}).get("optimizer", {})
    yield "schedules of an optimizer", bool(config.get("param_scheduler")) and "optim_wrapper" not in config
    if loop is None:
        return
    epochs = "max_epochs" in loop
    for schedule in config.get("param_scheduler", ()):
        begin, end, unit = schedule.get("begin", 0), schedule.get("end"), schedule.get("by_epoch")
        yield "begin", begin < 0
        yield "end after begin", end is not None and end <= begin
        yield "epochs in the iteration loop", unit is True and not epochs
        converts = schedule.get("convert_to_iter_based", False)
        yield "epochs to convert", converts and (unit is False or not epochs)
        yield "at least 0", any(not 0 <= schedule.get(key, 0) < math.inf for key in FROM_ZERO)
        yield "between 0 and 1", any(not 0 <= schedule.get(key, 0) <= 1 for key in TO_ONE)
        yield "at least 1", any(schedule.get(key, 1) < 1 for key in FROM_ONE)
        yield "rising milestones", schedule.get("milestones", []) != sorted(schedule.get("milestones", []))
        yield "one floor", "eta_min" in schedule and "eta_min_ratio" in schedule
        if schedule["type"].startswith("CosineRestart"):
            yield (
                "restarts",
                min(schedule["periods"]) < 1 or len(schedule["periods"]) != len(schedule["restart_weights"]),
            )
        if schedule["type"].startswith("OneCycle"):
            yield "a top", not schedule["eta_max"] > 0
        if schedule["type"].startswith("ReduceOnPlateau"):
            yield (
                "a plateau to watch",
                "val_cfg" not in config or schedule.get("factor", 0.1) >= 1 or converts,
            )
        kind = optimizer.get("type", "").rpartition(".")[2]
        yield (
            "a key that is there",
            schedule["type"].endswith("Momentum") and kind not in ("SGD", "AdamW", "RMSprop"),
        )


def _hooks(config: Section, _: Facts) -> Rules:
    slots = dict(DEFAULTS.items())
    asked: list[tuple[str, Section]] = []
    given = config.get("default_hooks", {})
    yield "None for a default", any(hook is None and key not in DEFAULTS for key, hook in given.items())
    for key, hook in given.items():
        slots[key] = None if hook is None else hook["type"]  # type: ignore[assignment]
        asked += [] if hook is None else [(key, hook)]
    asked += [(str(i), hook) for i, hook in enumerate(config.get("custom_hooks", ()))]
    running = [*filter(None, slots.values()), *(hook["type"] for hook in config.get("custom_hooks", ()))]
    built_in = [name for name in running if ":" not in name]
    yield "one of each built-in hook", len(set(built_in)) < len(built_in)
    yield "hooks there are", "NoSuchHook" in running
    for _key, hook in asked:
        priority = hook.get("priority")
        yield "priority", isinstance(priority, int) and not 0 <= priority <= 100
        yield "priority's name", isinstance(priority, str) and priority not in PRIORITIES
        yield from _setting(config, hook)


def _setting(config: Section, hook: Section) -> Rules:
    match hook["type"]:
        case "LoggerHook":
            yield "log interval", hook.get("interval", 10) < 1
        case "CheckpointHook":
            yield from _checkpoint(config, hook)
        case "EMAHook":
            yield "share of the new weights", not 0 < hook.get("momentum", 0.1) < 1
            yield "one beginning", "begin_iter" in hook and "begin_epoch" in hook
            yield "gamma of the annealed average", "gamma" in hook
            saves = config.get("default_hooks", {}).get("checkpoint", {}) is not None
            yield "an average before it is saved", NUMBER_OF[hook.get("priority", "NORMAL")] > 90 and saves
            yield "epochs to begin at", "begin_epoch" in hook and "max_iters" in config.get("train_cfg", {})
        case "SyncBuffersHook":
            yield "epochs to average buffers at", "max_iters" in config.get("train_cfg", {})
        case "EmptyCacheHook":
            yield "a moment to empty", not hook.get("after_epoch", True)
        case "NaNGuardHook":
            yield "every update looked at", hook.get("interval", 1) > 1
        case "ThroughputHook":
            yield "both of MFU's numbers", "peak_flops" in hook
        case "ProfilerHook":
            yield "something profiled", not hook.get("activity_with_cpu", True)
            yield "epochs profiled", "max_iters" in config.get("train_cfg", {})
        case "EarlyStoppingHook":
            yield "a way that is better", not BEST[hook["monitor"]]
            yield "a metric to watch", "val_cfg" not in config
            yield "patience", hook.get("patience", 5) < 1


def _checkpoint(config: Section, hook: Section) -> Rules:
    yield "epochs to save by", bool(hook.get("by_epoch")) and "max_iters" in config.get("train_cfg", {})
    yield "save_begin", hook.get("save_begin", 0) < 0
    yield "how many are kept", hook.get("max_keep_ckpts", -1) == 0 or hook.get("max_keep_ckpts", -1) < -1
    yield "a file name", hook.get("filename_tmpl", "e_{}") not in ("e_{}", "it{:04d}.pth")
    wanted, rule = hook.get("save_best"), hook.get("rule")
    if wanted is None:
        return
    names = [wanted] if isinstance(wanted, str) else wanted
    rules = [] if rule is None else [rule] if isinstance(rule, str) else rule
    yield "a validation to be best in", "val_cfg" not in config
    yield "auto alone", "auto" in names and len(names) > 1
    yield (
        "rules",
        any(one not in ("greater", "less") for one in rules) or len(rules) not in (0, 1, len(names)),
    )
    yield "a way that is better", not rules and any(name != "auto" and not BEST[name] for name in names)


def _rest(config: Section, _: Facts) -> Rules:
    resume, load_from = config.get("resume", False), config.get("load_from")
    yield "one start", isinstance(resume, str) and load_from is not None
    if isinstance(load_from, dict):
        yield "settings for weights alone", resume is True
        load_from = load_from["path"]
    yield (
        "a checkpoint's path",
        any(isinstance(path, str) and not path.strip() for path in (resume, load_from)),
    )
    yield "a seed", not 0 <= config.get("randomness", {}).get("seed", 0) < 2**32
    yield "a window", config.get("log_processor", {}).get("window_size", 1) < 1
    yield "digits", config.get("log_processor", {}).get("num_digits", 0) < 0
    for key in ("work_dir", "experiment_name"):
        yield key, not config.get(key, "x").strip() or "\0" in config.get(key, "x")
    yield "a name without directories", "/" in config.get("experiment_name", "")
    yield "a level", config.get("log_level", "INFO") not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    yield "compile", not isinstance(config.get("compile", True), bool | dict)
    backends = config.get("visualizer", {}).get("vis_backends", ())
    yield "backends that live", "ClearMLVisBackend" in backends
    yield "a loss with a type", config.get("loss") == {"weight": 1}


FAMILIES = (_groups, _train_loop, _ranks, _batches, _optimizer, _schedules, _hooks, _rest)
