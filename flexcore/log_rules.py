"""What becomes of logged values, as custom_cfg asks: each mapping read as one rule, or told what is wrong with it.

mmengine's rules (LogProcessor, 0.10): a name is written once; without log_name the value itself is replaced.
"""

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from flexcore.components import Data, is_import_path
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem

METHODS = ("mean", "min", "max", "current")
KEYS = ("data_src", "log_name", "method_name", "window_size")
LONGEST = 1_000_000
"""The longest window that is kept, as in mmengine."""
RUNS_OWN = ("lr", "grad_norm", "time", "data_time", "eta")
"""Names the run itself logs."""

Window = int | Literal["epoch", "global"]


@frozen(kw_only=True)
class LogRule:
    """One more value of each log line, or another one in place of its source.

    Attributes:
        source: the name the values are logged under; name: the one this is shown under.
        method: "mean", "min", "max", "current", or "module:function" of (values, **kwargs).
        window: how many of the last values it is taken of; "epoch": since the epoch began; "global": of all.
    """

    source: str
    name: str
    method: str
    window: Window
    kwargs: Data = Data(())  # noqa: RUF009 - frozen


def rules(custom_cfg: tuple[Data, ...] | None) -> tuple[LogRule, ...]:
    """The rules of a custom_cfg that has no problems."""
    return tuple(_rule(one) for one in custom_cfg or ())


def _rule(one: Data) -> LogRule:
    rest = tuple((key, value) for key, value in one.entries if key not in KEYS)
    given = {key: value for key, value in one.entries if key in KEYS}
    method = given["method_name"]
    everything: Window = 1 if method == "current" else "global"
    return LogRule(
        source=given["data_src"], name=given.get("log_name", given["data_src"]), method=method,
        window=given.get("window_size", everything), kwargs=Data(rest),
    )  # fmt: skip


def problems(custom_cfg: tuple[Data, ...] | None, path: Path, *, epochs: str | None) -> Iterator[Problem]:
    """Everything wrong with a custom_cfg at `path`. epochs: why there are none to count, or None."""
    written: dict[str, int] = {}
    for i, one in enumerate(custom_cfg or ()):
        place = (*path, i)
        given = {str(key): value for key, value in one.entries}
        yield from _texts(given, place)
        yield from _of_method(given, place)
        yield from _of_window(given, place, epochs)
        name = given.get("log_name", given.get("data_src"))
        if isinstance(name, str):
            yield from _of_name(name, given, place, written)
            written.setdefault(name, i)


def _texts(given: dict[str, object], place: Path) -> Iterator[Problem]:
    for key in ("data_src", "method_name"):
        if key not in given:
            yield problem("FK012", place, f'lacks the key "{key}".', f'Add "{key}".')
    for key in ("data_src", "log_name", "method_name"):
        if key in given and (not isinstance(given[key], str) or not given[key]):
            yield problem(
                "FK011", (*place, key), f"must be text, got {shown(given[key])}.", "Correct the value."
            )


def _of_method(given: dict[str, object], place: Path) -> Iterator[Problem]:
    method = given.get("method_name")
    if not isinstance(method, str) or not method:
        return
    if method not in METHODS and not is_import_path(method):
        guess = did_you_mean(method, METHODS).strip() or f'Known: {", ".join(METHODS)}, or "pkg.module:name".'
        yield problem("FK013", (*place, "method_name"), f"{shown(method)} is no known statistic.", guess)
    elif method in METHODS:
        for key in (key for key in given if key not in KEYS):
            guess = did_you_mean(key, KEYS).strip() or f"Known: {', '.join(KEYS)}."
            yield problem("FK010", (*place, key), f"is no argument of {method}.", guess)
    if method == "current" and "window_size" in given:
        text = "does nothing, as current is the last value alone."
        yield problem("FK019", (*place, "window_size"), text, "Remove it, or use another method_name.")


def _of_window(given: dict[str, object], place: Path, epochs: str | None) -> Iterator[Problem]:
    if given.get("method_name") == "current":
        return
    here, window = (*place, "window_size"), given.get("window_size", "global")
    method = given.get("method_name")
    own = isinstance(method, str) and method not in METHODS and is_import_path(method)
    if window == "epoch" and epochs is not None:
        yield problem("FS003", here, f"counts epochs, and {epochs}.", 'Use a number, or "global".')
    elif window in ("epoch", "global") and isinstance(window, str):
        if own:
            text = f"is {window}, and a function of one's own needs every value of it at once."
            yield problem("FK020", here, text, "Give a number of values.")
    elif type(window) is not int:
        text = f'must be an integer, "epoch" or "global", got {shown(window)}.'
        yield problem("FK011", here, text, "Correct the value.")
    elif not 1 <= window <= LONGEST:
        text = f"must be at least 1 and at most {LONGEST:,}, which is all that is kept, got {shown(window)}."
        yield problem("FK020", here, text, 'Correct the value, or use "global".')


def _of_name(name: str, given: dict[str, object], place: Path, written: dict[str, int]) -> Iterator[Problem]:
    here = (*place, "log_name" if "log_name" in given else "data_src")
    if name in written:
        text = f"{shown(name)} is written by entry {written[name]} already."
        yield problem("FK004", here, text, "Give each entry a log_name of its own.")
    elif name in RUNS_OWN and name != given.get("data_src"):
        text = f"{shown(name)} is what the run itself logs under that name."
        yield problem("FK019", here, text, "Use another log_name.")
