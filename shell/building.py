"""Components to live objects: resolve every import path and check every call before anything is built."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from flexcore.components import Component, Data, Items, Supplied, is_import_path, thaw
from flexcore.config import DataLoader
from flexcore.hooks import UserHook
from flexcore.problems import ConfigError, Path, Problem, did_you_mean
from flexcore.rules import problem
from flexcore.run_plan import Plan

COLLATES = ("default_collate", "pseudo_collate")


class BuildError(Exception):
    """A component's own constructor failed; the cause is chained and its traceback is the user's code."""

    def __init__(self, path: Path, component: Component, cause: Exception) -> None:
        self.problem = problem(
            "FK013", path, f"{component.type} could not be built: {type(cause).__name__}: {cause}.",
            "Correct its arguments, or the class.",
        )  # fmt: skip
        super().__init__(str(self.problem))


def placed(plan: Plan) -> Iterator[tuple[Path, Component, str | None]]:
    """(path in the config, component, module that short names belong to) of all that will be built."""
    yield from _thing(("model",), plan.model)
    yield from _thing(("loss",), plan.loss)
    if plan.train is not None:
        yield from _loader(("train_dataloader",), plan.train.loader)
    for mode, part in (("val", plan.validation), ("test", plan.testing)):
        for i, data in enumerate(part.loaders if part is not None else ()):
            path: Path = (f"{mode}_dataloader",)
            several = part is not None and len(part.loaders) > 1
            yield from _loader((*path, data.name or i) if several else path, data.loader)
        for metric in part.metrics if part is not None else ():
            yield from _thing((f"{mode}_evaluator", metric.name), metric.metric)
    if plan.optimizer is not None and isinstance(plan.optimizer.component, Component):
        yield ("optim_wrapper", "optimizer"), plan.optimizer.component, "torch.optim"
    for hook in plan.hooks:
        if isinstance(hook.hook, UserHook):
            owner = "custom_hooks" if isinstance(hook.place, int) else "default_hooks"
            yield (owner, hook.place), hook.hook.component, None


def _thing(path: Path, thing: Component | Supplied | None) -> Iterator[tuple[Path, Component, str | None]]:
    if isinstance(thing, Component):
        yield path, thing, None


def _loader(path: Path, loader: DataLoader | Supplied) -> Iterator[tuple[Path, Component, str | None]]:
    if isinstance(loader, Supplied):
        return
    yield from _thing((*path, "dataset"), loader.dataset)
    if isinstance(loader.sampler, Component):
        yield (*path, "sampler"), loader.sampler, None
    for name in ("collate_fn", "worker_init_fn"):
        part = getattr(loader, name)
        if part is not None and part.type not in COLLATES:
            yield (*path, name), part, None


def check(plan: Plan) -> None:
    """Import everything the plan will build and check that each call binds. Builds nothing.

    Raises:
        ConfigError: with every component that cannot be found or would not accept its arguments.
    """
    found = [p for path, component, home in placed(plan) for p in _problems(path, component, home)]
    if found:
        raise ConfigError(found)


def _problems(path: Path, component: Component, home: str | None) -> Iterator[Problem]:
    try:
        target = resolve(component.type, home)
    except LookupError as error:
        yield problem("FK013", (*path, "type"), str(error.args[0]), str(error.args[1]))
        return
    yield from _nested_problems(path, component.kwargs)
    if home is None and not path[-1] in ("collate_fn", "sampler", "worker_init_fn"):
        yield from _unbindable(path, component, target)


def _unbindable(path: Path, component: Component, target: Callable[..., Any]) -> Iterator[Problem]:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**{str(key): None for key in component.kwargs})
    except TypeError as error:
        names = [name for name in signature.parameters if name not in ("self", "args", "kwargs")]
        wrong = next((str(key) for key in component.kwargs if key not in names), "")
        guess = did_you_mean(wrong, names).strip() if wrong else ""
        yield problem("FK013", path, f"{component.type} cannot be called so: {error}.", guess or f"It takes {', '.join(names) or 'nothing'}.")


def _nested_problems(path: Path, data: Any) -> Iterator[Problem]:
    if isinstance(data, Data):
        kind = data.get("type")
        if isinstance(kind, str) and ":" in kind and is_import_path(kind):
            try:
                resolve(kind)
            except LookupError as error:
                yield problem("FK013", (*path, "type"), str(error.args[0]), str(error.args[1]))
        for key, value in data.entries:
            yield from _nested_problems((*path, key), value)
    elif isinstance(data, tuple | Items):
        for i, value in enumerate(data.values if isinstance(data, Items) else data):
            yield from _nested_problems((*path, i), value)


def resolve(type_name: str, home: str | None = None) -> Callable[..., Any]:
    """The class or function a type name means; `home` is the module of bare names.

    Raises:
        LookupError: with (message, remedy): no such module, no such name, or not callable.
    """
    if not is_import_path(type_name):
        if home is None:
            raise LookupError(f'"{type_name}" is a registry name, and there are no registries here.', f'Write "package.module:{type_name}".')
        type_name = f"{home}:{type_name}"
    dotted, _, name = type_name.partition(":") if ":" in type_name else type_name.rpartition(".")
    try:
        found: Any = importlib.import_module(dotted)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else dotted
        raise LookupError(f'module "{dotted}" cannot be imported: {error}.', f'Install or correct "{missing}", or run where it is importable.') from error
    except Exception as error:
        raise LookupError(f'module "{dotted}" fails on import: {type(error).__name__}: {error}.', "Correct the module.") from error
    for part in name.split("."):
        if not hasattr(found, part):
            guess = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")]).strip()
            raise LookupError(f'"{dotted}" has no "{part}".', guess or "Correct the name.")
        found = getattr(found, part)
    if not callable(found):
        raise LookupError(f'"{type_name}" is not a class or function.', "Name something that can be called.")
    return found


def build(component: Component, path: Path, *args: Any, home: str | None = None, **extra: Any) -> Any:
    """The object: nested import-path mappings inside out, then `type(*args, **kwargs, **extra)`.

    Raises:
        BuildError: the constructor raised.
    """
    recursive = component.kwargs.get("_recursive_", True)
    kwargs = {
        str(key): _built(value, (*path, key)) if recursive else thaw(value)
        for key, value in component.kwargs.entries if key != "_recursive_"
    }  # fmt: skip
    try:
        return resolve(component.type, home)(*args, **kwargs, **extra)
    except Exception as error:
        raise BuildError(path, component, error) from error


def _built(value: Any, path: Path) -> Any:
    """Plain data with each mapping whose type is "module:Name" built; any other mapping is its owner's data."""
    if isinstance(value, Data):
        kind = value.get("type")
        if isinstance(kind, str) and ":" in kind and is_import_path(kind):
            rest = Data(tuple((key, item) for key, item in value.entries if key != "type"))
            return build(Component(type=kind, kwargs=rest), path)
        return {key: _built(item, (*path, key)) for key, item in value.entries}
    if isinstance(value, Items):
        return [_built(item, (*path, i)) for i, item in enumerate(value.values)]
    if isinstance(value, tuple):
        return tuple(_built(item, (*path, i)) for i, item in enumerate(value))
    return thaw(value)
