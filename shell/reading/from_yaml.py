"""YAML text as marked data: PyYAML's scanner and parser, scalars by the YAML 1.2 core schema, no merge keys."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from flexcore.problems import shown
from shell.reading.faults import Fault, Position
from shell.reading.from_json import duplicate_key
from shell.reading.limits import MAX_DEPTH, too_much
from shell.reading.marked import Map, Seq
from shell.reading.templates import TEMPLATE, environment

CORE = "tag:yaml.org,2002:"
REMEDY = "Correct the YAML there."
CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 0)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)
SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
}
HIDDEN = re.compile("\ue000(\\d+)\ue001")


def core_scalar(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema: `no` is text, `1e-3` a float, `0o17` octal."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    for pattern, convert in NUMBERS:
        if pattern.fullmatch(text):
            return convert(text)
    return text


class _Builder:
    def __init__(self, text: str, name: str, faults: list[Fault]) -> None:
        self.name = name
        self.faults = faults
        self.anchors: dict[str, Any] = {}
        self.hidden: list[str] = []
        text = TEMPLATE.sub(self._hide, text)  # outside quotes, {{ would start a YAML mapping
        self.events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.depth = 0

    def _hide(self, match: re.Match[str]) -> str:
        self.hidden.append(match[0])
        return "\ue000" + str(len(self.hidden) - 1).zfill(len(match[0]) - 2) + "\ue001"

    def _reveal(self, text: str) -> str:
        def original(match: re.Match[str]) -> str:
            index = int(match[1][-9:])
            return self.hidden[index] if index < len(self.hidden) else match[0]

        return HIDDEN.sub(original, text) if self.hidden else text

    def at(self, event: Any) -> Position:
        return Position(self.name, event.start_mark.line + 1, event.start_mark.column + 1)

    def refuse(self, code: str, message: str, remedy: str, event: Any) -> Fault:
        return Fault(code, message, remedy, at=self.at(event))

    def document(self) -> Any:
        next(self.events)  # stream start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return Map()
        value = self.node(next(self.events))
        next(self.events)  # document end
        following = next(self.events)
        if not isinstance(following, yaml.StreamEndEvent):
            remedy = "Keep one config in a file."
            raise self.refuse("FK002", "A second YAML document starts here.", remedy, following)
        return value

    def node(self, event: Any) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        value = self.container(event) if not isinstance(event, yaml.ScalarEvent) else self.scalar(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            message = f"The alias *{event.anchor} names no finished anchor."
            remedy = f"Write &{event.anchor} at a value above that does not contain the alias."
            raise self.refuse("FK002", message, remedy, event)
        return self.anchors[event.anchor]

    def container(self, event: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            fault = too_much("The value is nested too deeply", MAX_DEPTH)
            fault.at = self.at(event)
            raise fault
        sequence = isinstance(event, yaml.SequenceStartEvent)
        self.check_tag(event, ("seq",) if sequence else ("map",))
        value = self.sequence() if sequence else self.mapping()
        self.depth -= 1
        return value

    def check_tag(self, event: Any, allowed: tuple[str, ...]) -> None:
        tag = event.tag
        if tag in (None, "!") or (tag.startswith(CORE) and tag[len(CORE) :] in allowed):
            return
        python = tag.startswith((CORE + "python", "!python"))
        reason = "needs execution, which a config never gets" if python else "is not a core YAML tag here"
        remedy = "Remove the tag and write plain data."
        raise self.refuse(
            "FK003" if python else "FK002", f"The YAML tag {shown(tag)} {reason}.", remedy, event
        )

    def sequence(self) -> Seq:
        made = Seq()
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            made.add(self.node(event), self.at(event))
        return made

    def mapping(self) -> Map:
        made = Map()
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event)
            value = self.node(next(self.events))
            if key in made:
                self.faults.append(duplicate_key(key, made, self.at(event)))
            made.put(key, value, self.at(event))
        return made

    def key(self, event: Any) -> Any:
        merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
        if merge or (event.__class__ is yaml.ScalarEvent and event.tag == CORE + "merge"):
            remedy = "Copy the entries, or put them in a file of their own and name it in _base_."
            raise self.refuse("FK002", "The merge key << is not part of YAML 1.2.", remedy, event)
        key = self.node(event)
        if isinstance(key, Map | Seq):
            message = f"A {'mapping' if isinstance(key, Map) else 'list'} is used as a key."
            raise self.refuse("FK002", message, "Use a string as the key.", event)
        return key

    def scalar(self, event: Any) -> Any:
        self.check_tag(event, ("str", *SCALAR_TAGS))
        text = self._reveal(event.value)
        kind = (event.tag or "").removeprefix(CORE)
        if kind in SCALAR_TAGS:
            return self.tagged(text, kind, event)
        if event.implicit[0]:
            return self.resolved(text, event)
        return text

    def resolved(self, text: str, event: Any) -> Any:
        template = TEMPLATE.fullmatch(text)
        try:
            return core_scalar(environment(template) if template and template["env"] else text)
        except ValueError:
            message = f"The number {shown(text)} has too many digits."
            raise self.refuse("FK007", message, "Write a shorter number.", event) from None

    def tagged(self, text: str, kind: str, event: Any) -> Any:
        value = self.resolved(text, event)
        if type(value) not in SCALAR_TAGS[kind]:
            raise self.refuse("FK002", f"{shown(text)} is not a YAML {kind}.", REMEDY, event)
        return float(value) if kind == "float" else value


def read_yaml(text: str, name: str, faults: list[Fault]) -> Any:
    try:
        return _Builder(text, name, faults).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(name, mark.line + 1, mark.column + 1) if mark else Position(name, 1, 0)
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise Fault("FK002", f"YAML syntax error: {reason}.", REMEDY, at=at) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"YAML syntax error: the character {error.character:#06x} is not allowed."
        remedy = "Remove it, or write it as an escape in double quotes."
        raise Fault("FK002", message, remedy, at=Position(name, line, 0)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message = f"YAML syntax error: {shown(str(error))}."
        raise Fault("FK002", message, REMEDY, at=Position(name, 1, 0)) from None
