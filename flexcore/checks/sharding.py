"""Rules of FSDP: units that exist, ranks that divide, and what shares of parameters cannot do."""

from collections.abc import Iterator

from flexcore.components import Component, Supplied, last_segment, thaw
from flexcore.config import AmpOptim, Config
from flexcore.environment import chosen_strategy, data_parallel_size, known_world_size
from flexcore.facts import Facts
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.sharding import BY_CLASS, BY_SIZE, HYBRID, KEEPS_GATHERED, unit_of, units, wrapping
from flexcore.strategies import FSDP, WrappedFSDP1
from flexcore.wrappers import asked

PLACE: Path = ("strategy",)
KNOWN_SHARDING = ("FULL_SHARD", *KEEPS_GATHERED, "HYBRID_SHARD")
# What fully_shard always does, or decides by itself.
MOOT = ("use_orig_params", "backward_prefetch", "forward_prefetch", "limit_all_gathers", "sync_module_states")
# torch.optim classes whose update looks at a whole parameter at once; the others go number by number.
WHOLE_PARAMETER = ("Muon", "Adafactor", "SparseAdam", "ZeroRedundancyOptimizer")


def sharding(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    strategy = chosen_strategy(config, facts)
    if not isinstance(strategy, FSDP):
        return
    yield from _ranges(strategy, data_parallel_size(strategy, known_world_size(config, facts)))
    if strategy.model_wrapper is not None:
        yield from _translated(strategy.model_wrapper, strategy.shard_size)
    if strategy.state_dict_cfg is not None:
        text = "changes nothing: checkpoints hold whole tensors by name, whatever the strategy."
        yield problem("FK023", (*PLACE, "state_dict_cfg"), text, "Nothing to do.")
    if strategy.skip_init_weights and config.load_from is None and config.resume is False:
        text = "changes nothing: neither load_from nor resume brings weights, so they are initialised."
        yield problem("FP022", (*PLACE, "skip_init_weights"), text, "Set load_from, or drop the key.")
    yield from _optimizers(config)
    yield from _modules(strategy, facts)


def _ranges(strategy: FSDP, world_size: int | None) -> Iterator[Problem]:
    """world_size: ranks that see different samples."""
    for key in ("wrap_min_params", "shard_size"):
        value = getattr(strategy, key)
        if value is not None and value < 1:
            yield problem("FK020", (*PLACE, key), f"must be at least 1, got {value}.", "Correct the value.")
    if strategy.wrap is not None and strategy.wrap_min_params is not None:
        text = "and wrap both choose the units."
        yield problem("FK019", (*PLACE, "wrap_min_params"), text, "Keep one of them.")
    size = strategy.shard_size
    able = () if world_size is None else divisors(world_size)
    if size is not None and able and max(size, 1) not in able:
        where = (
            "a world"
            if strategy.tensor_parallel is None
            else "the copies that tensor_parallel makes, a world"
        )
        text = f"{size} ranks cannot share a copy evenly in {where} of {world_size}."
        yield problem("FP020", (*PLACE, "shard_size"), text, f"Use one of {', '.join(map(str, able))}.")
    again, shares = strategy.reshard_after_forward, world_size if size is None else size
    if type(again) is int and (again < 2 or (shares is not None and shares % again)):
        text = f"{again} is no part of a copy's ranks to reshard to."
        yield problem(
            "FP020", (*PLACE, "reshard_after_forward"), text, "Use true, false or a divisor of shard_size."
        )


def divisors(number: int) -> tuple[int, ...]:
    return (*(n for n in range(1, number) if number % n == 0), number)


def _translated(wrapper: WrappedFSDP1, shard_size: int | None) -> Iterator[Problem]:
    """FlexibleRunner's model_wrapper: what is taken over, what is moot, and what has no counterpart."""
    place: Path = (*PLACE, "model_wrapper")
    policy = wrapper.auto_wrap_policy
    if policy is not None and last_segment(policy.type) not in (*BY_CLASS, BY_SIZE):
        text = f"{shown(policy.type)} is code that chooses modules, which no plan can tell beforehand."
        yield problem("FK014", (*place, "auto_wrap_policy"), text, "Name their classes in strategy.wrap.")
    kind = wrapper.sharding_strategy
    if kind is not None and kind not in KNOWN_SHARDING:
        text, known = f"{shown(kind)} does not shard the model.", ", ".join(KNOWN_SHARDING)
        guess = "Use DDPStrategy." if kind == "NO_SHARD" else did_you_mean(kind, KNOWN_SHARDING).strip()
        yield problem("FK013", (*place, "sharding_strategy"), text, guess or f"Known: {known}.")
    elif kind in HYBRID and shard_size is None:
        text = "needs to know how many ranks share a copy."
        yield problem(
            "FK012",
            (*place, "sharding_strategy"),
            text,
            "Set strategy.shard_size, mostly the ranks of a host.",
        )
    if "buffer_dtype" in (thaw(wrapper.mixed_precision) if wrapper.mixed_precision is not None else {}):
        text = "changes nothing: fully_shard leaves buffers alone."
        yield problem("FK023", (*place, "mixed_precision", "buffer_dtype"), text, "Nothing to do.")
    for key in MOOT:
        if getattr(wrapper, key) is not None:
            yield problem(
                "FK023", (*place, key), "changes nothing: fully_shard sees to it.", "Nothing to do."
            )


def _optimizers(config: Config) -> Iterator[Problem]:
    for one in asked(config):
        yield from whole_parameters(one.wrapper.optimizer, (*one.place, "optimizer"))
        if isinstance(one.wrapper, AmpOptim) and one.wrapper.dtype == "float16":
            text = "float16 scales the loss by what all gradients say, and a rank holds a share of each."
            remedy = 'Set dtype="bfloat16", or strategy.mixed_precision.'
            yield problem("FP021", (*one.place, "dtype"), text, remedy)


def whole_parameters(optimizer: Component | Supplied, place: Path) -> Iterator[Problem]:
    name = last_segment(optimizer.type) if isinstance(optimizer, Component) else None
    if name in WHOLE_PARAMETER:
        text = f"{name} looks at whole parameters, and a rank holds a share of each."
        yield problem("FP021", place, text, "Use an optimizer that goes number by number, or DDPStrategy.")


def _modules(strategy: FSDP, facts: Facts) -> Iterator[Problem]:
    """Once the model has been looked at."""
    if facts.modules is None or facts.parameters is None:
        return
    types = sorted({module.type for module in facts.modules})
    for key, names in (
        ("wrap", wrapping(strategy).classes),
        ("activation_checkpointing", strategy.activation_checkpointing),
    ):
        for i, name in enumerate(names or ()):
            if last_segment(name) not in types:
                text = f"{shown(name)} is the class of no module in the model."
                remedy = (
                    did_you_mean(last_segment(name), types).strip() or f"Its classes: {', '.join(types)}."
                )
                yield problem("FP023", (*PLACE, key, i), text, remedy)
    found = units(wrapping(strategy), facts) or ()
    for parameter in facts.parameters:
        if parameter.alias is not None and unit_of(parameter.name, found) != unit_of(parameter.alias, found):
            text = f"{parameter.name} is the same parameter as {parameter.alias}, and they are gathered in different units."
            yield problem("FP023", (*PLACE, "wrap"), text, "Leave the smaller of the two units out of wrap.")
    if not found and any(p.shape for p in facts.parameters):
        text = "gathers the whole model at once: no module is a unit of its own."
        yield problem("FP024", PLACE, text, "Name the classes of its blocks in strategy.wrap.")
