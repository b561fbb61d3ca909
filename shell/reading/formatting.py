"""Text out of values: str(), format specs, `{}` and `%` templates, each bounded before it is made."""

import re
from collections.abc import Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

from shell.reading.limits import CONTAINERS, MAX_WIDTH, Budget, check_size, children, too_much, weight
from shell.reading.names import needs_execution

PERCENT = re.compile(
    r"%(?:\((?P<name>[^)]*)\))?[-#0 +]*(?P<width>\d*|\*)(?:\.(?P<precision>\d*|\*))?(?P<kind>.?)"
)
NUMBERS = re.compile(r"\d+")
CONVERSIONS = {"r": repr, "s": str, "a": ascii}
SCALARS = (str, int, float, type(None))


def text(value: Any, budget: Budget, convert: Any = str) -> str:
    check_size(weight(value), "The text")
    budget.deep(value)
    _check_ordered(value, set())
    made: str = convert(value)
    check_size(len(made), "The text")
    budget.spend(len(made))
    return made


def _check_ordered(value: Any, seen: set[int]) -> None:
    """The text of a set differs between runs, and two runs must read one config alike."""
    if isinstance(value, set) and len(value) > 1:
        raise ValueError("the text of a set has no fixed order; use sorted(...)")
    for item in children(value):
        if isinstance(item, CONTAINERS) and id(item) not in seen:
            seen.add(id(item))
            _check_ordered(item, seen)


def formatted(value: Any, spec: str, budget: Budget) -> str:
    """`format(value, spec)`; containers take no spec."""
    if not isinstance(value, SCALARS):
        if spec:
            raise TypeError(f"a {type(value).__name__.lower()} takes no format spec")
        return text(value, budget)
    for number in NUMBERS.findall(spec):
        if len(number) > 4 or int(number) > MAX_WIDTH:
            raise too_much(f"The format width {number[:12]} is too large", MAX_WIDTH)
    budget.spend(1 + (len(value) if isinstance(value, str) else 0))
    return format(value, spec)


def braces(template: str, budget: Budget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """`str.format` with plain field names only: attribute and index lookups in fields are refused."""
    return _braces(template, budget, args, kwargs, iter(range(len(args) + 1)), nested=False)


def _braces(
    template: str,
    budget: Budget,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    automatic: Iterator[int],
    *,
    nested: bool,
) -> str:
    pieces: list[str] = []
    size = 0
    for literal, field, spec, conversion in Formatter().parse(template):
        pieces.append(literal)
        if field is not None:
            budget.step()
            value = _field(field, args, kwargs, automatic)
            if spec and nested:
                raise ValueError("format specs are nested too deeply")
            width = _braces(spec or "", budget, args, kwargs, automatic, nested=True)
            value = text(value, budget, CONVERSIONS[conversion]) if conversion else value
            pieces.append(formatted(value, width, budget))
        size += sum(map(len, pieces[-2:]))
        check_size(size, "The text")
    return "".join(pieces)


def _field(field: str, args: Sequence[Any], kwargs: Mapping[str, Any], automatic: Iterator[int]) -> Any:
    if "." in field or "[" in field:
        raise needs_execution(f'The lookup in the format field "{{{field[:40]}}}"')
    if not field:
        return args[next(automatic)]
    return args[int(field)] if field.isdecimal() and len(field) < 6 else kwargs[field]


def percent(template: str, value: Any, budget: Budget) -> str:
    """`template % value`."""
    for match in PERCENT.finditer(template):
        for number in (match["width"] or "", match["precision"] or ""):
            if number == "*":
                raise ValueError("a width from an argument (*) is not supported; write it out")
            if len(number) > 4 or int(number or 0) > MAX_WIDTH:
                raise too_much(f"The format width {number[:12]} is too large", MAX_WIDTH)
    budget.spend(_bound(template, value, budget))
    made = template % (tuple(value) if isinstance(value, tuple) else value)
    check_size(len(made), "The text")
    return made


def _bound(template: str, value: Any, budget: Budget) -> int:
    """At least as many characters as the result has: a mapping's values may each be used many times."""
    longest = max((len(text(item, budget, repr)) for item in _parts(value)), default=0)
    size = len(template) + template.count("%") * longest
    check_size(size, "The text")
    return size


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return list(value)
    return [value, *value.values()] if isinstance(value, dict) else [value]
