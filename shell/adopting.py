"""A training checkpoint of mmengine's taken over: weights, optimizer, averages, scores; what has no place here is told."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from flexcore.problems import shown
from flexcore.run_plan import Resume
from shell import mmengine_files
from shell.environment import reseed
from shell.hooks.checkpoint import CheckpointHook
from shell.hooks.ema import EMAHook, averaged
from shell.inert import NotInert
from shell.mapped import Mapped
from shell.results import CheckpointRefused
from shell.run import Run
from shell.saving import put_weights
from shell.state_tensors import StateMismatch
from shell.weights import named, unwrapped

TELLING = frozenset(
    ("betas", "momentum", "alpha", "rho", "nesterov", "lambd", "etas", "initial_accumulator_value")
)
"""Settings that some optimizers have and others lack."""
OURS = frozenset(("params", "param_names", "lr", "initial_lr", "foreach", "fused", "capturable", "differentiable", "maximize",
                  "decoupled_weight_decay", "is_layer_decay"))  # fmt: skip
"""Settings of a group in which it does not matter what the file says: the plan's hold, or they change no value."""
SCALER = frozenset(("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"))
"""What torch's GradScaler tells of itself."""
NOT_TAKEN = (
    "RNG: mmengine keeps none; it is derived from (seed, iteration, rank)",
    "schedules: their values follow from the iteration; mmengine's param_schedulers and message_hub are not read",
)

Tree = Mapping[Any, Any]


def adopt(run: Run, start: Resume) -> tuple[list[str], dict[str, float]]:
    """Put the state into the run; returns (what could not be taken, for the log; the scores to beat, by metric).

    Raises:
        CheckpointRefused: the file, its weights or its optimizer's state do not fit.
    """
    file = mmengine_files.opened(start.path)
    if mmengine_files.completed(file.tree) != start.iter:
        raise CheckpointRefused(
            f"{start.path} is not the file that was planned with: it was written since. Start again."
        )
    try:
        notes = _adopted(run, start.path, file.tree, Mapped(file))
        best, more = _load_best(run, mmengine_files.best(file.tree))
    except NotInert as error:
        raise CheckpointRefused(f"{start.path} {error}. {mmengine_files.REMEDY}") from error
    reseed(run.plan, int(start.iter or 0), run.data_rank)
    return [*NOT_TAKEN, *notes, *more], best


def _adopted(run: Run, path: str, tree: Tree, mapped: Mapped) -> list[str]:
    weights = unwrapped({name: mapped.tensor(view) for name, view in named(path, tree).items()})
    trained, averages, steps = _apart(weights, mapped.of(tree.get("ema_state_dict")))
    put_weights(run, trained, path)
    optimizers = _load_optimizers(run, path, mapped.of(tree.get("optimizer")))
    return [*optimizers, *_load_averages(run, averages, steps)]


def _apart(
    weights: Mapping[str, torch.Tensor], kept: Any
) -> tuple[dict[str, torch.Tensor], Mapping[str, torch.Tensor], int]:
    """(weights that train, their averages, steps averaged): with an EMAHook mmengine saves each in the other's place."""
    if not isinstance(kept, dict):
        return dict(weights), {}, 0
    swapped = {
        str(name).removeprefix("module."): tensor
        for name, tensor in kept.items()
        if str(name).startswith("module.") and isinstance(tensor, torch.Tensor)
    }
    steps = kept.get("steps")
    done = (
        int(steps)
        if isinstance(steps, torch.Tensor) and steps.dtype == torch.int64 and steps.numel() == 1
        else 0
    )
    return {**weights, **swapped}, {name: weights[name] for name in swapped if name in weights}, done


def _load_optimizers(run: Run, path: str, saved: Any) -> Iterator[str]:
    for name, wrapper in run.optim_wrapper.each:
        own = saved if name is None else saved.get(name) if isinstance(saved, dict) else None
        whose = "the optimizer" if name is None else f"the optimizer of {name}"
        if not isinstance(own, dict) or not isinstance(own.get("state"), dict) or not _groups(own):
            raise CheckpointRefused(
                f"{path} holds no state for {whose}. Take its weights alone: load_from, resume=False."
            )
        try:
            tree, differing = _tree(run, wrapper.optimizer, own, name)
            run.strategy.load_optimizer(wrapper.optimizer, tree)
        except StateMismatch as error:
            raise CheckpointRefused(f"{path} does not fit {whose}: {error}") from error
        scaler = own.get("loss_scaler")
        if (
            isinstance(scaler, dict)
            and {key for key, value in scaler.items() if type(value) in (int, float)} >= SCALER
        ):
            wrapper.load_scaler(scaler)
        if differing:
            yield f"{whose}: the config's settings hold; the file has {', '.join(differing)}"


def _groups(own: Tree) -> list[Tree]:
    found = own.get("param_groups")
    return found if isinstance(found, list) and all(map(_is_group, found)) else []


def _is_group(group: Any) -> bool:
    numbers = group.get("params") if isinstance(group, dict) else None
    return isinstance(numbers, list) and all(type(one) is int for one in numbers)


def _tree(
    run: Run, optimizer: torch.optim.Optimizer, own: Tree, prefix: str | None
) -> tuple[dict[str, Any], list[str]]:
    """(the state by name, as `restore_optimizer` takes it, settings that differ): torch numbers parameters in the order of groups."""
    here: dict[str, Any] = dict(run.strategy.save_optimizer(optimizer))
    groups, shapes = _groups(own), here["shapes"]
    order = [index for group in groups for index in group["params"]]
    names = _names(run, prefix, len(order), shapes)
    _check_kind(here["param_groups"], groups)
    by_name = {
        names[place]: own["state"][index] for place, index in enumerate(order) if index in own["state"]
    }
    state = {name: _checked(name, value, shapes[name]) for name, value in by_name.items() if name in shapes}
    theirs = {names[place]: group for place, group in enumerate(g for g in groups for _ in g["params"])}
    return {**here, "state": state}, _differing(here["param_groups"], theirs)


def _names(run: Run, prefix: str | None, count: int, trained: Tree) -> list[str]:
    """The parameters in mmengine's order, which is the model's: all of them, or those that train."""
    every = [
        name for name, _ in run.model.named_parameters() if prefix is None or name.startswith(f"{prefix}.")
    ]
    for names in (every, [name for name in every if name in trained]):
        if len(names) == count:
            return names
    rule = f"the model has {len(every)}, {len(trained)} of which it trains: build the model as it was"
    raise StateMismatch("The number of its parameters", str(count), rule)


def _check_kind(here: list[Tree], there: list[Tree]) -> None:
    own, other = (
        sorted(TELLING & {str(key) for group in groups for key in group}) for groups in (here, there)
    )
    if own != other:
        rule = f"this optimizer has {', '.join(own) or 'none of these'}: take the one it was trained with"
        raise StateMismatch("What its groups set", ", ".join(other) or "nothing of an optimizer's own", rule)


def _checked(name: str, value: Any, shape: list[int]) -> dict[str, Any]:
    """One parameter's state: tensors of its shape or of none; a step count as a tensor, as torch has it since 1.12."""
    if not isinstance(value, dict):
        raise StateMismatch(f"The state of {name!r}", f"a {type(value).__name__}", "it is a mapping")
    found = {}
    for key, item in value.items():
        if isinstance(item, torch.Tensor) and item.numel() != 1 and list(item.shape) != list(shape):
            rule = f"the parameter is {list(shape)}: build the model as it was"
            raise StateMismatch(f"{key} of {name!r}", f"of shape {list(item.shape)}", rule)
        if not isinstance(item, torch.Tensor | int | float | type(None)):
            raise StateMismatch(
                f"{key} of {name!r}", f"a {type(item).__name__}", "it is a tensor or a number"
            )
        steps = key == "step" and not isinstance(item, torch.Tensor) and item is not None
        found[str(key)] = torch.tensor(float(item)) if steps else item
    return found


def _differing(here: list[Tree], theirs: Mapping[str, Tree]) -> list[str]:
    found: dict[str, None] = {}
    for group in here:
        for name in group["params"]:
            other = theirs.get(name, {})
            for key in (group.keys() & other.keys()) - OURS:
                if _is_plain(other[key]) and _plain(group[key]) != _plain(other[key]):
                    found[f"{key} {shown(other[key])} for {name}"] = None
    told = sorted(found)
    return told[:4] + ([f"and {len(told) - 4} more"] if len(told) > 4 else [])


def _is_plain(value: Any) -> bool:
    items = value if isinstance(value, tuple) and len(value) <= 4 else (value,)
    return all(type(one) in (int, float, bool) for one in items)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _load_averages(run: Run, averages: Mapping[str, torch.Tensor], steps: int) -> Iterator[str]:
    hook = next((hook for hook in run.stages.hooks if isinstance(hook, EMAHook)), None)
    if hook is None:
        if averages:
            yield "ema_state_dict: no EMAHook runs, so its averages are left behind; the weights that trained go on"
    elif not averages:
        yield "EMAHook: the file holds no averages; they start anew"
    else:
        own = averaged(run.model, buffers=hook.spec.update_buffers)
        hook.load_state_dict(
            {"steps": steps, "averaged": {name: averages[name] for name in own if name in averages}}
        )


def _load_best(run: Run, scores: Mapping[str | None, float]) -> tuple[dict[str, float], list[str]]:
    """(the score to beat of each metric watched, those that are not told); the files that had them stay where they are."""
    hook = next((hook for hook in run.stages.hooks if isinstance(hook, CheckpointHook)), None)
    keys = (
        [entry.key for entry in run.plan.saving.best]
        if hook is not None and run.plan.saving is not None
        else []
    )
    found, missing = {}, []
    for key in keys:
        score = scores.get(key, scores.get(None) if len(keys) == 1 else None)
        if key is not None and score is not None:
            found[key] = score
        else:
            missing.append(
                f"save_best: the file does not tell the best {key or 'score'}; the next validation sets it"
            )
    if hook is not None:
        hook.best.update({key: (score, None) for key, score in found.items()})
    return found, missing
