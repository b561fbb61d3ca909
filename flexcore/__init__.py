"""flexcore: decide what a training run will do, as values. Pure: no torch, no clock, no I/O.

The names below load on first use, so that `import flexcore` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexcore.components import Component as Component
    from flexcore.components import Supplied as Supplied
    from flexcore.config import Config as Config
    from flexcore.converting import dump as dump
    from flexcore.converting import parse as parse
    from flexcore.explaining import explain as explain
    from flexcore.facts import CheckpointFact as CheckpointFact
    from flexcore.facts import Facts as Facts
    from flexcore.facts import GroupFact as GroupFact
    from flexcore.facts import HookFact as HookFact
    from flexcore.facts import ModuleFact as ModuleFact
    from flexcore.facts import ParameterFact as ParameterFact
    from flexcore.planning import lint as lint
    from flexcore.planning import plan as plan
    from flexcore.problems import ConfigError as ConfigError
    from flexcore.problems import Problem as Problem
    from flexcore.questions import Undecided as Undecided
    from flexcore.questions import kept as kept
    from flexcore.questions import sample_indices as sample_indices
    from flexcore.questions import saves as saves
    from flexcore.questions import validations as validations
    from flexcore.questions import value_at as value_at
    from flexcore.run_plan import Fresh as Fresh
    from flexcore.run_plan import LoadWeights as LoadWeights
    from flexcore.run_plan import Plan as Plan
    from flexcore.run_plan import Resume as Resume

_HOMES = {
    "components": ("Component", "Supplied"),
    "config": ("Config",),
    "converting": ("dump", "parse"),
    "explaining": ("explain",),
    "facts": ("CheckpointFact", "Facts", "GroupFact", "HookFact", "ModuleFact", "ParameterFact"),
    "planning": ("lint", "plan"),
    "problems": ("ConfigError", "Problem"),
    "questions": ("Undecided", "kept", "sample_indices", "saves", "validations", "value_at"),
    "run_plan": ("Fresh", "LoadWeights", "Plan", "Resume"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - a list, made where the names are


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'flexcore' has no attribute {name!r}")
    value = getattr(import_module(f"flexcore.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
