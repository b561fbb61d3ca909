"""Rules of parameter schedules and LR scaling."""

import math
from collections.abc import Iterator

from flexcore.checks.cycles import cycles
from flexcore.config import Config
from flexcore.facts import Facts
from flexcore.hooks import HookSlot
from flexcore.loops import IterLoop
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.schedules import Cosine, CosineRestart, Exponential, MultiStep, Poly, Schedule, Step
from flexcore.wrappers import asked, schedule_lists, scheduled_names

FACTORS: tuple[tuple[str, float], ...] = (
    ("factor_value", math.inf), ("start_factor", 1.0), ("end_factor", 1.0), ("gamma", math.inf), ("power", math.inf),
)  # fmt: skip


def schedules(config: Config, facts: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    yield from _named(config, broken)
    for place, own in schedule_lists(config):
        for i, schedule in enumerate(own):
            path: Path = (*place, i)
            yield from _span(schedule, path, isinstance(config.train_cfg, IterLoop))
            yield from _numbers(schedule, path)
            yield from cycles(schedule, path, validates=config.val_cfg is not None or "val_cfg" in broken)
            yield from _moved(schedule, path, facts)
    removed = HookSlot(key="param_scheduler", hook=None) in config.default_hooks
    if config.param_scheduler and removed:
        text = "removes the hook that sets scheduled values, so no schedule has any effect."
        yield problem(
            "FS006", ("default_hooks", "param_scheduler"), text, "Keep the hook or drop param_scheduler."
        )


def _named(config: Config, broken: frozenset[str]) -> Iterator[Problem]:
    """Lists by name are for optimizers of these names."""
    names = [one.name for one in asked(config) if one.name is not None]
    for name in scheduled_names(config) if "optim_wrapper" not in broken else ():
        if not names:
            text = "names an optimizer, and there is just one, without a name."
            yield problem("FO009", ("param_scheduler", name), text, "Write one list of schedules.")
        elif name not in names:
            text = "is not the name of an optimizer."
            remedy = did_you_mean(name, names).strip() or f"Optimizers: {', '.join(names)}."
            yield problem("FO009", ("param_scheduler", name), text, remedy)


def _moved(schedule: Schedule, path: Path, facts: Facts) -> Iterator[Problem]:
    """The built optimizer has the key the schedule moves, in every group."""
    groups = [dict(group.values) for group in facts.parameter_groups or ()]
    lacking = next((group for group in groups if schedule.param not in group), None)
    if lacking is not None:
        text = f"moves {shown(schedule.param)}, and a group of the optimizer has {', '.join(lacking) or 'nothing'}."
        yield problem("FS008", path, text, "Schedule a key the optimizer has.")


def _span(schedule: Schedule, path: Path, iterations: bool) -> Iterator[Problem]:
    if schedule.begin < 0:
        yield problem(
            "FK020", (*path, "begin"), f"must be at least 0, got {schedule.begin}.", "Correct the value."
        )
    if schedule.end is not None and schedule.end <= schedule.begin:
        text = f"is {schedule.end}, not after begin={schedule.begin}."
        yield problem("FS001", (*path, "end"), text, f"Set end above {schedule.begin}.")
    if iterations and schedule.by_epoch:
        text = "counts epochs, and the iteration loop has none."
        yield problem(
            "FS003", (*path, "by_epoch"), text, "Set by_epoch=False and give begin and end in iterations."
        )
    if schedule.convert_to_iter_based and (schedule.by_epoch is False or iterations):
        text = "converts epochs to iterations, but the schedule counts iterations already."
        yield problem("FK019", (*path, "convert_to_iter_based"), text, "Remove it.")


def _numbers(schedule: Schedule, path: Path) -> Iterator[Problem]:
    for name, most in FACTORS:
        value = getattr(schedule, name, None)
        key = "factor" if name == "factor_value" else name
        if value is not None and not (0 <= value <= most and math.isfinite(value)):
            limit = "a finite number >= 0" if most is math.inf else "between 0 and 1"
            yield problem(
                "FK020", (*path, key), f"must be {limit}, got {shown(value)}.", "Correct the value."
            )
    if isinstance(schedule, Step) and schedule.step_size < 1:
        yield problem(
            "FK020",
            (*path, "step_size"),
            f"must be at least 1, got {schedule.step_size}.",
            "Correct the value.",
        )
    if isinstance(schedule, Exponential) and schedule.gamma == 0 and schedule.convert_to_iter_based:
        yield problem("FK020", (*path, "gamma"), "must be above 0 to be converted.", "Correct the value.")
    if isinstance(schedule, MultiStep) and list(schedule.milestones) != sorted(schedule.milestones):
        text = f"are not in rising order: {shown(schedule.milestones)}."
        yield problem("FK020", (*path, "milestones"), text, "Sort them.")
    if isinstance(schedule, Cosine | Poly | CosineRestart):
        yield from _floor(schedule, path)


def _floor(schedule: Cosine | Poly | CosineRestart, path: Path) -> Iterator[Problem]:
    if schedule.eta_min is not None and schedule.eta_min_ratio is not None:
        text = "is given with eta_min; both fix the floor."
        yield problem("FK019", (*path, "eta_min_ratio"), text, "Keep one of them.")
    for name in ("eta_min", "eta_min_ratio"):
        value = getattr(schedule, name)
        if value is not None and not (0 <= value < math.inf):
            yield problem(
                "FK020",
                (*path, name),
                f"must be a finite number >= 0, got {shown(value)}.",
                "Correct the value.",
            )
    if isinstance(schedule, Cosine) and schedule.T_max is not None and schedule.T_max < 1:
        yield problem(
            "FK020", (*path, "T_max"), f"must be at least 1, got {schedule.T_max}.", "Correct the value."
        )


def scaling(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    scale = config.auto_scale_lr
    if scale is not None and scale.enable and scale.base_batch_size is None:
        text = "is enabled without base_batch_size, the batch the LR was tuned for."
        yield problem("FS004", ("auto_scale_lr",), text, "Add base_batch_size.")
    if scale is not None and scale.base_batch_size is not None and scale.base_batch_size < 1:
        text = f"must be at least 1, got {scale.base_batch_size}."
        yield problem("FK020", ("auto_scale_lr", "base_batch_size"), text, "Correct the value.")
