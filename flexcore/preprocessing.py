"""Which data preprocessor a run builds: the config's, unless the model brings its own. Nothing is built here."""

from collections.abc import Iterator

from flexcore.components import Component, thaw
from flexcore.config import Config
from flexcore.dumping import dump
from flexcore.facts import Facts
from flexcore.problems import Problem
from flexcore.rules import problem

KEY = "data_preprocessor"


def chosen(config: Config) -> Component | None:
    """The config's data_preprocessor; None if the model's arguments name one, which wins as in mmengine."""
    return None if _of_model(config) is not None else config.data_preprocessor


def _of_model(config: Config) -> object:
    return config.model.kwargs.get(KEY) if isinstance(config.model, Component) else None


def preprocessing(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    """A second, different preprocessor would silently do nothing."""
    own = _of_model(config)
    if config.data_preprocessor is None or own is None or thaw(own) == dump(config.data_preprocessor):
        return
    text = "differs from model.data_preprocessor, which the model takes instead."
    yield problem("FD011", (KEY,), text, "Keep one of them.")
