"""Imported names in a Python config: an import brings in a name to write down, never a module."""

from typing import Any

from attrs import evolve, frozen

from shell.reading.faults import Fault
from shell.reading.marked import Map

WRITE_PLAIN = (
    'Write the result as plain data, or move the code to a module of yours and name it "module:Name".'
)


@frozen
class Alias:
    """What `import a.b as c` or `from a import b` binds: where the thing would be found."""

    module: str
    names: tuple[str, ...] = ()

    def entered(self, name: str) -> "Alias":
        return evolve(self, names=(*self.names, name))

    @property
    def dotted(self) -> str:
        return ".".join((self.module, *self.names))

    @property
    def reference(self) -> str:
        """`torch.nn:Linear`: leading lower-case names are modules, what follows is looked up inside."""
        modules, names = [self.module], list(self.names)
        while len(names) > 1 and not names[0][:1].isupper():
            modules.append(names.pop(0))
        return ".".join(modules) + (":" + ".".join(names) if names else "")


@frozen
class Namespace:
    """What a config file defines: values, and imported names, which are no settings themselves."""

    values: Map
    aliases: dict[str, Alias]


def settled(value: Any) -> Any:
    """An import's name as data; anything else as it is."""
    return value.reference if isinstance(value, Alias) else value


def needs_execution(construct: str, remedy: str = WRITE_PLAIN) -> Fault:
    return Fault("FK003", f"{construct} needs execution, which a config never gets.", remedy)


def is_dunder(name: str) -> bool:
    return name.startswith("__")
