"""Components to live objects: resolve every import path and check every call before anything is built."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from attrs import evolve

from flexcore.components import Component, Data, Items, is_import_path, thaw
from flexcore.config import Config
from flexcore.log_rules import METHODS, rules
from flexcore.loops import OwnTrainLoop
from flexcore.problems import Path, Problem, did_you_mean
from flexcore.rules import problem
from flexcore.run_plan import Mode, Plan, Resume
from flexcore.strategies import DeepSpeed
from shell.loggers.packages import installed, missing
from shell.placing import Placed, placed
from shell.resolving import resolve

RECURSIVE = "_recursive_"


class BuildError(Exception):
    """A component's own constructor failed; the cause is chained and its traceback is the user's code."""

    def __init__(self, path: Path, component: Component, cause: Exception) -> None:
        self.problem = problem(
            "FK013", path, f"{component.type} could not be built: {type(cause).__name__}: {cause}.",
            "Correct its arguments, or the class.",
        )  # fmt: skip
        super().__init__(str(self.problem))


def unresumable(plan: Plan) -> Iterator[Problem]:
    """A loop of the user's own that would begin again where it is to go on."""
    loop = plan.config.train_cfg
    if plan.mode != "train" or not isinstance(plan.start, Resume) or not isinstance(loop, OwnTrainLoop):
        return
    try:
        target = resolve(loop.component.type)
    except LookupError:  # told already
        return
    lacking = [name for name in ("state_dict", "load_state_dict") if not hasattr(target, name)]
    if lacking:
        text = f"{loop.component.type} has no {' and no '.join(lacking)}, so {plan.start.path} cannot be resumed."
        remedy = "Define both ({} where the run and its dataloader hold all its state), or set resume=False."
        yield problem("FC013", ("train_cfg", "type"), text, remedy)


def problems(config: Config, mode: Mode, *, smoke: bool = False) -> list[Problem]:
    """Every component that cannot be found or would not accept its arguments. Imports, builds nothing."""
    found = [p for one in placed(config, mode, smoke=smoke) for p in _problems(one)]
    return [
        *found,
        *_compilers(config.compile),
        *_statistics(config),
        *missing(config),
        *_engines(config.strategy),
    ]


def _engines(strategy: object) -> Iterator[Problem]:
    """The package that carries a strategy out, where it is not torch's own."""
    if isinstance(strategy, DeepSpeed) and not installed("deepspeed"):
        text = "is carried out by the package deepspeed, which is not installed here."
        yield problem("FK013", ("strategy",), text, 'Install it with pip install "flexcore[deepspeed]".')


def _compilers(asked: bool | Data) -> Iterator[Problem]:
    """A backend that torch.compile does not know, before the first step would say so."""
    name = asked.get("backend") if isinstance(asked, Data) else None
    if not isinstance(name, str) or name == "inductor":
        return
    from torch import _dynamo  # seconds of imports that only those who compile pay

    known = _dynamo.list_backends(exclude_tags=())
    if name not in known:
        text = f'"{name}" is not a backend of torch.compile.'
        yield problem(
            "FK013", ("compile", "backend"), text, did_you_mean(name, known).strip() or "Correct it."
        )


def _statistics(config: Config) -> Iterator[Problem]:
    """Functions that log rules name, which are called with values and the rule's own arguments."""
    for i, rule in enumerate(rules(config.log_processor.custom_cfg)):
        if rule.method not in METHODS:
            path: Path = ("log_processor", "custom_cfg", i)
            called = Component(type=rule.method, kwargs=rule.kwargs)
            for found in _problems(Placed(path, called, given=1)):
                yield evolve(
                    found, path=(*path, "method_name") if found.path == (*path, "type") else found.path
                )


def _problems(one: Placed) -> Iterator[Problem]:
    try:
        target = resolve(one.component.type, one.home)
    except LookupError as error:
        yield problem("FK013", (*one.path, "type"), str(error.args[0]), str(error.args[1]))
    else:
        yield from _verbless(one, target)
        yield from _unbindable(one, target)
    if one.component.kwargs.get(RECURSIVE, True):
        yield from _nested_problems(one.path, one.component.kwargs)


def _verbless(one: Placed, target: Callable[..., Any]) -> Iterator[Problem]:
    lacking = [verb for verb in one.verbs if not callable(getattr(target, verb, None))]
    if lacking:
        text = f"{one.component.type} has no {' and no '.join(f'{verb}()' for verb in lacking)}."
        yield problem("FK013", (*one.path, "type"), text, f"Name a class with {' and '.join(one.verbs)}.")


def _unbindable(one: Placed, target: Callable[..., Any]) -> Iterator[Problem]:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    keys = [str(key) for key in one.component.kwargs if key != RECURSIVE]
    try:
        signature.bind(*[None] * one.given, **dict.fromkeys([*keys, *one.filled]))
    except TypeError as error:
        names = [name for name in signature.parameters if name not in ("self", "args", "kwargs")][one.given :]
        wrong = next((key for key in keys if key not in names), "")
        guess = did_you_mean(wrong, names).strip() if wrong else ""
        text = f"{one.component.type} cannot be called so: {error}."
        yield problem("FK013", one.path, text, guess or f"It takes {', '.join(names) or 'nothing'}.")


def _nested_problems(path: Path, data: Any) -> Iterator[Problem]:
    if isinstance(data, Data):
        for key, value in data.entries:
            nested = _nested(value)
            if nested is not None:
                yield from _problems(Placed((*path, key), nested))
            else:
                yield from _nested_problems((*path, key), value)
    elif isinstance(data, tuple | Items):
        values = data.values if isinstance(data, Items) else data
        yield from _nested_problems(path, Data(tuple(enumerate(values))))


def _nested(value: Any) -> Component | None:
    """The component a mapping stands for: its type is "module:Name" or "pkg.module.Name". Any other is its owner's data.

    One dot alone does not tell, since "mmdet.ResNet" may as well be a scoped registry name that the owner builds:
    "mmdet:ResNet" is built.
    """
    kind = value.get("type") if isinstance(value, Data) else None
    if not (isinstance(kind, str) and is_import_path(kind) and (":" in kind or kind.count(".") > 1)):
        return None
    rest = Data(tuple((key, item) for key, item in value.entries if key != "type"))
    return Component(type=kind, kwargs=rest)


def build(
    component: Component,
    path: Path,
    *args: Any,
    home: str | None = None,
    around: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    **extra: Any,
) -> Any:
    """The object: nested import-path mappings inside out, then `type(*args, **kwargs, **extra)`.

    around: makes what is called of the type.

    Raises:
        BuildError: the constructor raised.
    """
    recursive = component.kwargs.get(RECURSIVE, True)
    kwargs = {
        str(key): _built(value, (*path, key)) if recursive else thaw(value)
        for key, value in component.kwargs.entries
        if key != RECURSIVE
    }
    try:
        made = resolve(component.type, home)
        return (made if around is None else around(made))(*args, **kwargs, **extra)
    except Exception as error:
        raise BuildError(path, component, error) from error


def _built(value: Any, path: Path) -> Any:
    """Plain data with each mapping that stands for a component built; any other mapping is its owner's data."""
    nested = _nested(value)
    if nested is not None:
        return build(nested, path)
    if isinstance(value, Data):
        return {key: _built(item, (*path, key)) for key, item in value.entries}
    if isinstance(value, Items):
        return [_built(item, (*path, i)) for i, item in enumerate(value.values)]
    if isinstance(value, tuple):
        return tuple(_built(item, (*path, i)) for i, item in enumerate(value))
    return thaw(value)
