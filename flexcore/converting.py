"""parse() and structure(): plain data to values, with every misfit as a Problem at its path. Shape only."""

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

from flexcore import unions
from flexcore.config import Config
from flexcore.dumping import dump, marked, unmarked
from flexcore.plain import plain
from flexcore.problems import ConfigError, Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.structuring import CONVERTER, STRUCTURING_ERRORS, Misfit, Misfits

__all__ = ["dump", "marked", "parse", "parse_partly", "structure", "unmarked"]
T = TypeVar("T")


PLACED = "Remove it: the plan puts each rank's model on its device, in one group of all ranks."
LIVE = "Remove it: it takes live parameters, which no plan can hold."
DDP_INSTEAD: Mapping[str, str] = {
    "model_wrapper": "Write its settings, such as find_unused_parameters, in the strategy itself.",
    "mixed_precision": 'Write optim_wrapper=dict(type="AmpOptimWrapper", ...): autocast is the plan\'s.',
    "forward_sync_buffers": "Write broadcast_buffers, its name in FlexibleRunner.",
    "bucket_cap_mb_list": "Write bucket_cap_mb, one size for all buckets.",
    "init_sync": "Remove it: ranks always start equal.",
    "check_reduction": "Remove it: torch has no use for it.",
    **dict.fromkeys(("module", "device_ids", "output_device", "dim", "process_group", "device_mesh"), PLACED),
    **dict.fromkeys(("delay_all_reduce_named_params", "param_to_hook_all_reduce"), LIVE),
}
"""What DistributedDataParallel takes and DDPStrategy does not: key -> what to write instead."""

INSTEAD: Mapping[tuple[str, str], str] = {
    **{(section, key): text for section in ("DDPStrategy", "auto") for key, text in DDP_INSTEAD.items()},
    ("Config", "cfg"): "Remove it: the config is what you pass.",
    (
        "Config",
        "find_unused_parameters",
    ): 'Write strategy=dict(type="DDPStrategy", find_unused_parameters=True).',
    ("DistCfg", "init_backend"): "Remove it; torch.distributed is what ranks meet through.",
    ("EMAHook", "device"): "Remove it; averages are kept where the weights are.",
}
"""Keys of FlexibleRunner's that are no settings here: (section, key) -> what to write instead."""


def parse(mapping: object) -> Config:
    """Plain data in FlexibleRunner's vocabulary as a Config. Never mutates its argument.

    Raises:
        ConfigError: with every misfit at once: unknown keys, wrong types, unknown and retired names.
    """
    config, problems, _ = parse_partly(mapping)
    if problems:
        raise ConfigError(problems)
    return config


def parse_partly(mapping: object) -> tuple[Config, list[Problem], frozenset[str]]:
    """The config of whatever parses, every misfit, and the top-level keys that were left out for one.

    Lets the cross-field rules speak in the same breath as the misfits.
    """
    if not isinstance(mapping, Mapping):
        text = f"must be a mapping of settings, got {shown(mapping)}."
        return (
            Config(),
            [problem("FK011", (), text, "Pass a dict.")],
            frozenset(f.name for f in attrs.fields(Config)),
        )
    problems: list[Problem] = []
    clean: dict[str, Any] | None = plain(mapping, problems)
    if clean is None:
        return Config(), problems, frozenset(f.name for f in attrs.fields(Config))
    spoilt = {p.path for p in problems}  # said already, as not plain
    try:
        if not problems:
            return CONVERTER.structure(clean, Config), [], frozenset()
    except STRUCTURING_ERRORS:
        pass
    sound: dict[str, Any] = {}
    for key, value in clean.items():
        try:
            CONVERTER.structure({key: value}, Config)
            sound[key] = value
        except STRUCTURING_ERRORS as error:
            problems.extend(p for p in _problems_of(error, ()) if p.path not in spoilt)
    broken = frozenset(str(p.path[0]) for p in problems if p.path)
    return CONVERTER.structure({k: v for k, v in sound.items() if k not in broken}, Config), problems, broken


def structure(data: object, kind: type[T]) -> T:
    """Unmarked plain data as a value of `kind`.

    Raises:
        ConfigError: naming every misfit by its path.
    """
    try:
        return CONVERTER.structure(data, kind)
    except STRUCTURING_ERRORS as error:
        raise ConfigError(_problems_of(error, ())) from None


def _problems_of(error: Exception, path: Path) -> list[Problem]:
    """Every leaf of a tree of structuring errors, with its path."""
    if isinstance(error, Misfit):
        return [
            problem(
                error.code, path if error.step is None else (*path, error.step), error.message, error.remedy
            )
        ]
    if isinstance(error, Misfits):
        return [p for step, inner in error.found for p in _problems_of(inner, (*path, step))]
    if isinstance(error, ForbiddenExtraKeysError):
        return [_unknown_key(key, error.cl, path) for key in sorted(error.extra_fields, key=str)]
    if isinstance(error, ClassValidationError):
        with_notes, without = error.group_exceptions()
        found = [p for inner, note in with_notes for p in _field_problems(inner, note.name, path)]
        return found + [p for inner in without for p in _problems_of(inner, path)]
    return [problem("FK011", path, f"does not fit: {shown(str(error))}.", "Check the value's type.")]


def _field_problems(error: Exception, name: str, path: Path) -> list[Problem]:
    key = unions.KEY_OF_FIELD.get(name, name)
    if isinstance(error, KeyError):
        return [problem("FK012", path, f'lacks the key "{key}".', f'Add "{key}".')]
    return _problems_of(error, (*path, key))


def _unknown_key(key: object, cls: type, path: Path) -> Problem:
    if cls is Config and key in unions.RETIRED_KEYS:
        return problem("FK017", (*path, str(key)), "is retired.", unions.RETIRED_KEYS[str(key)])
    known = [unions.KEY_OF_FIELD.get(f.name, f.name) for f in attrs.fields(cls)]
    guess = INSTEAD.get((unions.label(cls), str(key))) or did_you_mean(str(key), known)
    what = "is not a setting of the config" if cls is Config else f"is not a setting of {unions.label(cls)}"
    remedy = guess.strip() or f"Remove it; known here: {', '.join(sorted(known)) or 'none'}."
    return problem("FK010", (*path, key if isinstance(key, int) else str(key)), f"{what}.", remedy)
