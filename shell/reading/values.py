"""A value written on a command line or in the environment: a Python literal, a list, or the bare text."""

import ast
import warnings
from typing import Any

MAX_TEXT = 10_000
WORDS = {"true": True, "false": False, "null": None, "none": None}
OPEN, CLOSE = "([{", ")]}"
PLAIN = (str, int, float, bool, type(None))
FAILURES = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def bare_value(text: str) -> Any:
    """`1e-3`, `None`, `true`, `[1, a]`, `(1, 2)`, `{'a': 1}`, `"text"`; `1,2,3` is a list; else the text.

    Raises:
        ValueError: brackets or quotes that open and never close, or a text too long.

    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"it is longer than {MAX_TEXT:,} characters")
    return _value(text.strip(), 0)


def _value(text: str, depth: int) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    parts = _parts(text)
    if depth > 50:
        raise ValueError("it is nested too deeply")
    if len(parts) > 1:
        return [_value(part, depth + 1) for part in _closed(parts)]
    found, value = _literal(text)
    if found:
        return value
    if text[:1] + text[-1:] in ("[]", "()"):
        inner = text[1:-1].strip()
        items = [_value(part, depth + 1) for part in _closed(_parts(inner))] if inner else []
        return tuple(items) if text[0] == "(" else items
    return text


def _closed(parts: list[str]) -> list[str]:
    """`1,` is a list of one."""
    return parts[:-1] if len(parts) > 1 and not parts[-1] else parts


def _literal(text: str) -> tuple[bool, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except FAILURES:
        return False, None
    return _plain(value), value


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    if isinstance(value, list | tuple | set):
        return all(map(_plain, value))
    return isinstance(value, PLAIN)


def _parts(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts, start, stack, quote, escaped = [], 0, "", "", False
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "\"'" and _opens(text, start, index, stack):
            quote = character
        elif character in OPEN:
            stack += character
        elif character in CLOSE and stack:
            stack = stack[:-1]
        elif character == "," and not stack:
            parts.append(text[start:index].strip())
            start = index + 1
    if (stack or quote) and text[:1] in (*OPEN, '"', "'"):
        raise ValueError(f"{(stack or quote)[-1]} is never closed")
    return [text] if stack or quote else [*parts, text[start:].strip()]


def _opens(text: str, start: int, index: int, stack: str) -> bool:
    """A quote opens a string at the start of a value; inside a bare word (it's) it is a letter."""
    return bool(stack) or not text[start:index].strip()
