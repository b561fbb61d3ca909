"""Keys that have their place but not yet their behaviour: each is refused, never ignored."""

from collections.abc import Iterator

from flexcore.config import Config, DataLoader, OptimDict
from flexcore.dumping import dump
from flexcore.facts import Facts
from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem
from flexcore.wrappers import asked

# A wrapper's key: the only values that are built.
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
    yield from _loaders(config)


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


def _refused(path: Path, value: object) -> Problem:
    text = f"{shown(dump(value))} is understood but not built yet."
    return problem("FK014", path, text, "Remove it; nothing is silently ignored.")
