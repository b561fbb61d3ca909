"""Things to build and plain data, as frozen values; nothing here is built or imported."""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from flexcore.problems import Path, Problem, shown

MAX_DEPTH = 64
MAX_INT = 2**63

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
    """A slot filled by a live object at `shell.execute(plan, slot=object)`; such a plan is not portable."""


def last_segment(type_name: str) -> str:
    return type_name.replace(":", ".").rsplit(".", 1)[-1]


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
    return value


def thaw(value: Frozen) -> Any:
    """The plain data a frozen value came from: fresh dicts, lists and sets every time."""
    match value:
        case Data(entries):
            return {key: thaw(item) for key, item in entries}
        case Items(values):
            return [thaw(item) for item in values]
        case Members(values):
            return {thaw(item) for item in values}
        case Component(type=type_name, kwargs=kwargs):
            return {"type": type_name, **thaw(kwargs)}
        case tuple():
            return tuple(thaw(item) for item in value)
        case _:
            return value


def plain(value: Any, path: Path, problems: list[Problem], depth: int = 0) -> Any:
    """A copy of `value` as plain data; whatever is not plain is reported and replaced by None.

    Classes and functions become their "module:qualname"; subclasses of dict, list, str and numbers become
    the plain kind, so that nothing from outside is called later.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is float:
        return value
    if depth > MAX_DEPTH:
        return _refuse(path, problems, f"nested deeper than {MAX_DEPTH} levels.", "Flatten the value.")
    if isinstance(value, Mapping):
        return _plain_mapping(value, path, problems, depth)
    if isinstance(value, list | tuple):
        items = [plain(item, (*path, i), problems, depth + 1) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, set | frozenset):
        return _plain_set(value, path, problems)
    return _plain_leaf(value, path, problems)


def _plain_mapping(value: Mapping[Any, Any], path: Path, problems: list[Problem], depth: int) -> dict[Any, Any]:
    result = {}
    for key, item in value.items():
        if type(key) is not str and (type(key) is not int or abs(key) >= MAX_INT):
            _refuse(path, problems, f"has the key {shown(key)}; keys are text or integers.", "Rename the key.")
            continue
        result[key] = plain(item, (*path, key), problems, depth + 1)
    return result


def _plain_set(value: Any, path: Path, problems: list[Problem]) -> set[Any]:
    kept = {item for item in value if item is None or type(item) in (str, int, bool, float)}
    if len(kept) != len(value):
        _refuse(path, problems, f"is a set holding more than scalars: {shown(value)}.", "Use a list.")
    return kept


def _plain_leaf(value: Any, path: Path, problems: list[Problem]) -> Any:
    if isinstance(value, bool | float):
        return float(value)
    if isinstance(value, int):
        if abs(int(value)) >= MAX_INT:
            return _refuse(path, problems, "is an integer beyond 64 bits.", "Use a smaller number.")
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Supplied):
        return value
    if callable(value) and hasattr(value, "__qualname__") and hasattr(value, "__module__"):
        return _import_path(value, path, problems)
    return _refuse(
        path,
        problems,
        f"is a live object ({type(value).__module__}.{type(value).__qualname__}), and a config holds plain data.",
        "Put flexcore.Supplied() here and pass the object to shell.execute(plan, ...).",
        code="FK016",
    )


def _import_path(value: Any, path: Path, problems: list[Problem]) -> str | None:
    name = f"{value.__module__}:{value.__qualname__}"
    if "<" in name:
        _refuse(path, problems, f"is {name}, which no other process can import.", "Define it at module level.")
        return None
    return name


def _refuse(path: Path, problems: list[Problem], message: str, remedy: str, code: str = "FK015") -> None:
    problems.append(Problem(code=code, path=path, message=message, remedy=remedy))
