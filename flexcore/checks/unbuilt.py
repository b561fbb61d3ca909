"""Keys that have their place but not yet their behaviour: each is refused, never ignored."""

from collections.abc import Iterator

from flexcore.config import Config, DataLoader, OptimDict
from flexcore.dumping import dump
from flexcore.facts import Facts
from flexcore.hooks import Logger
from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem
from flexcore.wrappers import asked

# (section, key): the only values that are built. A section None is absent from the config.
BUILT: dict[tuple[str, str], tuple[object, ...]] = {
    ("log_processor", "custom_cfg"): (None,),
    ("log_processor", "log_with_hierarchy"): (False,),
}

WRAPPER: dict[str, tuple[object, ...]] = {
    "constructor": (None, "DefaultOptimWrapperConstructor"),
    "use_fsdp": (False,),
}
# Constructors of several optimizers that do what is done here: an optimizer for each submodule named.
CONSTRUCTORS = (
    None,
    "DefaultOptimWrapperConstructor",
    "MultiOptimWrapperConstructor",
    "GenOptimWrapperConstructor",
)


def unbuilt(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    yield from _wrappers(config)
    for (section, key), built in BUILT.items():
        owner = getattr(config, section) if section else config
        value = getattr(owner, key, built[0])
        if value not in built:
            yield _refused((section, key) if section else (key,), value)
    yield from _loaders(config)
    if config.log_processor.by_epoch is not None and config.train_cfg is not None:
        follows = config.log_processor.by_epoch == config.train_cfg.by_epoch
        if not follows:
            yield _refused(("log_processor", "by_epoch"), config.log_processor.by_epoch)
    for place, hook in _hooks(config):
        if isinstance(hook, Logger) and not hook.log_metric_by_epoch:
            yield _refused((*place, "log_metric_by_epoch"), hook.log_metric_by_epoch)


def _wrappers(config: Config) -> Iterator[Problem]:
    for one in asked(config):
        for key, built in WRAPPER.items():
            value = getattr(one.wrapper, key, built[0])
            if value not in built:
                yield _refused((*one.place, key), value)
    several = config.optim_wrapper
    if isinstance(several, OptimDict) and several.constructor not in CONSTRUCTORS:
        text = f"{shown(several.constructor)} is a constructor of your own, and none is called here."
        remedy = "Remove it: each optimizer takes the parameters of the submodule it is named after."
        yield problem("FK014", ("optim_wrapper", "constructor"), text, remedy)


def _loaders(config: Config) -> Iterator[Problem]:
    loaders: list[tuple[Path, object]] = [(("train_dataloader",), config.train_dataloader)]
    for key in ("val_dataloader", "test_dataloader"):
        several = getattr(config, key) or ()
        for i, named in enumerate(several):
            alone = len(several) == 1 and named.name is None
            loaders.append(((key,) if alone else (key, named.name or i), named.loader))
    for path, loader in loaders:
        if (
            path != ("train_dataloader",)
            and isinstance(loader, DataLoader)
            and loader.num_batch_per_epoch is not None
        ):
            yield _refused((*path, "num_batch_per_epoch"), loader.num_batch_per_epoch)


def _hooks(config: Config) -> Iterator[tuple[Path, object]]:
    yield from ((("default_hooks", slot.key), slot.hook) for slot in config.default_hooks)
    yield from ((("custom_hooks", i), hook) for i, hook in enumerate(config.custom_hooks))


def _refused(path: Path, value: object) -> Problem:
    text = f"{shown(dump(value))} is understood but not built yet."
    return problem("FK014", path, text, "Remove it; nothing is silently ignored.")
