"""FlexibleRunner's ways of building an optimizer wrapper that have no counterpart: each is refused or told."""

from collections.abc import Iterator

from flexcore.config import AmpOptim, Config, OptimDict
from flexcore.environment import chosen_strategy
from flexcore.facts import Facts
from flexcore.problems import Problem, shown
from flexcore.rules import problem
from flexcore.strategies import FSDP
from flexcore.wrappers import asked

DEFAULT = (None, "DefaultOptimWrapperConstructor")
# Constructors of several optimizers that do what is done here: an optimizer for each submodule named.
OF_SEVERAL = (*DEFAULT, "MultiOptimWrapperConstructor", "GenOptimWrapperConstructor")


def constructors(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    several = config.optim_wrapper
    if isinstance(several, OptimDict) and several.constructor not in OF_SEVERAL:
        remedy = "Remove it: each optimizer takes the parameters of the submodule it is named after."
        yield _of_ones_own(several.constructor, ("optim_wrapper",), remedy)
    for one in asked(config):
        if one.wrapper.constructor not in DEFAULT:
            remedy = "Remove it, and write its groups as paramwise_cfg."
            yield _of_ones_own(one.wrapper.constructor, one.place, remedy)
        if not isinstance(one.wrapper, AmpOptim) or not one.wrapper.use_fsdp:
            continue
        if isinstance(chosen_strategy(config, facts), FSDP):
            text = "changes nothing: bfloat16 needs no loss scale to share."
            yield problem("FK023", (*one.place, "use_fsdp"), text, "Nothing to do.")
        else:
            text = "shares a loss scale among ranks as FSDPStrategy needs it, and this is another strategy."
            yield problem("FK020", (*one.place, "use_fsdp"), text, "Remove it, or use FSDPStrategy.")


def _of_ones_own(constructor: object, place: tuple[str | int, ...], remedy: str) -> Problem:
    text = f"{shown(constructor)} is a constructor of your own, and none is called here."
    return problem("FK014", (*place, "constructor"), text, remedy)
