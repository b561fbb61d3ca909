"""Rules of which optimizer trains what: several optimizers, sharded ones, and those that take some parameters only."""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

from flexcore.components import Component, Supplied
from flexcore.config import Config, OptimDict
from flexcore.environment import chosen_strategy
from flexcore.facts import Facts, ParameterFact
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.strategies import DDP, SingleDevice
from flexcore.wrappers import ZERO_DEFAULTS, ZERO_INNER, Asked, asked, is_zero, owned

SHOWN = 5
PLACE: Path = ("optim_wrapper",)
# torch.optim classes that take sparse gradients.
SPARSE = ("SGD", "Adagrad", "SparseAdam")
# Modules of torch whose gradients are dense unless the parameter's record says "sparse".
DENSE = ("Linear", "Bilinear", "Embedding", "EmbeddingBag", "LSTM", "GRU", "RNN", "MultiheadAttention", "PReLU",
         "Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")  # fmt: skip


def owning(config: Config, facts: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    every = asked(config)
    if isinstance(config.optim_wrapper, OptimDict):
        yield from _several(every)
        yield from _strategy(config, facts)
        yield from _stepped(facts)
        if facts.parameters is not None:
            yield from _shared_out(every, facts.parameters)
    for one in every:
        if one.sharded:
            yield from _sharded(config, facts, one, broken)
        if isinstance(one.optimizer, Component) and facts.parameters is not None:
            own = owned(one.name, facts.parameters)
            yield from _fitting(one.optimizer, (*one.place, "optimizer"), own)
            if facts.train_step and isinstance(chosen_strategy(config, facts), DDP):
                yield from _averaged(own)


def _several(every: Sequence[Asked]) -> Iterator[Problem]:
    """Names that can be submodules, windows alike, and optimizers that are built here."""
    for one in every:
        if not all((one.name or "").split(".")):
            text = f"{shown(one.name)} cannot be the name of a submodule."
            yield problem("FO003", one.place, text, 'Write "generator", or "parts.generator".')
        if isinstance(one.optimizer, Supplied):
            text = "is one of several and supplied; several are built from the config."
            yield problem("FK014", (*one.place, "optimizer"), text, "Write dict(type=..., lr=...).")
    for key in ("accumulative_counts", "accumulation_tail"):
        values = {one.name: getattr(one.wrapper, key) for one in every}
        effective = {1 if value is None else value for value in values.values()}
        if len(effective) > 1:
            told = ", ".join(f"{name} {1 if value is None else value}" for name, value in values.items())
            text = f"{key} differs: {told}; all optimizers share the run's accumulation windows."
            yield problem(
                "FO005", PLACE, text, "Give all the same; train_step decides how often each is updated."
            )


def _strategy(config: Config, facts: Facts) -> Iterator[Problem]:
    strategy = chosen_strategy(config, facts)
    if not isinstance(strategy, SingleDevice | DDP):
        text = f"{strategy.NAME} with several optimizers is understood but not built yet."
        yield problem("FK014", ("strategy",), text, "Use DDPStrategy or SingleDeviceStrategy.")


def _stepped(facts: Facts) -> Iterator[Problem]:
    if facts.train_step is False:
        text = "has no train_step, and the config has several optimizers: nothing says which is updated when."
        remedy = "Give it train_step(data, optim_wrapper), or use one optimizer."
        yield problem("FO004", ("model",), text, remedy)


def _shared_out(every: Sequence[Asked], parameters: Sequence[ParameterFact]) -> Iterator[Problem]:
    """Every parameter that trains belongs to exactly one optimizer, and every optimizer has one."""
    owners: dict[str, list[str]] = {
        fact.name: [] for fact in parameters if fact.alias is None and fact.requires_grad
    }
    for one in every:
        found = owned(one.name, parameters)
        for fact in found:
            owners[fact.name].append(str(one.name))
        if not found:
            yield _without(one, parameters)
    none = [name for name, own in owners.items() if not own]
    if none:
        text = f"no optimizer trains {_listed(none)}."
        yield problem("FO001", PLACE, text, "Add an optimizer for that submodule, or freeze it.")
    pairs = dict.fromkeys(tuple(own) for own in owners.values() if len(own) > 1)
    for pair in pairs:
        text = f"{' and '.join(pair)} both train {_listed([name for name, own in owners.items() if tuple(own) == pair])}."
        yield problem("FO002", PLACE, text, "Let one of them have it: name submodules that share none.")


def _without(one: Asked, parameters: Sequence[ParameterFact]) -> Problem:
    modules = dict.fromkeys(
        ".".join(steps[:depth])
        for fact in parameters
        for steps in [fact.name.split(".")]
        for depth in range(1, len(steps))
    )
    if one.name in modules:
        return problem("FO003", one.place, "has no parameter that trains.", "Unfreeze some, or remove it.")
    top = [module for module in modules if "." not in module]
    remedy = did_you_mean(str(one.name), modules).strip() or f"Submodules: {', '.join(top) or 'none'}."
    return problem("FO003", one.place, "is not a submodule of the model with parameters.", remedy)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _sharded(config: Config, facts: Facts, one: Asked, broken: frozenset[str]) -> Iterator[Problem]:
    zero, place = one.wrapper.optimizer, (*one.place, "optimizer")
    assert isinstance(zero, Component)
    assert isinstance(one.optimizer, Component)
    given = [key for key in ZERO_INNER if key in zero.kwargs]
    if len(given) == 2:
        yield problem("FK019", place, 'has both "optimizer_type" and "optimizer_class".', "Keep one of them.")
    elif not given:
        yield problem("FK012", place, 'lacks the key "optimizer_type".', 'Add optimizer_type="AdamW".')
    for key in given:
        inner = zero.kwargs[key]
        if not isinstance(inner, str) or not inner:
            yield problem("FK011", (*place, key), f"must be text, got {shown(inner)}.", 'Write "AdamW".')
        elif is_zero(Component(type=inner)):
            yield problem("FK013", (*place, key), "is a ZeroRedundancyOptimizer itself.", 'Write "AdamW".')
    for key, default in ZERO_DEFAULTS.items():
        if zero.kwargs.get(key, default) != default:
            text = f"{shown(zero.kwargs[key])} is understood but not built yet."
            yield problem("FK014", (*place, key), text, "Remove it; nothing is silently ignored.")
    if not isinstance(chosen_strategy(config, facts), DDP) and not broken & {"strategy", "launcher"}:
        alone = isinstance(chosen_strategy(config, facts), SingleDevice)
        text = "spreads optimizer state over ranks, and this run has one."
        text = text if alone else "spreads optimizer state over the ranks of DDPStrategy alone."
        instead = "" if is_zero(one.optimizer) else f", or use {shown(one.optimizer.name)}"
        yield problem("FO007", place, text, f"Run with --nproc N or torchrun under DDPStrategy{instead}.")


def _averaged(parameters: Iterable[ParameterFact]) -> Iterator[Problem]:
    sparse = [fact.name for fact in parameters if fact.kind == "sparse"]
    if sparse:
        text = (
            f"steps itself, and over ranks that takes dense gradients; those of {_listed(sparse)} are sparse."
        )
        yield problem("FO006", ("model",), text, "Use sparse=False, or one rank.")


def _fitting(optimizer: Component, place: Path, parameters: Iterable[ParameterFact]) -> Iterator[Problem]:
    """Muon's matrices, SparseAdam's sparse gradients, and the dense ones of the rest."""
    if optimizer.is_import_path and not optimizer.type.startswith(("torch.optim.", "torch.optim:")):
        return
    own = [fact for fact in parameters if prod(fact.shape)]
    sparse = [fact.name for fact in own if fact.kind == "sparse"]
    dense = [fact.name for fact in own if fact.kind != "sparse" and (fact.kind or fact.owner in DENSE)]
    flat = [fact.name for fact in own if len(fact.shape) != 2]
    apart = "Give them an optimizer of their own: several, named by submodule, and a model with train_step."
    name = optimizer.name
    if name == "Muon" and flat:
        text = f"Muon takes matrices alone, and {_listed(flat)} {'is' if len(flat) == 1 else 'are'} not of two dimensions."
        yield problem("FO006", place, text, apart)
    if name == "SparseAdam" and dense:
        text = f"SparseAdam takes sparse gradients alone, and those of {_listed(dense)} are dense."
        yield problem("FO006", place, text, apart)
    if name not in SPARSE and sparse:
        text = f"{name} takes dense gradients alone, and those of {_listed(sparse)} are sparse."
        yield problem(
            "FO006", place, text, f"Use {', '.join(SPARSE[:-1])} or SparseAdam for them, or sparse=False."
        )
