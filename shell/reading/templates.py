"""`{{...}}` in strings: values of the base, parts of the file's name, environment variables."""

import os
import re
from typing import Any

from attrs import frozen

from flexcore.problems import did_you_mean, shown
from shell.reading.faults import Broken, Fault
from shell.reading.limits import Budget, check_size
from shell.reading.marked import Map, Seq, Tup

TEMPLATE = re.compile(
    r"\{\{\s*(?:\$(?P<env>\w+)\s*:\s*(?P<default>[^\s{}]*)"
    r"|_base_\.(?P<base>\w+(?:\.\w+)*)"
    r"|(?P<file>fileDirname|fileBasenameNoExtension|fileBasename|fileExtname))\s*\}\}"
)

HIDDEN = re.compile(r"\{\{__e(\d{1,6}) *\}\}")  # what a template became so that the file parses


@frozen(kw_only=True)
class Templates:
    """What `{{...}}` means in one file. `base` is None where there is none, or where it is broken;
    `hidden` are the templates that the parser had to replace by {{__e0}}, {{__e1}}, ...
    """

    path: str
    budget: Budget
    base: Map | None = None
    broken: bool = False
    hidden: tuple[str, ...] = ()

    def fill(self, text: str) -> Any:
        """The text with its templates replaced; a text that is one `{{_base_.x}}` is that value itself, shared."""
        if "{{" not in text:
            return text
        if self.hidden:
            text = HIDDEN.sub(self._revealed, text)
        whole = TEMPLATE.fullmatch(text)
        if whole and whole["base"]:
            return self.from_base(whole["base"])
        filled = TEMPLATE.sub(lambda match: str(self._value(match)), text)
        check_size(len(filled), "The text")
        return filled

    def _revealed(self, match: re.Match[str]) -> str:
        return self.hidden[int(match[1])] if int(match[1]) < len(self.hidden) else match[0]

    def _value(self, match: re.Match[str]) -> Any:
        if match["env"]:
            return environment(match)
        return self.from_base(match["base"]) if match["base"] else self.file_part(match["file"])

    def file_part(self, name: str) -> str:
        full = os.path.abspath(self.path)
        stem, extension = os.path.splitext(os.path.basename(full))
        parts = {"fileDirname": os.path.dirname(full), "fileBasename": os.path.basename(full)}
        return {**parts, "fileBasenameNoExtension": stem, "fileExtname": extension}[name]

    def from_base(self, dotted: str) -> Any:
        if self.broken:
            raise Broken
        value: Any = Map() if self.base is None else self.base
        for step in dotted.split("."):
            value = _entered(value, step, dotted)
        self.budget.deep(value)
        return value


def _entered(value: Any, step: str, dotted: str) -> Any:
    if isinstance(value, Map) and step in value:
        return value[step]
    if isinstance(value, Seq | Tup) and step.isdecimal() and len(step) < 8 and int(step) < len(value):
        return value[int(step)]
    near = did_you_mean(step, map(str, value)) if isinstance(value, Map) else ""
    raise Fault(
        "FK007",
        f"_base_.{dotted} does not exist: the base has no {shown(step)} there.{near}",
        "Name a key that a file in _base_ defines.",
    )


def environment(match: re.Match[str]) -> str:
    value = os.environ.get(match["env"]) or match["default"]
    if not value:
        raise Fault(
            "FK007",
            f"The environment variable {match['env']} is not set and {shown(match[0])} gives no default.",
            f"Set {match['env']}, or write a default: {{{{${match['env']}:value}}}}.",
        )
    return str(value)


def filled(value: Any, templates: Templates, faults: list[Fault]) -> Any:
    """Every string of a data file with its templates replaced; `value` has bounded depth."""
    if isinstance(value, str):
        return templates.fill(value)
    made: Map | Seq
    if isinstance(value, Map):
        made = Map()
        for key, item in value.items():
            mark = value.marks.get(key)
            made.put(key, filled_at(item, mark, templates, faults), mark)
        return made
    if isinstance(value, Seq):
        made = Seq()
        for item, mark in zip(value, value.marks, strict=True):
            made.add(filled_at(item, mark, templates, faults), mark)
        return made
    return value


def filled_at(value: Any, mark: Any, templates: Templates, faults: list[Fault]) -> Any:
    try:
        return filled(value, templates, faults)
    except Fault as fault:
        fault.at = fault.at or mark
        faults.append(fault)
    except Broken:
        pass
    return None
