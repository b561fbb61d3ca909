"""Components to live objects: resolve every import path and check every call before anything is built."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from typing import Any

from attrs import evolve, frozen

from flexcore import preprocessing
from flexcore.components import Component, Data, Items, Supplied, is_import_path, thaw
from flexcore.config import Config, DataLoader
from flexcore.evaluating import is_dump
from flexcore.hooks import UserHook, merged
from flexcore.log_rules import METHODS, rules
from flexcore.loops import TTA, OwnEvalLoop, OwnTrainLoop, TestLoop
from flexcore.problems import Path, Problem, did_you_mean
from flexcore.rules import problem
from flexcore.run_plan import Mode, Plan, Resume
from flexcore.strategies import DeepSpeed
from flexcore.wrappers import asked
from shell.loggers.packages import installed, missing

COLLATES = ("default_collate", "pseudo_collate")
RECURSIVE = "_recursive_"


class BuildError(Exception):
    """A component's own constructor failed; the cause is chained and its traceback is the user's code."""

    def __init__(self, path: Path, component: Component, cause: Exception) -> None:
        self.problem = problem(
            "FK013", path, f"{component.type} could not be built: {type(cause).__name__}: {cause}.",
            "Correct its arguments, or the class.",
        )  # fmt: skip
        super().__init__(str(self.problem))


@frozen
class Placed:
    """One thing a run will build.

    Attributes:
        path: its place in the config.
        home: the module its bare name belongs to; None: only an import path names it.
        given: how many arguments the run itself puts before the config's.
        filled: the arguments the run itself adds by name.
        verbs: the methods its class must have.
    """

    path: Path
    component: Component
    home: str | None = None
    given: int = 0
    filled: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()


def placed(config: Config, mode: Mode, *, smoke: bool = False) -> Iterator[Placed]:
    """All that a run in this mode will build; what only other modes use is left alone."""
    modes = {"train": ("train", "val", "test") if smoke else ("train", "val")}.get(mode, (mode,))
    yield from _thing(("model",), config.model)
    yield from _thing(("loss",), config.loss)
    yield from _thing(("data_preprocessor",), preprocessing.chosen(config))
    if mode == "train" and config.train_dataloader is not None:
        yield from _loader(("train_dataloader",), config.train_dataloader)
    for one in asked(config) if mode == "train" else ():
        yield from _thing((*one.place, "optimizer"), one.optimizer, home="torch.optim", given=1)
    if mode == "train" and isinstance(config.train_cfg, OwnTrainLoop):
        yield Placed(("train_cfg",), config.train_cfg.component, given=2, verbs=("run",))
    for key, loop in (("val", config.val_cfg), ("test", config.test_cfg)):
        if key in modes and isinstance(loop, OwnEvalLoop):
            yield Placed((f"{key}_cfg",), loop.component, given=3, verbs=("run",))
        if key in modes and isinstance(loop, TestLoop) and loop.tta is not None:
            yield from _augmentation(loop.tta, ("test_cfg", "tta"))
    for key, section in (("val", config.val_dataloader), ("test", config.test_dataloader)):
        for i, named in enumerate(section or () if key in modes else ()):
            yield from _loader(_place(f"{key}_dataloader", named.name, i, section), named.loader)
    for key, metrics in (("val", config.val_evaluator), ("test", config.test_evaluator)):
        for i, metric in enumerate(metrics or () if key in modes else ()):
            if not is_dump(metric.metric):
                yield from _thing(_place(f"{key}_evaluator", metric.name, i, metrics), metric.metric)
    for place, hook in merged(config.default_hooks, config.custom_hooks):
        if isinstance(hook, UserHook):
            owner = "custom_hooks" if isinstance(place, int) else "default_hooks"
            yield Placed((owner, place), hook.component)


def _augmentation(tta: TTA | Component, path: Path) -> Iterator[Placed]:
    if isinstance(tta, Component):
        yield Placed(path, tta, verbs=("augment", "merge"))
        return
    for i, transform in enumerate(tta.transforms):
        if transform.is_import_path:
            yield Placed((*path, "transforms", i), transform, given=0 if _is_class(transform) else 1)
    if is_import_path(tta.merge):
        yield Placed((*path, "merge"), Component(type=tta.merge), given=1)


def _is_class(component: Component) -> bool:
    """Whether the type is a class, to be built with its arguments, and no function, to be called with them besides."""
    try:
        return inspect.isclass(resolve(component.type))
    except LookupError:  # told where it is resolved for good
        return False


def _place(key: str, name: str | None, index: int, section: Sized | None) -> Path:
    """Where one of several stands; a lone unnamed one is the section itself."""
    return (key,) if name is None and section is not None and len(section) == 1 else (key, name or index)


def _thing(
    path: Path, thing: Component | Supplied | None, home: str | None = None, given: int = 0
) -> Iterator[Placed]:
    if isinstance(thing, Component):
        yield Placed(path, thing, home, given)


def _loader(path: Path, loader: DataLoader | Supplied) -> Iterator[Placed]:
    if isinstance(loader, Supplied):
        return
    yield from _thing((*path, "dataset"), loader.dataset)
    for name in ("sampler", "collate_fn", "worker_init_fn"):
        part = getattr(loader, name)
        if isinstance(part, Component) and part.type not in COLLATES:
            yield Placed((*path, name), part, given=1)
    if loader.batch_sampler is not None:
        yield Placed((*path, "batch_sampler"), loader.batch_sampler, filled=filled_in(loader))


def filled_in(loader: DataLoader) -> tuple[str, ...]:
    """What a batch sampler gets from its loader besides its own arguments, as FlexibleRunner gives it.

    The sampler and batch_size; drop_last where it is set or taken.
    """
    sampler = loader.batch_sampler
    wanted = {"sampler": True, "batch_size": loader.batch_size is not None, "drop_last": loader.drop_last}
    if sampler is None:
        return ()
    with suppress(LookupError, TypeError, ValueError):  # told where it is resolved for good
        wanted["drop_last"] |= "drop_last" in inspect.signature(resolve(sampler.type)).parameters
    return tuple(name for name, given in wanted.items() if given and name not in sampler.kwargs)


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


def resolve(type_name: str, home: str | None = None) -> Callable[..., Any]:
    """The class or function a type name means; `home` is the module of bare names.

    Raises:
        LookupError: with (message, remedy): no such module, no such name, or not callable.
    """
    if not is_import_path(type_name):
        if home is None:
            text = f'"{type_name}" is a registry name, and there are no registries here.'
            raise LookupError(text, f'Write "package.module:{type_name}".')
        type_name = f"{home}:{type_name}"
    dotted, _, name = type_name.partition(":") if ":" in type_name else type_name.rpartition(".")
    try:
        found: Any = importlib.import_module(dotted)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else dotted
        remedy = f'Install or correct "{missing}", or run where it is importable.'
        raise LookupError(f'module "{dotted}" cannot be imported: {error}.', remedy) from error
    except Exception as error:
        text = f'module "{dotted}" fails on import: {type(error).__name__}: {error}.'
        raise LookupError(text, "Correct the module.") from error
    for part in name.split("."):
        if not hasattr(found, part):
            guess = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")]).strip()
            raise LookupError(f'"{dotted}" has no "{part}".', guess or "Correct the name.")
        found = getattr(found, part)
    if not callable(found):
        text = f'"{type_name}" is not a class or function.'
        raise LookupError(text, "Name something that can be called.")  # noqa: TRY004 - one kind for both
    return found


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
