"""JSON text as marked data: a scanner that knows where it is. Keys are unique; NaN and Infinity are floats."""

import re
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # missing from typeshed
from typing import Any

from flexcore.problems import shown
from shell.reading.faults import Fault
from shell.reading.limits import MAX_DEPTH, too_much
from shell.reading.marked import Map, Seq
from shell.reading.templates import TEMPLATE, environment
from shell.reading.text import Lines
from shell.reading.values import bare_value

SPACE = re.compile(r"[ \t\n]*")
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
WORDS = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
WORD = re.compile(r"-?[A-Za-z_]\w*")
REMEDY = "Correct the JSON there."


class _Scanner:
    def __init__(self, text: str, name: str, faults: list[Fault]) -> None:
        self.text = text
        self.lines = Lines(text, name)
        self.faults = faults
        self.offset = 0
        self.depth = 0

    def peek(self) -> str:
        self.offset = self._space(self.offset)
        return self.text[self.offset : self.offset + 1]

    def _space(self, offset: int) -> int:
        match = SPACE.match(self.text, offset)
        return match.end() if match else offset

    def refuse(self, expected: str, offset: int | None = None) -> Fault:
        offset = self.offset if offset is None else offset
        found = shown(self.text[offset : offset + 12].split("\n")[0]) if self.text[offset:] else "the end"
        message = f"JSON syntax error: expected {expected}, found {found}."
        return Fault("FK002", message, REMEDY, at=self.lines.at(offset))

    def expect(self, character: str, expected: str) -> None:
        if self.peek() != character:
            raise self.refuse(expected)
        self.offset += 1

    def value(self) -> Any:
        first = self.peek()
        if first == '"':
            return self.string()
        if first == "{":
            match = TEMPLATE.match(self.text, self.offset)
            return self.template(match) if match else self.nested(self.mapping)
        return self.nested(self.sequence) if first == "[" else self.scalar()

    def template(self, match: re.Match[str]) -> Any:
        """`{{...}}` outside a string, which mmengine's JSON configs use for values that are not strings."""
        self.offset = match.end()
        return bare_value(environment(match)) if match["env"] else match[0]

    def nested(self, scan: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            fault = too_much("The value is nested too deeply", MAX_DEPTH)
            fault.at = self.lines.at(self.offset)
            raise fault
        value = scan()
        self.depth -= 1
        return value

    def string(self) -> str:
        try:
            value, self.offset = scanstring(self.text, self.offset + 1, True)
        except JSONDecodeError as error:
            message = f"JSON syntax error: {error.msg}."
            raise Fault("FK002", message, REMEDY, at=self.lines.at(error.pos)) from None
        return str(value)

    def scalar(self) -> Any:
        word = WORD.match(self.text, self.offset)
        if word and word[0] in WORDS:
            self.offset = word.end()
            return WORDS[word[0]]
        number = NUMBER.match(self.text, self.offset)
        if not number:
            raise self.refuse("a value")
        self.offset = number.end()
        return self.number(number)

    def number(self, match: re.Match[str]) -> int | float:
        try:
            return float(match[0]) if match[1] or match[2] else int(match[0])
        except ValueError:
            at = self.lines.at(match.start())
            message = f"The number {shown(match[0])} has too many digits."
            raise Fault("FK007", message, "Write a shorter number.", at=at) from None

    def sequence(self) -> Seq:
        self.offset += 1
        made = Seq()
        if self.peek() == "]":
            self.offset += 1
            return made
        while True:
            self.peek()
            at = self.lines.at(self.offset)
            made.add(self.value(), at)
            if self.peek() != ",":
                break
            self.offset += 1
        self.expect("]", 'a comma or "]"')
        return made

    def mapping(self) -> Map:
        self.offset += 1
        made = Map()
        if self.peek() == "}":
            self.offset += 1
            return made
        while True:
            self.entry(made)
            if self.peek() != ",":
                break
            self.offset += 1
        self.expect("}", 'a comma or "}"')
        return made

    def entry(self, made: Map) -> None:
        if self.peek() != '"':
            raise self.refuse("a key in double quotes")
        at = self.lines.at(self.offset)
        key = self.string()
        self.expect(":", "a colon")
        value = self.value()
        if key in made:
            self.faults.append(duplicate_key(key, made, at))
        made.put(key, value, at)


def duplicate_key(key: Any, made: Map, at: Any) -> Fault:
    message = f"The key {shown(key)} is already set at {made.marks.get(key)}; the first value would be lost."
    return Fault("FK004", message, "Keep one of the two.", at=at)


def read_json(text: str, name: str, faults: list[Fault]) -> Any:
    scanner = _Scanner(text, name, faults)
    value = scanner.value()
    if scanner.peek():
        raise scanner.refuse("the end of the file")
    return value
