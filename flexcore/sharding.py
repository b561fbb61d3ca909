"""Which modules FSDP gathers as one unit, and over which mesh: names and sizes in, module paths out; no torch."""

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from attrs import evolve, frozen

from flexcore.components import Component, last_segment, thaw
from flexcore.facts import Facts, ModuleFact, ParameterFact
from flexcore.strategies import FSDP, MixedPrecision, Strategy

CONTAINERS = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")  # have no forward to gather for
BY_CLASS = ("transformer_auto_wrap_policy", "ModuleWrapPolicy")
BY_SIZE = "size_based_auto_wrap_policy"
TORCH_MIN_PARAMS = 100_000_000  # size_based_auto_wrap_policy's own default
KEEPS_GATHERED = ("SHARD_GRAD_OP", "_HYBRID_SHARD_ZERO2")
HYBRID = ("HYBRID_SHARD", "_HYBRID_SHARD_ZERO2")


@frozen(kw_only=True)
class Wrapping:
    """What was asked: classes, or a number of parameters; neither: the model's own list."""

    classes: tuple[str, ...] | None = None
    min_params: int | None = None


@frozen(kw_only=True)
class Sharding:
    """How FSDP lays a model over ranks.

    Attributes:
        units: paths of the modules gathered one at a time, inner before outer; what is in none is gathered with the
            whole model. None: the modules are unknown.
        recomputed: paths of the modules whose activations backward computes again. None: unknown.
        replicas, shards: ranks with equal shares, and ranks that share one copy; None: the world size is unknown.
        reshard_after_forward: None: all but the outermost.
        meta_init: rank 0 initialises the weights and deals out the shares; others build without memory.
        skips_init: parameters are built without memory, since the start brings their values.
    """

    units: tuple[str, ...] | None
    recomputed: tuple[str, ...] | None
    replicas: int | None
    shards: int | None
    reshard_after_forward: bool | int | None
    mixed_precision: MixedPrecision | None
    cpu_offload: bool
    meta_init: bool = False
    skips_init: bool = False

    def hollow(self, rank: int) -> bool:
        """Whether a rank builds its parameters without memory."""
        return self.skips_init or (self.meta_init and rank > 0)


def sharding(strategy: Strategy, facts: Facts, world_size: int | None) -> Sharding | None:
    """The layout FSDP's settings mean for these modules; None under other strategies.

    world_size: ranks that see different samples.
    """
    if not isinstance(strategy, FSDP):
        return None
    shards = world_size if strategy.shard_size is None else strategy.shard_size
    return Sharding(
        units=units(wrapping(strategy), facts),
        recomputed=None if facts.modules is None else tuple(_of_classes(facts.modules, strategy.activation_checkpointing)),
        replicas=None if world_size is None or not shards else world_size // shards, shards=shards,
        reshard_after_forward=resharding(strategy), mixed_precision=mixed_precision(strategy),
        cpu_offload=strategy.cpu_offload or bool(strategy.model_wrapper and _offloads(strategy.model_wrapper.cpu_offload)),
        meta_init=strategy.meta_init,
    )  # fmt: skip


def started(layout: Sharding | None, strategy: Strategy, *, loads: bool) -> Sharding | None:
    """The layout of a start that brings weights, or none: then skip_init_weights would leave them arbitrary."""
    if layout is None:
        return None
    return evolve(layout, skips_init=isinstance(strategy, FSDP) and strategy.skip_init_weights and loads)


def wrapping(strategy: FSDP) -> Wrapping:
    """From FSDP's own keys, else from the policy of FlexibleRunner's model_wrapper."""
    if strategy.wrap is not None or strategy.wrap_min_params is not None or strategy.model_wrapper is None:
        return Wrapping(classes=strategy.wrap, min_params=strategy.wrap_min_params)
    policy = strategy.model_wrapper.auto_wrap_policy
    if policy is None:
        return Wrapping()
    name = last_segment(policy.type)
    if name == BY_SIZE:
        least = policy.kwargs.get("min_num_params")
        return Wrapping(min_params=least if type(least) is int else TORCH_MIN_PARAMS)
    return Wrapping(classes=policy_classes(policy)) if name in BY_CLASS else Wrapping()


def policy_classes(policy: Component) -> tuple[str, ...]:
    """The class names a wrap policy of the first FSDP is given."""
    given = thaw(policy.kwargs.get("transformer_layer_cls") or policy.kwargs.get("module_classes") or ())
    names = (given,) if isinstance(given, str) else given if isinstance(given, list | tuple | set) else ()
    return tuple(sorted({last_segment(str(name)) for name in names}))


def resharding(strategy: FSDP) -> bool | int | None:
    kept = strategy.model_wrapper is not None and strategy.model_wrapper.sharding_strategy in KEEPS_GATHERED
    return False if kept and strategy.reshard_after_forward is None else strategy.reshard_after_forward


def mixed_precision(strategy: FSDP) -> MixedPrecision | None:
    """FSDP's own setting, else the dtypes in the first FSDP's mixed_precision; its buffer_dtype has no counterpart."""
    if strategy.mixed_precision is not None or strategy.model_wrapper is None:
        return strategy.mixed_precision
    given: Mapping[str, object] = thaw(strategy.model_wrapper.mixed_precision or {}) or {}
    dtypes = {
        key: _dtype(given[key]) for key in ("param_dtype", "reduce_dtype") if given.get(key) is not None
    }
    return MixedPrecision(**dtypes) if dtypes else None  # type: ignore[arg-type]


def _dtype(value: object) -> str:
    return last_segment(str(value))


def _offloads(setting: object) -> bool:
    if isinstance(setting, bool) or setting is None:
        return bool(setting)
    return bool(thaw(setting).get("offload_params"))


def units(asked: Wrapping, facts: Facts) -> tuple[str, ...] | None:
    """Paths of the modules to gather one at a time, inner before outer; None while the modules are unknown."""
    if facts.modules is None or facts.parameters is None:
        return None
    if asked.classes is None and asked.min_params is not None:
        return tuple(_of_size(facts.modules, facts.parameters, asked.min_params))
    classes = facts.model_blocks or () if asked.classes is None else asked.classes
    return tuple(_of_classes(facts.modules, classes))


def _of_classes(modules: Iterable[ModuleFact], classes: Iterable[str]) -> Iterator[str]:
    wanted = {last_segment(name) for name in classes}
    return (module.path for module in inner_first(modules) if module.type in wanted and module.path)


def inner_first(modules: Iterable[ModuleFact]) -> list[ModuleFact]:
    """Deepest first, else in the model's order."""
    return sorted(modules, key=lambda module: -module.path.count("."))


def _of_size(
    modules: tuple[ModuleFact, ...], parameters: tuple[ParameterFact, ...], least: int
) -> Iterator[str]:
    """Modules with at least so many parameters outside the units inside them."""
    left = {p.name: prod(p.shape) for p in parameters if p.alias is None}
    for module in inner_first(modules):
        inside = [name for name in left if name.startswith(f"{module.path}.")]
        if module.path and module.type not in CONTAINERS and sum(left[name] for name in inside) >= least:
            yield module.path
            for name in inside:
                del left[name]


def unit_of(name: str, units: Iterable[str]) -> str:
    """The innermost unit a parameter is gathered with; "" for the whole model."""
    around = (unit for unit in units if name.startswith(f"{unit}."))
    return max(around, default="")  # each of them begins the next inner one, which is the greater text
