"""Rules of validation and test: precision, and predictions written to files."""

from collections.abc import Iterator

from flexcore.batching import is_opaque
from flexcore.components import Component
from flexcore.config import Config
from flexcore.evaluating import DUMPS, is_dump
from flexcore.facts import Facts
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem

SUFFIXES = (".safetensors", ".jsonl")
DUMP_KEYS = (
    "out_file_path",
    "collect_device",
)  # FlexibleRunner's; ranks write files here, and collect nothing


def evaluating(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    for key in ("val_cfg", "test_cfg"):
        loop = getattr(config, key)
        if loop is not None and loop.fp16 and loop.dtype == "bfloat16":
            text = 'is true with dtype="bfloat16".'
            yield problem("FK019", (key, "fp16"), text, "Keep one of them.")
        if loop is not None and loop.dtype == "float16" and facts.supports_fp16 is False:
            text = f"float16 is not supported on this {facts.device_type} device."
            yield problem("FP004", (key, "dtype"), text, 'Set dtype="bfloat16", or remove it.')
        if loop is not None and loop.dtype == "bfloat16" and facts.supports_bf16 is False:
            text = f"bfloat16 is not supported on this {facts.device_type} device."
            yield problem("FP004", (key, "dtype"), text, "Remove it.")
    yield from _predictions(config)


def _predictions(config: Config) -> Iterator[Problem]:
    given: list[tuple[Path, object]] = []
    if config.test_cfg is not None and config.test_cfg.predictions is not None:
        given.append((("test_cfg", "predictions"), config.test_cfg.predictions))
    for key in ("val_evaluator", "test_evaluator"):
        for i, named in enumerate(getattr(config, key) or ()):
            if isinstance(named.metric, Component) and is_dump(named.metric):
                path: Path = (key, named.name or i)
                if key == "val_evaluator":
                    text = f"{DUMPS} of a validation is known but not built yet."
                    yield problem("FK014", (*path, "type"), text, "Use it in test_evaluator.")
                else:
                    yield from _dump(path, named.metric)
                    given.append(((*path, "out_file_path"), named.metric.kwargs.get("out_file_path", "x")))
    for path, value in given:
        yield from _file(path, value)
    if len(given) > 1:
        yield problem("FK019", given[1][0], "is a second place for the predictions.", "Keep one of them.")
    for i, entry in enumerate(config.test_dataloader or () if given else ()):
        if is_opaque(entry.loader):
            text = "has an order of its own, and predictions are written in the dataset's."
            yield problem("FK014", ("test_dataloader", entry.name or i), text, "Use DefaultSampler.")


def _dump(path: Path, dump: Component) -> Iterator[Problem]:
    if "out_file_path" not in dump.kwargs:
        yield problem("FK012", path, 'lacks the key "out_file_path".', 'Add "out_file_path".')
    for key in dump.kwargs:
        if key not in DUMP_KEYS:
            guess = did_you_mean(str(key), DUMP_KEYS).strip() or f"Remove it; known here: {DUMP_KEYS[0]}."
            yield problem("FK010", (*path, key), f"is not a setting of {DUMPS}.", guess)


def _file(path: Path, value: object) -> Iterator[Problem]:
    """A plain path; no pickle is written, since reading one executes it."""
    name = value.rpartition("/")[2] if isinstance(value, str) else ""
    suffix = name[name.rindex(".") :] if "." in name else ""
    if not name or "\0" in name or (suffix and suffix not in SUFFIXES):
        text = f"must be a path without suffix or with {' or '.join(SUFFIXES)}, got {shown(value)}."
        yield problem("FC010", path, text, "Without a suffix the predictions themselves decide.")
