"""Rules between sections: groups that belong together, exclusive keys, ranges of plain numbers and names."""

import math
import re
from collections.abc import Iterator

from flexcore.components import Component, Data
from flexcore.config import AmpOptim, Config, LoadFrom, weights_of
from flexcore.facts import Facts
from flexcore.loops import EpochLoop, OwnTrainLoop
from flexcore.problems import Path, Problem, did_you_mean, is_url, shown, usable
from flexcore.rules import problem
from flexcore.wrappers import Asked, asked

GROUPS: tuple[tuple[str, ...], ...] = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)


def groups(config: Config, _: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    for group in GROUPS:
        given = [name for name in group if name in broken or getattr(config, name) is not None]
        missing = [name for name in group if name not in given]
        if given and missing:
            yield problem(
                "FK018", (missing[0],),
                f"is missing while {' and '.join(given)} {'is' if len(given) == 1 else 'are'} given; "
                f"{', '.join(group)} come together.",
                f"Add {' and '.join(missing)}, or remove {' and '.join(given)}.",
            )  # fmt: skip
    if config.param_scheduler is not None and config.optim_wrapper is None and "optim_wrapper" not in broken:
        text = "is given without optim_wrapper, whose parameters it would move."
        yield problem("FS005", ("param_scheduler",), text, "Add optim_wrapper or remove param_scheduler.")


def starting(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    weights = weights_of(config)
    if isinstance(config.resume, str) and weights is not None:
        text = f"names {shown(config.resume)} while load_from names {shown(weights.path)}; a run starts from one."
        yield problem("FC001", ("resume",), text, "Keep resume, or write resume=True with load_from.")
    place: Path = ("load_from", "path") if isinstance(config.load_from, LoadFrom) else ("load_from",)
    named = ((("resume",), config.resume), (place, weights and weights.path))
    for path, value in named:
        if isinstance(value, str) and not usable(value):
            yield problem(
                "FC010", path, f"is not a usable path: {shown(value)}.", "Name a checkpoint or remove it."
            )
        elif isinstance(value, str) and is_url(value) and config.resume is not False:
            text = (
                f"is {shown(value)}, and what is resumed must be looked at before the run: it is not fetched."
            )
            yield problem(
                "FC010", path, text, "Download it and name the file, or take its weights alone: resume=False."
            )
    if weights is not None:
        yield from _revisions(weights, resumes=config.resume is True)


def _revisions(weights: LoadFrom, *, resumes: bool) -> Iterator[Problem]:
    if resumes and (weights.revise_keys or not weights.strict):
        text = "has settings for weights alone, and with resume=True all of a checkpoint is taken as it is."
        yield problem("FK019", ("load_from",), text, "Name the path alone, or write resume=False.")
    for index, (pattern, replacement) in enumerate(weights.revise_keys):
        place: Path = ("load_from", "revise_keys", index)
        wrong = list(_pattern((*place, 0), pattern))
        yield from wrong
        try:
            if not wrong:
                re.compile(pattern).sub(replacement, "")
        except (re.error, IndexError, OverflowError) as error:
            text = f"does not fit its pattern: {shown(replacement)}: {error}."
            yield problem("FK020", (*place, 1), text, "Name the groups that the pattern has.")


def ranges(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    yield from _loop_ranges(config)
    yield from _optim_ranges(config)
    at_least = (
        (("global_batch_size",), config.global_batch_size, 1),
        (("env_cfg", "resource_limit"), config.env_cfg.resource_limit, 1),
        (("env_cfg", "mp_cfg", "opencv_num_threads"), config.env_cfg.mp_cfg.opencv_num_threads, 0),
        (("log_processor", "window_size"), config.log_processor.window_size, 1),
        (("log_processor", "num_digits"), config.log_processor.num_digits, 0),
        (("randomness", "seed"), config.randomness.seed, 0),
        (("format_version",), config.format_version, 1),
    )
    for path, value, least in at_least:
        yield from _at_least(path, value, least)
    yield from _positive(("env_cfg", "dist_cfg", "timeout"), config.env_cfg.dist_cfg.timeout)
    yield from _positive(("env_cfg", "hang_timeout"), config.env_cfg.hang_timeout)
    yield from _pattern(("log_processor", "mean_pattern"), config.log_processor.mean_pattern)
    seed = config.randomness.seed
    if seed is not None and seed >= 2**32:
        yield problem(
            "FK020", ("randomness", "seed"), f"must be below 2**32, got {seed}.", "Pick a smaller seed."
        )
    if config.format_version > 1:
        text = f"is {config.format_version}; this release reads format 1."
        yield problem("FK020", ("format_version",), text, "Update flexcore or write format_version=1.")


def _pattern(path: Path, value: str | None) -> Iterator[Problem]:
    if value is None:
        return
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        text = f"is not a regular expression: {shown(value)}: {error}."
        yield problem("FK020", path, text, "Correct the pattern.")


def _loop_ranges(config: Config) -> Iterator[Problem]:
    loop = config.train_cfg
    if loop is None:
        return
    if isinstance(loop, OwnTrainLoop):
        yield from _own_lengths(loop)
        return
    total, name = (
        (loop.max_epochs, "max_epochs") if isinstance(loop, EpochLoop) else (loop.max_iters, "max_iters")
    )
    yield from _at_least(("train_cfg", name), total, 0)
    yield from _at_least(("train_cfg", "val_begin"), loop.val_begin, 0)
    yield from _at_least(("train_cfg", "val_interval"), loop.val_interval, 1)
    yield from _positive(("train_cfg", "max_time"), loop.max_time)
    unit, previous = "epoch" if loop.by_epoch else "iteration", 0
    for i, (milestone, interval) in enumerate(loop.dynamic_intervals or ()):
        path: Path = ("train_cfg", "dynamic_intervals", i)
        if milestone <= previous:
            text = f"starts at {unit} {milestone}, not after the one before ({previous})."
            yield problem("FK020", path, text, "List milestones in rising order, from 1.")
        yield from _at_least((*path, 1), interval, 1)
        previous = milestone


def _own_lengths(loop: OwnTrainLoop) -> Iterator[Problem]:
    """A loop of one's own may count as it likes; what the plan takes for its length must be one."""
    given = [name for name in ("max_epochs", "max_iters") if name in loop.component.kwargs]
    for name in given:
        value = loop.component.kwargs[name]
        if type(value) is not int or value < 1:
            text = (
                f"is the length that schedules are planned for, so it must be at least 1, got {shown(value)}."
            )
            yield problem("FK020", ("train_cfg", name), text, "Correct the value, or rename the argument.")
    if len(given) == 2:
        text = "is given with max_epochs, and schedules can be planned for one length."
        yield problem("FK019", ("train_cfg", "max_iters"), text, "Keep one of them.")


def _optim_ranges(config: Config) -> Iterator[Problem]:
    for one in asked(config):
        yield from _wrapper(one)


def _wrapper(one: Asked) -> Iterator[Problem]:
    wrapper, place = one.wrapper, one.place
    yield from _at_least((*place, "accumulative_counts"), wrapper.accumulative_counts, 1)
    if isinstance(one.optimizer, Component):
        yield from _optimizer(one.optimizer, (*place, "optimizer"))
    clip, path = wrapper.clip_grad, (*place, "clip_grad")
    if clip is not None:
        needed, other = ("max_norm", "clip_value") if clip.type == "norm" else ("clip_value", "max_norm")
        if getattr(clip, needed) is None:
            yield problem(
                "FK012", path, f'lacks the key "{needed}".', f'Add "{needed}" for type="{clip.type}".'
            )
        if getattr(clip, other) is not None:
            text = f'has "{other}", which type="{clip.type}" does not use.'
            yield problem("FK019", (*path, other), text, "Remove it, or choose the other type.")
        yield from _positive((*path, needed), getattr(clip, needed))
        yield from _positive((*path, "norm_type"), clip.norm_type, infinite=True)
    if isinstance(wrapper, AmpOptim):
        yield from _loss_scale(wrapper, (*place, "loss_scale"))


# Settings of torch.amp.GradScaler: (name, kind, exclusive lower bound, exclusive upper bound).
SCALER: tuple[tuple[str, type, float, float], ...] = (
    ("init_scale", float, 0, math.inf), ("growth_factor", float, 1, math.inf), ("backoff_factor", float, 0, 1),
    ("growth_interval", int, 0, math.inf),
)  # fmt: skip


def _loss_scale(wrapper: AmpOptim, path: Path) -> Iterator[Problem]:
    if wrapper.dtype == "bfloat16" and wrapper.loss_scale != "dynamic":
        text = f"is {shown(wrapper.loss_scale)} with dtype bfloat16, which needs no loss scaling; it has no effect."
        yield problem("FP006", path, text, "Remove it, or use float16.")
    if isinstance(wrapper.loss_scale, float):
        yield from _positive(path, wrapper.loss_scale)
    elif isinstance(wrapper.loss_scale, Data):
        known = {name: (kind, low, high) for name, kind, low, high in SCALER}
        for name, value in wrapper.loss_scale.entries:
            if name not in known:
                guess = (
                    did_you_mean(str(name), known).strip() or f"Remove it; known here: {', '.join(known)}."
                )
                yield problem("FK010", (*path, name), "is not a setting of the loss scaler.", guess)
                continue
            kind, low, high = known[str(name)]
            kinds = (int,) if kind is int else (int, float)
            if type(value) not in kinds or not low < value < high:
                word = "an integer" if kind is int else "a number"
                limits = f"above {low}" if high == math.inf else f"between {low} and {high}"
                yield problem(
                    "FK020",
                    (*path, name),
                    f"must be {word} {limits}, got {shown(value)}.",
                    "Correct the value.",
                )


def _optimizer(optimizer: Component, path: Path) -> Iterator[Problem]:
    lr = optimizer.kwargs.get("lr")
    if "lr" in optimizer.kwargs and (type(lr) not in (int, float) or not math.isfinite(lr) or lr < 0):
        yield problem(
            "FK020", (*path, "lr"), f"must be a finite number >= 0, got {shown(lr)}.", "Correct the LR."
        )
    if "params" in optimizer.kwargs:
        yield problem(
            "FK019", (*path, "params"), "is the model's parameters, which the run fills in.", "Remove it."
        )


def names(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    for key in ("work_dir", "experiment_name"):
        value = getattr(config, key)
        if value is not None and (not usable(value)):
            yield problem(
                "FC010", (key,), f"is not a usable name: {shown(value)}.", "Write a plain path or name."
            )
    label = config.visualizer.name if config.visualizer is not None else None
    if label is not None and (not usable(label) or "/" in label or label in (".", "..")):
        text = f"is not a usable directory name: {shown(label)}."
        yield problem("FC010", ("visualizer", "name"), text, "Write a plain name.")
    name = config.experiment_name
    if name is not None and ("/" in name or "\\" in name):
        yield problem(
            "FC010", ("experiment_name",), f"holds a path separator: {shown(name)}.", "Use work_dir for that."
        )


def _at_least(path: Path, value: int | None, least: int) -> Iterator[Problem]:
    if value is not None and value < least:
        yield problem("FK020", path, f"must be at least {least}, got {shown(value)}.", "Correct the value.")


def _positive(path: Path, value: float | None, *, infinite: bool = False) -> Iterator[Problem]:
    if value is not None and not (value > 0 and (infinite or math.isfinite(value))):
        yield problem(
            "FK020", path, f"must be a finite number > 0, got {shown(value)}.", "Correct the value."
        )
