"""Each optimizer a config asks for, with its schedules and the places both are written at; one or several alike."""

from collections.abc import Sequence

from attrs import frozen

from flexcore.components import Component, Data, Supplied
from flexcore.config import Config, NamedSchedules, OptimDict, OptimWrapper
from flexcore.facts import ParameterFact
from flexcore.problems import Path
from flexcore.schedules import Schedule

# A ZeroRedundancyOptimizer's own keys: mmengine's and torch's for the optimizer inside, and what torch has besides.
ZERO_INNER = ("optimizer_type", "optimizer_class")
ZERO_DEFAULTS = {"process_group": None, "parameters_as_bucket_view": False, "overlap_with_ddp": False}
SCHEDULES: Path = ("param_scheduler",)


@frozen(kw_only=True)
class Asked:
    """One optimizer wrapper and what moves its groups.

    Attributes:
        name: the submodule whose parameters it trains; None: the only optimizer, which trains all.
        optimizer: what is built; of a ZeroRedundancyOptimizer the one inside, which is then `sharded`.
        place, schedules_place: where wrapper and schedules are written.
    """

    name: str | None
    wrapper: OptimWrapper
    optimizer: Component | Supplied
    sharded: bool
    place: Path
    schedules: tuple[Schedule, ...]
    schedules_place: Path


def asked(config: Config) -> tuple[Asked, ...]:
    """Every optimizer in the order given; none in a config that does not train."""
    several, place = config.optim_wrapper, ("optim_wrapper",)
    if several is None:
        return ()
    if isinstance(several, OptimDict):
        return tuple(_one(config, one.name, one.wrapper, (*place, one.name)) for one in several.wrappers)
    return (_one(config, None, several, place),)


def _one(config: Config, name: str | None, wrapper: OptimWrapper, place: Path) -> Asked:
    where, own = _schedules(config, name)
    optimizer, sharded = unwrapped(wrapper.optimizer)
    return Asked(name=name, wrapper=wrapper, optimizer=optimizer, sharded=sharded, place=place, schedules=own,
                 schedules_place=where)  # fmt: skip


def unwrapped(optimizer: Component | Supplied) -> tuple[Component | Supplied, bool]:
    """The optimizer inside a ZeroRedundancyOptimizer, written as mmengine or torch does, and True; else as it is."""
    if isinstance(optimizer, Supplied) or not is_zero(optimizer):
        return optimizer, False
    inner = next((value for key in ZERO_INNER if isinstance(value := optimizer.kwargs.get(key), str)), None)
    own = (*ZERO_INNER, *ZERO_DEFAULTS)
    kwargs = tuple((key, value) for key, value in optimizer.kwargs.entries if key not in own)
    return (optimizer if inner is None else Component(type=inner, kwargs=Data(kwargs))), True


def is_zero(optimizer: Component) -> bool:
    named = optimizer.name == "ZeroRedundancyOptimizer"
    return named and (not optimizer.is_import_path or optimizer.type.startswith(("torch.", "mmengine.")))


def _schedules(config: Config, name: str | None) -> tuple[Path, tuple[Schedule, ...]]:
    """What moves one optimizer: its own list where lists go by name, else the list for all."""
    for path, name_of, own in _lists(config):
        if name_of in (None, name):
            return path, own
    return (*SCHEDULES, name or ""), ()


def schedule_lists(config: Config) -> tuple[tuple[Path, tuple[Schedule, ...]], ...]:
    """Every list of schedules once, with its place."""
    return tuple((path, own) for path, _, own in _lists(config))


def _lists(config: Config) -> list[tuple[Path, str | None, tuple[Schedule, ...]]]:
    plain: list[Schedule] = []
    named: list[tuple[Path, str | None, tuple[Schedule, ...]]] = []
    for entry in config.param_scheduler or ():
        if isinstance(entry, NamedSchedules):
            named.append(((*SCHEDULES, entry.name), entry.name, entry.schedules))
        else:
            plain.append(entry)
    return named or [(SCHEDULES, None, tuple(plain))]


def scheduled_names(config: Config) -> tuple[str, ...]:
    """The optimizers that param_scheduler names."""
    return tuple(entry.name for entry in config.param_scheduler or () if isinstance(entry, NamedSchedules))


def owned(name: str | None, parameters: Sequence[ParameterFact]) -> tuple[ParameterFact, ...]:
    """The parameters that train in the submodule of this name, each under its first name; None: in the model."""
    inside = {
        fact.alias or fact.name for fact in parameters if name is None or fact.name.startswith(f"{name}.")
    }
    return tuple(
        fact for fact in parameters if fact.alias is None and fact.requires_grad and fact.name in inside
    )
