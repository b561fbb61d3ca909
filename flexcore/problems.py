"""What can be wrong and how it is said: Problem, ConfigError. No rule is decided here."""

from collections.abc import Iterable
from typing import Literal

from attrs import evolve, frozen

Severity = Literal["error", "warning", "info"]
Path = tuple[str | int, ...]


@frozen(kw_only=True)
class Problem:
    """One finding: the place, what is wrong there (with the value), and what to do about it.

    Attributes:
        code: the rule's code, a key of `flexcore.rules.RULES`.
        path: the place inside the config, as keys and indices: ("optim_wrapper", "optimizer", "lr").
        message: the value and the rule it breaks.
        remedy: what the reader should change.
        severity: "error" stops planning; "warning" and "info" travel with the plan.
        where: "file:line" or "file:line:column" once the shell knows it; None in pure code.
    """

    code: str
    path: Path
    message: str
    remedy: str
    severity: Severity = "error"
    where: str | None = None

    def __str__(self) -> str:
        place = dotted(self.path) or "config"
        located = f"{place} ({self.where})" if self.where else place
        return f"{located}: {self.message} {self.remedy} [{self.code}]"


class ConfigError(ValueError):
    """Every error found in one go, in config order. `problems` holds them; str() prints one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def dotted(path: Path) -> str:
    """("val_dataloader", 0, "dataset") -> "val_dataloader.0.dataset"."""
    return ".".join(str(step) for step in path)


def located(problem: Problem, where: str | None) -> Problem:
    return problem if where is None else evolve(problem, where=where)


def did_you_mean(wrong: str, candidates: Iterable[str]) -> str:
    """' Did you mean "lr"?' or an empty string. Case-insensitive, at most one suggestion."""
    import difflib

    by_lower = {name.lower(): name for name in candidates}
    close = difflib.get_close_matches(wrong.lower()[:80], by_lower)
    return f' Did you mean "{by_lower[close[0]]}"?' if close else ""


def usable(text: str) -> bool:
    """Whether a file system could hold a name like this."""
    try:
        return bool(text.strip()) and b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def is_url(place: str) -> bool:
    """Whether a place is named by a URL, and not by a path."""
    return "://" in place


def shown(value: object, limit: int = 60) -> str:
    """A value as it may stand in a message: repr, cut short, never raising.

    Ints beyond Python's 4,300-digit print limit, deeply nested values and objects whose repr fails are
    described instead.
    """
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__} too large to print"
    text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    return text if len(text) <= limit else text[: limit - 3] + "..."
