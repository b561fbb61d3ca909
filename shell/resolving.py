"""What an import path names; importing is all that happens here."""

import importlib
from collections.abc import Callable
from typing import Any

from flexcore.components import is_import_path
from flexcore.problems import did_you_mean


def resolve(type_name: str, home: str | None = None) -> Callable[..., Any]:
    """The class or function a type name means; `home` is the module of bare names.

    Raises:
        LookupError: with (message, remedy): no such module, no such name, or not callable.
    """
    if not is_import_path(type_name):
        if home is None:
            text = f'"{type_name}" is a registry name, and there are no registries here.'
            raise LookupError(text, f'Write "package.module:{type_name}".')
        type_name = f"{home}:{type_name}"
    dotted, _, name = type_name.partition(":") if ":" in type_name else type_name.rpartition(".")
    try:
        found: Any = importlib.import_module(dotted)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else dotted
        remedy = f'Install or correct "{missing}", or run where it is importable.'
        raise LookupError(f'module "{dotted}" cannot be imported: {error}.', remedy) from error
    except Exception as error:
        text = f'module "{dotted}" fails on import: {type(error).__name__}: {error}.'
        raise LookupError(text, "Correct the module.") from error
    for part in name.split("."):
        if not hasattr(found, part):
            guess = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")]).strip()
            raise LookupError(f'"{dotted}" has no "{part}".', guess or "Correct the name.")
        found = getattr(found, part)
    if not callable(found):
        text = f'"{type_name}" is not a class or function.'
        raise LookupError(text, "Name something that can be called.")  # noqa: TRY004 - one kind for both
    return found
