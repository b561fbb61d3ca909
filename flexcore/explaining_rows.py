"""One line of an explanation, and how single values stand in it."""

from flexcore.components import Component, Data, Items, Members, Supplied


def row(label: str, *parts: object) -> str:
    return f"{label:<12} {' '.join(str(part) for part in parts if part not in (None, ''))}".rstrip()


def or_unknown(value: object, fact: str) -> str:
    return f"? (needs {fact})" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def ranks(count: int | None, what: str = "rank") -> str:
    """So many of them, or what tells."""
    return f"{or_unknown(count, 'world_size')} {what}{'' if count == 1 else 's'}"


def thing(thing: Component | Supplied) -> str:
    if isinstance(thing, Supplied):
        return "supplied at run time"
    args = ", ".join(f"{key}={_brief(value)}" for key, value in thing.kwargs.entries)
    return f"{thing.type}({args})"


def _brief(value: object) -> str:
    text = "..." if isinstance(value, Data | Items | Members) else repr(value)
    return text if len(text) < 40 else text[:37] + "..."


def number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
