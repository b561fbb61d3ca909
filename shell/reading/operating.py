"""Operators of the Python dialect on plain values, with the size of each result bounded before it is made."""

import ast
import operator
from collections.abc import Callable
from typing import Any

from shell.reading.formatting import percent
from shell.reading.limits import CONTAINERS, MAX_INT, Budget, check_size, too_much
from shell.reading.marked import Map, Seq, Tup, marks_of

Binary = Callable[[Any, Any, Budget], Any]
LISTS = (Seq, Tup)


def sized(value: Any) -> bool:
    return isinstance(value, str | Seq | Tup)


def add(left: Any, right: Any, budget: Budget) -> Any:
    if sized(left) and sized(right):
        check_size(len(left) + len(right), "The sum")
        budget.spend(len(left) + len(right))
    if isinstance(left, LISTS) and type(left) is type(right):
        return type(left)([*left, *right], [*marks_of(left), *marks_of(right)])
    return left + right


def _multiply(left: Any, right: Any, budget: Budget) -> Any:
    if sized(right):
        left, right = right, left
    if not sized(left):
        return small(left * right) if _factors(left, right) else left * right
    times = max(0, operator.index(right))
    size = len(left) * times
    check_size(size, "The product")
    budget.spend(size)
    if isinstance(left, LISTS):
        return type(left)(list(left) * times, list(left.marks) * times)
    return left * times


def _factors(left: Any, right: Any) -> bool:
    """Both are ints, and small enough that multiplying them costs nothing."""
    if not (isinstance(left, int) and isinstance(right, int)):
        return False
    if left.bit_length() + right.bit_length() > 200 and left and right:
        raise too_much("The product is an integer beyond 64 bits", MAX_INT)
    return True


def small(value: Any) -> Any:
    """An integer result, unless it is beyond what any setting needs."""
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise too_much("The result is an integer beyond 64 bits", MAX_INT)
    return value


def power(left: Any, right: Any, _: Budget) -> Any:
    if isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 0:
        if left.bit_length() > 64 or right > 64:
            raise too_much("The power is an integer beyond 64 bits", MAX_INT)
    elif isinstance(left, int) and left.bit_length() > 64:
        raise too_much("The base of the power is an integer beyond 64 bits", MAX_INT)
    return small(_real(left**right))


def _real(value: Any) -> Any:
    if isinstance(value, complex):
        raise ValueError("the result is a complex number, which a config cannot hold")  # noqa: TRY004
    return value


def _shift(left: Any, right: Any, _: Budget) -> Any:
    if isinstance(left, int) and isinstance(right, int) and (right > 64 or left.bit_length() > 64):
        raise too_much("The shifted integer is beyond 64 bits", MAX_INT)
    return small(left << right)


def _modulo(left: Any, right: Any, budget: Budget) -> Any:
    return percent(left, right, budget) if isinstance(left, str) else left % right


def _or(left: Any, right: Any, budget: Budget) -> Any:
    if isinstance(left, Map) and isinstance(right, Map):
        budget.spend(len(left) + len(right))
        made = left.duplicate()
        made.absorb(right)
        return made
    return _sets(operator.or_)(left, right, budget)


def _sets(apply: Callable[[Any, Any], Any]) -> Binary:
    def applied(left: Any, right: Any, budget: Budget) -> Any:
        for side in (left, right):
            if isinstance(side, set):
                budget.deep(side)
        return apply(left, right)

    return applied


BINARY: dict[type[ast.operator], Binary] = {
    ast.Add: add,
    ast.Sub: _sets(operator.sub),
    ast.Mult: _multiply,
    ast.Div: lambda left, right, _: left / right,
    ast.FloorDiv: lambda left, right, _: left // right,
    ast.Mod: _modulo,
    ast.Pow: power,
    ast.LShift: _shift,
    ast.RShift: lambda left, right, _: left >> right,
    ast.BitOr: _or,
    ast.BitAnd: _sets(operator.and_),
    ast.BitXor: _sets(operator.xor),
}

UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}


def compared(operation: type[ast.cmpop], left: Any, right: Any, budget: Budget) -> Any:
    if operation in (ast.In, ast.NotIn):
        budget.deep(left)
        if isinstance(left, CONTAINERS) and isinstance(right, list | tuple):
            budget.deep(right)  # each element may be compared in full
        elif not isinstance(right, dict | set):
            budget.spend(len(right))
    elif operation not in (ast.Is, ast.IsNot):
        budget.deep(left)
        budget.deep(right)
    return COMPARE[operation](left, right)


def wrapped(value: Any) -> Any:
    """Builtin containers as the marked ones the evaluator works with; the outermost level only."""
    if type(value) is list:
        return Seq(value)
    return Tup(value) if type(value) is tuple else value


def elements(value: Any, budget: Budget) -> list[Any]:
    """What iterating over `value` gives, in an order that does not depend on the process."""
    if not isinstance(value, str | dict | list | tuple | set):
        raise TypeError(f"{type(value).__name__} is not iterable")
    budget.spend(len(value))
    if isinstance(value, set):
        budget.deep(value)
        return sorted(value, key=lambda item: (type(item).__name__, repr(item)))
    return list(value)


def element_marks(value: Any) -> Any:
    return marks_of(value) if isinstance(value, LISTS) else [None] * len(value)
