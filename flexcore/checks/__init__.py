"""Cross-field rules over a Config, one family a file; each yields Problems and decides nothing else."""

from collections.abc import Callable, Iterator

from flexcore.checks import (
    constructors,
    data,
    ddp,
    deepspeed,
    environment,
    evaluating,
    hooks,
    optimizers,
    owning,
    reporting,
    saving,
    schedules,
    sections,
    sharding,
    tensor_parallel,
)
from flexcore.config import Config
from flexcore.facts import Facts
from flexcore.preprocessing import preprocessing
from flexcore.problems import Problem

Check = Callable[[Config, Facts, frozenset[str]], Iterator[Problem]]
CHECKS: tuple[Check, ...] = (
    sections.groups, sections.starting, sections.ranges, sections.names, constructors.constructors,
    data.loaders, preprocessing, optimizers.optimizers, owning.owning, schedules.schedules, schedules.scaling, saving.hooks, saving.checkpoints, hooks.built_in, reporting.reporting,
    environment.environment, ddp.ddp, sharding.sharding, tensor_parallel.tensor_parallel, deepspeed.deepspeed, evaluating.evaluating,
)  # fmt: skip


def all_problems(config: Config, facts: Facts, broken: frozenset[str] = frozenset()) -> list[Problem]:
    """Every finding of every family. `broken` names top-level keys that did not parse: they count as given."""
    return [found for check in CHECKS for found in check(config, facts, broken)]
