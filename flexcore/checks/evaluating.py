"""Rules of validation and test: precision, test-time augmentation, and predictions written to files."""

from collections.abc import Iterator

from flexcore.batching import is_opaque
from flexcore.components import Component, is_import_path
from flexcore.config import Config
from flexcore.evaluating import DUMPS, is_dump
from flexcore.facts import Facts
from flexcore.loops import TTA, OwnEvalLoop, TestLoop, ValLoop
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem

SUFFIXES = (".safetensors", ".jsonl")
DUMP_KEYS = (
    "out_file_path",
    "collect_device",
    "collect_dir",
)  # FlexibleRunner's; ranks write files here, and collect nothing
TRANSFORMS = ("identity", "hflip", "vflip")
MERGES = ("mean",)


def evaluating(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    for mode in ("val", "test"):
        loop: ValLoop | TestLoop | OwnEvalLoop | None = getattr(config, f"{mode}_cfg")
        if isinstance(loop, ValLoop | TestLoop):
            yield from _precision(loop, (f"{mode}_cfg",), facts)
        if isinstance(loop, TestLoop) and isinstance(loop.tta, TTA):
            yield from _augmented(loop.tta, ("test_cfg", "tta"))
        yield from _predictions(config, mode, getattr(facts, f"{mode}_samples"))


def _precision(loop: ValLoop | TestLoop, path: Path, facts: Facts) -> Iterator[Problem]:
    if loop.fp16 and loop.dtype == "bfloat16":
        yield problem("FK019", (*path, "fp16"), 'is true with dtype="bfloat16".', "Keep one of them.")
    if (loop.dtype == "float16" or loop.fp16) and facts.supports_fp16 is False:
        text = f"float16 is not supported on this {facts.device_type} device."
        key, remedy = (
            ("fp16", "Set fp16=False.") if loop.fp16 else ("dtype", 'Set dtype="bfloat16", or remove it.')
        )
        yield problem("FP004", (*path, key), text, remedy)
    if loop.dtype == "bfloat16" and facts.supports_bf16 is False:
        text = f"bfloat16 is not supported on this {facts.device_type} device."
        yield problem("FP004", (*path, "dtype"), text, "Remove it.")


def _augmented(tta: TTA, path: Path) -> Iterator[Problem]:
    if not tta.transforms:
        yield problem("FK012", (*path, "transforms"), "is empty.", "Name at least one, or remove tta.")
    for i, transform in enumerate(tta.transforms):
        place: Path = (*path, "transforms", i)
        if not transform.is_import_path and transform.type not in TRANSFORMS:
            guess = did_you_mean(transform.type, TRANSFORMS).strip()
            known = f'Known: {", ".join(TRANSFORMS)}, or "pkg.module:Name".'
            text = f"{shown(transform.type)} is not a known transform."
            yield problem("FK013", (*place, "type"), text, guess or known)
        elif not transform.is_import_path and len(transform.kwargs):
            text = f"gives settings to {transform.type}, which has none."
            yield problem("FK010", place, text, "Remove them.")
    if not is_import_path(tta.merge) and tta.merge not in MERGES:
        text = f"{shown(tta.merge)} is not a known way to merge predictions."
        yield problem(
            "FK013", (*path, "merge"), text, 'Use "mean", or "pkg.module:function" of the list of outputs.'
        )


def _predictions(config: Config, mode: str, counts: tuple[int | None, ...] | None) -> Iterator[Problem]:
    given: list[tuple[Path, object]] = []
    loop = getattr(config, f"{mode}_cfg")
    own = isinstance(loop, OwnEvalLoop)
    if loop is not None and not own and loop.predictions is not None:
        given.append(((f"{mode}_cfg", "predictions"), loop.predictions))
    for i, named in enumerate(getattr(config, f"{mode}_evaluator") or ()):
        if isinstance(named.metric, Component) and is_dump(named.metric):
            path: Path = (f"{mode}_evaluator", named.name or i)
            yield from _dump(path, named.metric)
            if "out_file_path" in named.metric.kwargs:
                given.append(((*path, "out_file_path"), named.metric.kwargs["out_file_path"]))
    for path, value in given:
        yield from _file(path, value)
    if len(given) > 1:
        yield problem("FK019", given[1][0], "is a second place for the predictions.", "Keep one of them.")
    if given and own:
        text = f"asks for predictions to be written, and {mode}_cfg evaluates by a loop of its own."
        yield problem("FK019", given[0][0], text, "Remove it, and write them in the loop.")
    for i, entry in enumerate(getattr(config, f"{mode}_dataloader") or () if given else ()):
        streams = None in (counts or ())[i : i + 1]
        if is_opaque(entry.loader) or streams:
            text = "has an order of its own, and predictions are written in the dataset's."
            yield problem(
                "FK014",
                (f"{mode}_dataloader", entry.name or i),
                text,
                "Use DefaultSampler, and a dataset with a length.",
            )


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
