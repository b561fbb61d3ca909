"""How a config is laid over its bases, as mmengine does it: mappings merge, `_delete_=True` replaces."""

from typing import Any

from flexcore.problems import Path, dotted, shown
from shell.reading.faults import Fault
from shell.reading.marked import DELETE, Map


def merged(base: Map, child: Map, faults: list[Fault], path: Path = ()) -> Map:
    """`child` over `base`; neither is changed. Entries keep the position they were written at."""
    result = base.duplicate()
    for key, value in child.items():
        if key != DELETE:
            result.put(key, _laid(result.get(key), value, child, (*path, key), faults), child.marks.get(key))
    return result


def _laid(old: Any, new: Any, child: Map, path: Path, faults: list[Fault]) -> Any:
    if not isinstance(new, Map):
        return new
    if old is None or new.get(DELETE):
        return _without_delete(new)
    if isinstance(old, Map):
        return merged(old, new, faults, path)
    faults.append(
        Fault(
            "FK005",
            f"{dotted(path)} is a mapping here but {shown(old)} in the base; only mappings merge.",
            "Add _delete_=True to the mapping to replace the base's value.",
            at=child.marks.get(path[-1]),
            path=path,
        )
    )
    return new


def _without_delete(value: Map) -> Map:
    if DELETE not in value:
        return value
    kept = value.duplicate()
    kept.take(DELETE)
    return kept


def united(bases: list[Map], faults: list[Fault]) -> Map:
    """Several bases side by side; a key that two of them set is a problem, since neither comes first."""
    result = Map()
    for base in bases:
        faults.extend(_twice(key, result, base) for key in base if key in result)
        result.absorb(base)
    return result


def _twice(key: Any, first: Map, second: Map) -> Fault:
    return Fault(
        "FK004",
        f"Two bases set {shown(key)}: {first.marks.get(key)} and {second.marks.get(key)}.",
        "Keep it in one of them, or let one base inherit from the other.",
        at=second.marks.get(key),
        path=(key,),
    )
