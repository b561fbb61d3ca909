"""Hypothesis strategies for configs, facts and clocks; every test draws its values from here."""

import math
from typing import Any

from hypothesis import strategies as st

from flexcore.facts import CheckpointFact, Facts, GroupFact, HookFact
from flexcore.hooks import STAGES
from flexcore.sampling import Order
from flexcore.timeline import SavePoints, Timeline

small = st.integers(1, 12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
)
names = st.sampled_from(["alpha", "beta", "gamma", "delta"])
data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(-9, 9), inner, max_size=3)
        | st.sets(st.integers(0, 9) | st.text(max_size=2), max_size=3)
    ),
    max_leaves=6,
)


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any subset of these keys."""
    return st.fixed_dictionaries({}, optional=fields)


def _joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda drawn: {key: value for part in drawn for key, value in part.items()})


components = st.builds(
    lambda name, kwargs: {**kwargs, "type": f"pkg.things:{name}"},
    st.sampled_from(["Net", "Digits", "Wide"]),
    st.dictionaries(names, data, max_size=2),
)
samplers = st.none() | st.builds(
    lambda kind, shuffle: {"type": kind, "shuffle": shuffle},
    st.sampled_from(["DefaultSampler", "InfiniteSampler"]), st.booleans(),
)  # fmt: skip
train_loaders = _joined(
    st.fixed_dictionaries({"dataset": components, "batch_size": small}),
    _optional(sampler=samplers, drop_last=st.booleans(), num_batch_per_epoch=small, pin_memory=st.booleans()),
)
eval_loaders = st.builds(lambda dataset, size: {"dataset": dataset, "batch_size": size}, components, small)
lr = st.floats(1e-6, 10, allow_nan=False)
optimizers = st.builds(
    lambda kind, rate: {"type": kind, "lr": rate, "momentum": 0.9}, st.sampled_from(["SGD", "RMSprop"]), lr
)
wrappers = _joined(
    st.fixed_dictionaries({"optimizer": optimizers}),
    _optional(
        accumulative_counts=st.integers(1, 4),
        accumulation_tail=st.sampled_from(["carry", "step"]),
        clip_grad=st.builds(lambda n: {"max_norm": n}, st.floats(0.1, 10)),
    ),
    st.sampled_from([{}, {"type": "AmpOptimWrapper", "dtype": "float16"}, {"type": "OptimWrapper"}]),
)
train_loops = _joined(
    st.builds(lambda n: {"by_epoch": True, "max_epochs": n}, small)
    | st.builds(lambda n: {"by_epoch": False, "max_iters": n}, st.integers(4, 60)),
    _optional(val_begin=st.integers(0, 6), val_interval=st.integers(1, 6)),
)


@st.composite
def schedules(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Multiplicative schedules: any of them may overlap."""
    forms = {
        "ConstantLR": {"factor": st.floats(0.1, 1)},
        "LinearLR": {"start_factor": st.floats(0.1, 1), "end_factor": st.floats(0.1, 1)},
        "ExponentialLR": {"gamma": st.floats(0.5, 1)},
        "StepLR": {"step_size": st.integers(1, 5), "gamma": st.floats(0.1, 1)},
        "MultiStepLR": {
            "milestones": st.lists(st.integers(1, 20), max_size=3).map(sorted),
            "gamma": st.floats(0.1, 1),
        },
        "CosineAnnealingLR": {},
        "PolyLR": {"power": st.floats(0.5, 3)},
    }
    found = []
    for kind in draw(st.lists(st.sampled_from(sorted(forms)), max_size=3)):
        begin = draw(st.integers(0, 3))
        found.append({"type": kind, "begin": begin, "end": begin + draw(st.integers(2, 20)),
                      **{key: draw(value) for key, value in forms[kind].items()}})  # fmt: skip
    return found


hooks = st.builds(
    lambda name, priority: {"type": f"pkg.hooks:{name}", "priority": priority},
    st.sampled_from(["Counter", "Printer"]),
    st.integers(0, 100) | st.sampled_from(["HIGHEST", "NORMAL", "LOW"]),
)
checkpoint_hooks = _joined(
    st.just({"type": "CheckpointHook"}),
    _optional(interval=st.integers(-1, 6), save_begin=st.integers(0, 5), save_last=st.booleans(),
              max_keep_ckpts=st.sampled_from([-1, 1, 3])),
)  # fmt: skip
default_hooks = _optional(
    checkpoint=checkpoint_hooks, logger=st.builds(lambda n: {"type": "LoggerHook", "interval": n}, small),
    timer=st.none(), mine=hooks,
)  # fmt: skip
val_groups = st.just({}) | st.builds(
    lambda loader, metric: {"val_dataloader": loader, "val_evaluator": metric, "val_cfg": {}},
    eval_loaders | st.lists(eval_loaders, min_size=1, max_size=2) | st.dictionaries(names, eval_loaders, min_size=1, max_size=2),
    components | st.dictionaries(names, components, min_size=1, max_size=2),
)  # fmt: skip

configs = _joined(
    st.fixed_dictionaries({
        "model": components, "train_dataloader": train_loaders, "train_cfg": train_loops, "optim_wrapper": wrappers,
    }),
    val_groups,
    _optional(
        param_scheduler=schedules(), default_hooks=default_hooks, custom_hooks=st.lists(hooks, max_size=3),
        randomness=st.builds(lambda seed: {"seed": seed}, st.integers(0, 2**32 - 1)),
        work_dir=st.sampled_from(["runs/a", "b"]), experiment_name=names, resume=st.booleans(),
        log_level=st.sampled_from(["INFO", "DEBUG"]), compile=st.booleans() | st.just({"mode": "default"}),
        auto_scale_lr=st.just({"enable": True, "base_batch_size": 16}),
        log_processor=st.just({"window_size": 20}), env_cfg=st.just({"mp_cfg": {"mp_start_method": "spawn"}}),
    ),
)  # fmt: skip


# --- jobs: configs of the whole vocabulary, right or slightly wrong ---------------------------------


def _slip(draw: st.DrawFn, right: Any, wrong: Any, odds: int = 60) -> Any:
    """A value that is right, once in so many draws one that is not. Values or strategies."""
    chosen = wrong if draw(st.integers(0, odds)) == odds else right
    return draw(chosen) if isinstance(chosen, st.SearchStrategy) else chosen


def _maybe(
    draw: st.DrawFn, section: dict[str, Any], key: str, right: Any, wrong: Any = None, share: int = 4
) -> None:
    """The key, in one of `share` sections."""
    if draw(st.integers(1, share)) == share:
        section[key] = _slip(draw, right, right if wrong is None else wrong)


@st.composite
def some_loaders(draw: st.DrawFn, evaluates: bool = False) -> dict[str, Any]:
    loader: dict[str, Any] = {"dataset": {"type": "pkg.data:Set"}}
    if _slip(draw, True, False):
        loader["batch_size"] = _slip(draw, st.integers(1, 8), 0, 150)
    kinds = ["DefaultSampler"] if evaluates else ["DefaultSampler", "InfiniteSampler"]
    if draw(st.booleans()):
        kind = _slip(draw, st.sampled_from(kinds), "InfiniteSampler")
        loader["sampler"] = {"type": kind, "shuffle": draw(st.booleans())}
        _maybe(draw, loader["sampler"], "seed", st.integers(0, 9), -1)
        if kind == "DefaultSampler":
            _maybe(draw, loader["sampler"], "round_up", draw(st.booleans()))
    _maybe(draw, loader, "drop_last", draw(st.booleans()), share=2)
    if draw(st.integers(1, 3)) == 3:
        loader["num_workers"] = _slip(draw, st.integers(1, 3), st.sampled_from([0, -1]), 40)
        _maybe(draw, loader, "prefetch_factor", st.integers(1, 3), 0)
        _maybe(draw, loader, "persistent_workers", draw(st.booleans()))
        _maybe(draw, loader, "timeout", st.floats(0, 9), st.sampled_from([-1.0, math.inf, math.inf]))
    if not evaluates:
        _maybe(draw, loader, "num_batch_per_epoch", st.integers(1, 9), 0, share=6)
    return loader


@st.composite
def some_loops(draw: st.DrawFn) -> dict[str, Any]:
    by_epoch = draw(st.booleans())
    key = "max_epochs" if by_epoch else "max_iters"
    loop: dict[str, Any] = {
        key: _slip(draw, st.integers(2, 12 if by_epoch else 60), st.sampled_from([0, -1]))
    }
    style = draw(st.integers(0, 2))
    if style == 0:
        loop["by_epoch"] = by_epoch
    elif style == 1:
        loop["type"] = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    _maybe(draw, loop, "val_begin", st.integers(0, 6), -1)
    _maybe(draw, loop, "val_interval", st.integers(1, 6), 0)
    _maybe(draw, loop, "max_time", st.floats(1, 1e6), st.sampled_from([0.0, -1.0, math.inf, math.inf]))
    rising = st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 4)), max_size=2, unique_by=lambda pair: pair[0]
    ).map(sorted)
    _maybe(draw, loop, "dynamic_intervals", rising, st.sampled_from([[(3, 1), (3, 2)], [(2, 0)], [(0, 1)]]))
    return loop


@st.composite
def some_wrappers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["SGD", "AdamW", "torch.optim.RMSprop"]))
    optimizer: dict[str, Any] = {
        "type": kind,
        "lr": _slip(draw, st.floats(1e-6, 10), st.sampled_from([-1.0, math.inf, "0.1"])),
    }
    if kind == "SGD":
        optimizer["momentum"] = 0.9
    wrapper: dict[str, Any] = {"optimizer": optimizer}
    _maybe(draw, wrapper, "accumulative_counts", st.integers(1, 4), 0, share=2)
    _maybe(draw, wrapper, "accumulation_tail", st.sampled_from(["carry", "step", "drop"]), share=2)
    norm = st.builds(lambda n: {"max_norm": n}, st.floats(0.1, 9))
    clip = norm | st.builds(lambda n: {"type": "value", "clip_value": n}, st.floats(0.1, 9))
    wrong = [{}, {"max_norm": 0.0}, {"type": "value"}, {"type": "value", "clip_value": 1.0, "max_norm": 1.0},
             {"max_norm": 1.0, "norm_type": 0.0}]  # fmt: skip
    _maybe(draw, wrapper, "clip_grad", clip, st.sampled_from(wrong))
    if draw(st.integers(1, 3)) == 3:
        wrapper["type"] = "AmpOptimWrapper"
        _maybe(draw, wrapper, "dtype", st.sampled_from(["bfloat16", "float16"]), share=2)
        scale = (
            st.just("dynamic")
            | st.floats(1, 1e5)
            | st.builds(lambda n: {"init_scale": n}, st.integers(1, 99))
        )
        _maybe(
            draw,
            wrapper,
            "loss_scale",
            scale,
            st.sampled_from([0.0, -1.0, {"growth_factor": 1.0}, {"backoff": 1}]),
        )
    return wrapper


@st.composite
def some_schedules(draw: st.DrawFn, by_epoch: bool) -> list[dict[str, Any]]:
    share, floor = st.floats(0.05, 1), st.floats(0, 0.5)
    forms: dict[str, dict[str, Any]] = {
        "Constant": {"factor": (share, -1.0)}, "Linear": {"start_factor": (share, 1.5), "end_factor": (share, -0.5)},
        "Exponential": {"gamma": (share, -1.0)}, "Step": {"step_size": (st.integers(1, 9), 0), "gamma": (share, math.inf)},
        "MultiStep": {"milestones": (st.lists(st.integers(1, 20), max_size=3).map(sorted), [3, 1])},
        "CosineAnnealing": {"eta_min": (floor, -1.0), "T_max": (st.integers(1, 30), 0), "eta_min_ratio": (None, 0.1)},
        "Poly": {"power": (st.floats(0.5, 3), -1.0), "eta_min_ratio": (floor, math.inf)},
        "CosineRestart": {"periods": ([5, 3], [5, 0]), "restart_weights": ([1.0, 0.5], [1.0]), "eta_min": (floor, -1.0)},
        "OneCycle": {"eta_max": (st.floats(0.1, 1), 0.0), "pct_start": (st.floats(0.1, 0.9), 1.5), "total_steps": (st.integers(1, 40), 0)},
        "ReduceOnPlateau": {"patience": (st.integers(0, 5), -1), "factor": (share.filter(lambda f: f < 1), 1.0)},
    }  # fmt: skip
    needed = {"CosineRestart": ("periods", "restart_weights"), "OneCycle": ("eta_max",)}
    found = []
    for form in draw(st.lists(st.sampled_from(sorted(forms)), max_size=3)):
        schedule: dict[str, Any] = {
            "type": form + _slip(draw, st.sampled_from(["LR", "LR", "Momentum"]), "LR")
        }
        for key, (right, wrong) in forms[form].items():
            if key in needed.get(form, ()):
                schedule[key] = _slip(draw, right, wrong)
            elif right is not None or draw(st.integers(0, 60)) == 60:
                _maybe(draw, schedule, key, wrong if right is None else right, wrong, share=2)
        _maybe(draw, schedule, "begin", st.integers(0, 1), st.just(-1), share=3)
        if draw(st.integers(1, 2)) == 2:
            schedule["end"] = schedule.get("begin", 0) + _slip(draw, st.integers(1, 30), 0)
        _maybe(
            draw, schedule, "by_epoch", _slip(draw, st.booleans() if by_epoch else st.just(False), True, 20)
        )
        _maybe(draw, schedule, "convert_to_iter_based", draw(st.booleans()), share=8)
        found.append(schedule)
    return found


@st.composite
def some_checkpoint_hooks(draw: st.DrawFn, validates: bool) -> dict[str, Any]:
    hook: dict[str, Any] = {"type": "CheckpointHook"}
    _maybe(draw, hook, "interval", st.integers(-1, 6), share=2)
    _maybe(draw, hook, "by_epoch", draw(st.booleans()), share=6)
    _maybe(draw, hook, "save_begin", st.integers(0, 5), -1)
    _maybe(draw, hook, "save_last", draw(st.booleans()))
    _maybe(draw, hook, "max_keep_ckpts", st.sampled_from([-1, 1, 3]), st.sampled_from([0, -2]))
    _maybe(
        draw,
        hook,
        "filename_tmpl",
        st.sampled_from(["e_{}", "it{:04d}.pth"]),
        st.sampled_from(["x", "{}/{}", "best_{}", "{"]),
    )
    if _slip(draw, validates, True, 20) and draw(st.booleans()):
        hook["save_best"] = _slip(
            draw,
            st.sampled_from(["auto", "acc", ["loss", "top1"]]),
            st.sampled_from(["fid", ["auto", "acc"]]),
            20,
        )
        _maybe(
            draw,
            hook,
            "rule",
            st.sampled_from(["greater", "less"]),
            st.sampled_from(["bigger", ["less"] * 3]),
        )
    return hook


HOOKS: tuple[dict[str, Any], ...] = (
    {"type": "EMAHook"}, {"type": "EMAHook", "momentum": 0.1, "begin_iter": 2}, {"type": "SyncBuffersHook"},
    {"type": "EmptyCacheHook"}, {"type": "NaNGuardHook", "action": "skip"}, {"type": "ThroughputHook"}, {"type": "ProfilerHook"},
    {"type": "EarlyStoppingHook", "monitor": "acc"},
)  # fmt: skip
WRONG_HOOKS: tuple[dict[str, Any], ...] = (
    {"type": "EMAHook", "momentum": 1.5}, {"type": "EMAHook", "begin_iter": 1, "begin_epoch": 1}, {"type": "EMAHook", "gamma": 5},
    {"type": "EMAHook", "priority": "LOWEST"}, {"type": "EmptyCacheHook", "after_epoch": False},
    {"type": "NaNGuardHook", "action": "skip", "interval": 2}, {"type": "ThroughputHook", "peak_flops": 1e12},
    {"type": "ProfilerHook", "activity_with_cpu": False}, {"type": "EarlyStoppingHook", "monitor": "fid"},
    {"type": "EarlyStoppingHook", "monitor": "acc", "patience": 0}, {"type": "pkg.hooks:Own", "priority": 101},
    {"type": "pkg.hooks:Own", "priority": "SOON"}, {"type": "LoggerHook"}, {"type": "NoSuchHook"},
)  # fmt: skip


@st.composite
def _groups(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    loader = some_loaders(evaluates=True)
    group = {
        f"{mode}_dataloader": draw(loader | st.lists(loader, min_size=1, max_size=2)
                                   | st.dictionaries(names, loader, min_size=1, max_size=2)),
        f"{mode}_evaluator": draw(st.sampled_from([{"type": "pkg:Acc"}, ["pkg:A", "pkg:B"], {"x": {"type": "pkg:A"}}])),
        f"{mode}_cfg": draw(st.sampled_from([{}, {}, {"fp16": True}, {"type": f"{mode.title()}Loop", "dtype": "bfloat16"}])),
    }  # fmt: skip
    if draw(st.integers(0, 60)) == 60:
        del group[draw(st.sampled_from(sorted(group)))]
    return group


@st.composite
def some_facts(draw: st.DrawFn, config: dict[str, Any]) -> Facts:
    """Of this config, on a machine of one rank or several, with anything unknown."""
    world = draw(st.sampled_from([None, 1, 1, 2, 4]))
    launched = world is not None and draw(st.booleans())
    torchrun = (("LOCAL_RANK", "0"), ("RANK", "0"), ("WORLD_SIZE", str(world)))
    device = draw(st.sampled_from([None, "cpu", "cuda"]))
    return Facts(
        world_size=world, environment=torchrun if launched else draw(st.sampled_from([None, ()])), device_type=device,
        train_samples=draw(st.none() | st.integers(30, 300)), supports_fp16=None if device is None else device == "cuda",
        supports_bf16=None if device is None else True, entropy=draw(st.none() | st.integers(0, 2**64 - 1)),
        started_at=draw(st.sampled_from([None, "20260102_030405"])), checkpoints=draw(st.sampled_from([None, ()])),
        val_samples=_counts(draw, config, "val"), test_samples=_counts(draw, config, "test"),
    )  # fmt: skip


def _counts(draw: st.DrawFn, config: dict[str, Any], mode: str) -> tuple[int, ...] | None:
    given = config.get(f"{mode}_dataloader")
    if given is None or draw(st.booleans()):
        return None
    several = given if isinstance(given, list) else [given] if "dataset" in given else list(given)
    return tuple(draw(st.integers(1, 40)) for _ in several)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[dict[str, Any], Facts]:
    """A config of the whole vocabulary and facts of it; about half are right."""
    loop = draw(some_loops())
    by_epoch = "max_epochs" in loop
    config: dict[str, Any] = {"model": {"type": "pkg.models:Net"}, "train_cfg": loop,
                              "train_dataloader": draw(some_loaders()), "optim_wrapper": draw(some_wrappers())}  # fmt: skip
    for mode in ("val", "test"):
        if draw(st.booleans()):
            config |= draw(_groups(mode))
    if draw(st.integers(0, 60)) == 60:
        del config[draw(st.sampled_from(["model", "train_cfg", "train_dataloader", "optim_wrapper"]))]
    validates = "val_cfg" in config
    _maybe(draw, config, "param_scheduler", some_schedules(by_epoch), share=2)
    slots: dict[str, Any] = {}
    _maybe(draw, slots, "checkpoint", st.none() | some_checkpoint_hooks(validates), share=2)
    _maybe(
        draw,
        slots,
        "logger",
        st.builds(lambda n: {"type": "LoggerHook", "interval": n}, small),
        {"type": "LoggerHook", "interval": 0},
    )
    _maybe(draw, slots, "timer", None)
    _maybe(draw, slots, "own", {"type": "pkg.hooks:Own", "priority": draw(st.integers(0, 100))}, None)
    _maybe(draw, config, "default_hooks", slots, share=2)
    own = st.builds(
        lambda p: {"type": "pkg.hooks:Own", "priority": p},
        st.sampled_from([None, 0, 50, 100, "LOW", "HIGHEST"]),
    )
    custom = st.lists(own | st.sampled_from(HOOKS if validates else HOOKS[:-1]), max_size=3, unique_by=str)
    _maybe(
        draw, config, "custom_hooks", custom, st.sampled_from(WRONG_HOOKS).map(lambda hook: [hook]), share=2
    )
    _maybe(
        draw,
        config,
        "strategy",
        st.sampled_from(["auto", "SingleDeviceStrategy", {"type": "DDPStrategy", "bucket_cap_mb": 5}]),
        "NoStrategy",
    )
    _maybe(draw, config, "launcher", st.sampled_from(["none", "pytorch"]), "slurm")
    _maybe(draw, config, "global_batch_size", st.sampled_from([8, 24, 48, 96]), 0, share=5)
    _maybe(draw, config, "auto_scale_lr", {"enable": True, "base_batch_size": 16},
           st.sampled_from([{"enable": True}, {"enable": False, "base_batch_size": 0}]))  # fmt: skip
    _maybe(draw, config, "resume", draw(st.booleans()), st.sampled_from(["w/epoch_1", ""]))
    revised = {"path": "w/epoch_2", "revise_keys": [["^a", ""]], "strict": False}
    _maybe(draw, config, "load_from", st.sampled_from(["w/epoch_2", revised]), " ")
    _maybe(
        draw,
        config,
        "randomness",
        st.builds(lambda n: {"seed": n, "deterministic": True}, st.integers(0, 2**32 - 1)),
        {"seed": 2**32},
    )
    _maybe(draw, config, "env_cfg", {"dist_cfg": {"backend": "gloo", "timeout": 9}, "cudnn_benchmark": True},
           st.sampled_from([{"dist_cfg": {"backend": "carrier pigeon"}}, {"dist_cfg": {"timeout": 0}}, {"resource_limit": 0}]))  # fmt: skip
    _maybe(
        draw,
        config,
        "log_processor",
        {"window_size": 5},
        st.sampled_from([{"window_size": 0}, {"num_digits": -1}]),
    )
    _maybe(draw, config, "work_dir", st.sampled_from(["runs/a", "b"]), st.sampled_from(["", "a\0b"]))
    _maybe(draw, config, "experiment_name", names, st.sampled_from(["a/b", " "]))
    _maybe(draw, config, "log_level", "DEBUG", "LOUD")
    _maybe(draw, config, "compile", st.sampled_from([True, {"mode": "default"}]), 3)
    _maybe(
        draw,
        config,
        "visualizer",
        {"vis_backends": ["TensorboardVisBackend"]},
        {"vis_backends": ["ClearMLVisBackend"]},
    )
    _maybe(draw, config, "loss", "torch.nn:MSELoss", {"weight": 1})
    return config, draw(some_facts(config))


facts = st.builds(
    Facts,
    world_size=st.none() | st.sampled_from([1, 2, 4]),
    device_type=st.none() | st.sampled_from(["cpu", "cuda"]),
    train_samples=st.none() | st.integers(40, 500),
    entropy=st.none() | st.integers(0, 2**64 - 1),
    started_at=st.none() | st.just("20260102_030405"),
    checkpoints=st.none() | st.just(()),
)

full_facts = Facts(
    environment=(("RANK", "0"), ("WORLD_SIZE", "1")), world_size=1, local_world_size=1, device_type="cpu",
    train_samples=100, val_samples=(10,), test_samples=(10,), entropy=7, started_at="20260102_030405",
    parameter_groups=(GroupFact(values=(("lr", 0.1), ("momentum", 0.9))),),
    hooks=(HookFact(place=0, stages=STAGES[:2]),), checkpoints=(),
)  # fmt: skip


@st.composite
def timelines(draw: st.DrawFn, *, longest: int = 60) -> Timeline:
    """Short clocks of every kind, for stepping through."""
    by_epoch, tail = draw(st.booleans()), draw(st.sampled_from(["carry", "step", "drop"]))
    window, length = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    if by_epoch:
        length = -(-length // window) * window if tail == "drop" else length
        epochs = draw(st.integers(0, max(1, longest // length)))
        total = epochs * length
    else:
        epochs, total = 1, draw(st.integers(0, longest))
        total = total // window * window if tail == "drop" else total
    milestones = draw(
        st.lists(st.tuples(st.integers(1, 15), st.integers(1, 5)), max_size=3, unique_by=lambda m: m[0])
    )
    return Timeline(
        by_epoch=by_epoch, epoch_length=length, max_epochs=epochs, max_iters=total, window=window, tail=tail,
        val_begin=draw(st.integers(0, 10)), val_interval=draw(st.integers(1, 6)),
        dynamic_intervals=tuple(sorted(milestones)), validates=draw(st.booleans()),
    )  # fmt: skip


def save_points(by_epoch: st.SearchStrategy[bool]) -> st.SearchStrategy[SavePoints]:
    return st.builds(
        SavePoints,
        interval=st.integers(-1, 7),
        by_epoch=by_epoch,
        save_begin=st.integers(0, 8),
        save_last=st.booleans(),
    )


orders = st.builds(
    Order, samples=st.integers(1, 60), shuffle=st.booleans(), seed=st.integers(0, 2**32), endless=st.just(False),
    padded=st.booleans(), contiguous=st.just(False), world_size=st.integers(1, 5), micro_batch_size=st.integers(1, 7),
    accumulation=st.just(1), drop_last=st.booleans(),
)  # fmt: skip


def checkpoint(iteration: int, **more: Any) -> CheckpointFact:
    return CheckpointFact(
        path=f"w/checkpoints/iter_{iteration}", name=f"iter_{iteration}", epoch=0, iter=iteration, **more
    )
