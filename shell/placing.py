"""Every component a config names, with its place and what it will be called with; nothing is built."""

import inspect
from collections.abc import Iterator, Sized
from contextlib import suppress

from attrs import frozen

from flexcore import preprocessing
from flexcore.components import Component, Supplied, is_import_path
from flexcore.config import Config, DataLoader
from flexcore.evaluating import is_dump
from flexcore.hooks import UserHook, merged
from flexcore.loops import TTA, OwnEvalLoop, OwnTrainLoop, TestLoop
from flexcore.problems import Path
from flexcore.run_plan import Mode
from flexcore.wrappers import asked
from shell.resolving import resolve

COLLATES = ("default_collate", "pseudo_collate")


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
