"""Things to build and plain data, as frozen values; nothing here is built or imported."""

import math
from collections.abc import Iterator
from typing import Any

from attrs import frozen

NAN = math.nan  # the one NaN of frozen values, so that equal values compare equal by identity
Scalar = None | bool | int | float | str
Frozen = Any  # Scalar | tuple[Frozen, ...] | Items | Data | Members; recursive aliases need a newer mypy


@frozen
class Items:
    """A list, kept apart from a tuple so that the kind survives a round-trip."""

    values: tuple[Frozen, ...] = ()


@frozen
class Members:
    """A set, in the order of its members' text so that two equal sets are one value."""

    values: tuple[Frozen, ...] = ()


@frozen
class Data:
    """A mapping with str or int keys, in the order given."""

    entries: tuple[tuple[str | int, Frozen], ...] = ()

    def __getitem__(self, key: str | int) -> Frozen:
        for name, value in self.entries:
            if name == key:
                return value
        raise KeyError(key)

    def get(self, key: str | int, default: Frozen = None) -> Frozen:
        return next((value for name, value in self.entries if name == key), default)

    def __contains__(self, key: object) -> bool:
        return any(name == key for name, _ in self.entries)

    def __iter__(self) -> Iterator[str | int]:
        return iter(name for name, _ in self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@frozen(kw_only=True)
class Component:
    """A thing to build: `type` is a short name of a closed set, "pkg.module:Name" or "pkg.module.Name"."""

    type: str
    kwargs: Data = Data()

    @property
    def name(self) -> str:
        """The last segment of the type: "torch.optim:SGD" -> "SGD"."""
        return last_segment(self.type)

    @property
    def is_import_path(self) -> bool:
        return is_import_path(self.type)


@frozen
class Supplied:
    """A slot filled by a live object at `shell.execute(plan, slot=object)`; a plan read elsewhere waits for it there."""


def last_segment(type_name: str) -> str:
    return type_name.replace(":", ".").rpartition(".")[2]


def is_import_path(type_name: str) -> bool:
    """True for "pkg.module:Name" and "pkg.module.Name" with identifiers throughout."""
    parts = type_name.replace(":", ".", 1).split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def freeze(value: Any) -> Frozen:
    """Plain data as a frozen value. Callers pass only what `plain` let through."""
    if isinstance(value, dict):
        return Data(tuple((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, list):
        return Items(tuple(freeze(item) for item in value))
    if isinstance(value, tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, set | frozenset):
        return Members(tuple(sorted((freeze(item) for item in value), key=repr)))
    return NAN if isinstance(value, float) and math.isnan(value) else value


def holds_supplied(value: Any) -> bool:
    """Whether plain data has a Supplied() anywhere inside."""
    if isinstance(value, dict):
        return any(holds_supplied(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(holds_supplied(item) for item in value)
    return isinstance(value, Supplied)


def thaw(value: Frozen) -> Any:
    """The plain data a frozen value came from: fresh dicts, lists and sets every time."""
    match value:
        case Data(entries):
            return {key: thaw(item) for key, item in entries}
        case Items(values):
            return [thaw(item) for item in values]
        case Members(values):
            return {thaw(item) for item in values}
        case tuple():
            return tuple(thaw(item) for item in value)
        case _:
            return value
