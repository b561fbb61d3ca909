"""Hypothesis strategies for configs, facts and clocks; every test draws its values from here."""

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
