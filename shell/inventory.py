"""`flexcore checkpoints` and `flexcore verify`: what stands in a work_dir, and whether its bytes are those that were saved.

Reads manifests and hashes files; imports no torch and opens no tensor.
"""

import pathlib
from collections.abc import Iterable, Sequence

from attrs import frozen

from flexcore.storage import readable
from shell import manifests
from shell.manifests import MANIFEST, Damaged, Manifest
from shell.tables import aligned

HEAD = ("name", "epoch", "iter", "size", "verified", "plan", "strategy", "ranks", "")


@frozen
class Entry:
    """One checkpoint, and what is wrong with it; `hashed`: its files were, not only their sizes looked at."""

    path: str
    manifest: Manifest | None
    reasons: tuple[str, ...]
    hashed: bool = True


def listed(place: pathlib.Path, *, quick: bool = False) -> tuple[str, int]:
    """(a table of every checkpoint under `place`, exit code): 1 if one is damaged, 2 if there is none."""
    found = entries(place, hashed=not quick)
    if not found:
        return f"flexcore: {place}: no checkpoint. Give the work_dir of `flexcore run`, or where it saves.", 2
    lines = aligned([HEAD, *map(_row, found)])
    told = [f"{pathlib.Path(entry.path).name}: {reason}" for entry in found for reason in entry.reasons]
    return "\n".join([*lines, *told]), int(bool(told))


def verified(places: Sequence[pathlib.Path]) -> tuple[str, int]:
    """(a line for every checkpoint at or under the places, exit code): 1 if one is damaged, 2 if a place holds none."""
    lines, worst = [], 0
    for place in places:
        found = entries(place, hashed=True)
        if not found:
            lines.append(f"{place}: no checkpoint")
            worst = 2
        for entry in found:
            lines.append(f"{entry.path}: {'; '.join(entry.reasons) or 'as it was saved'}")
            worst = max(worst, int(bool(entry.reasons)))
    return "\n".join(lines), worst


def entries(place: pathlib.Path, *, hashed: bool) -> tuple[Entry, ...]:
    """The checkpoint at `place`, or all under it or its checkpoints/: by iteration, then what is damaged."""
    if (place / MANIFEST).exists():
        return (_entry(manifests.read(place), hashed=hashed),)
    inside = place / "checkpoints"
    found = manifests.scan(inside if inside.is_dir() else place)
    damaged = [
        one for one in found.damaged if (pathlib.Path(one.path) / MANIFEST).exists() or inside.is_dir()
    ]
    return tuple(_entry(one, hashed=hashed) for one in (*found.complete, *damaged))


def _entry(found: Manifest | Damaged, *, hashed: bool) -> Entry:
    if isinstance(found, Damaged):
        return Entry(found.path, None, (found.reason,))
    return Entry(found.path, found, manifests.verify(found) if hashed else (), hashed)


def _row(entry: Entry) -> tuple[str, ...]:
    name = pathlib.Path(entry.path).name
    if entry.manifest is None:
        return (name, "", "", "", "damaged", "", "", "", "")
    fields = entry.manifest.fields
    state = "damaged" if entry.reasons else "yes" if entry.hashed else "sizes"
    numbers = (_told(fields.get(key)) for key in ("epoch", "iter"))
    plan, strategy, ranks = (_told(fields.get(key)) for key in ("plan_digest", "strategy", "world_size"))
    size = readable(sum(record.size for record in entry.manifest.files))
    return (name, *numbers, size, state, plan[:8], strategy, ranks, ", ".join(_remarks(entry.manifest)))


def _told(value: object) -> str:
    return "?" if value is None else str(value)


def _remarks(manifest: Manifest) -> Iterable[str]:
    if manifest.fields.get("best"):
        yield "best"
    if manifest.fields.get("resumable") is False:
        yield "weights only"
