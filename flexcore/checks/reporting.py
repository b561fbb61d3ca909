"""Rules of what a run tells and where: log rules, the logger hook's settings, visualizer backends."""

from collections.abc import Iterator

import attrs

from flexcore import log_rules
from flexcore.checks.saving import placed
from flexcore.components import Data
from flexcore.config import Config
from flexcore.facts import Facts
from flexcore.hooks import Logger, merged
from flexcore.log_specs import DefineMetric, MLflowBackend, TensorBoardBackend, WandbBackend, WandbInit
from flexcore.problems import Path, Problem, did_you_mean, is_url, shown, usable
from flexcore.rules import problem

SUMMARIES = ("min", "max", "mean", "last", "first", "copy", "none")
WATCHED: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("log", (str,)), ("log_freq", (int,)), ("log_graph", (bool,)),
)  # fmt: skip
"""Arguments of wandb's watch besides the model: (name, types)."""
KINDS_WATCHED = ("gradients", "parameters", "all")
FORBIDDEN_IN_IDS = "/\\#?%:"
FIX = "Correct the value."


def reporting(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    yield from _processor(config)
    for path, hook in placed(config):
        if isinstance(hook, Logger):
            yield from _logger(config, hook, path)
    yield from _without_logger(config)
    yield from _backends(config)


def _processor(config: Config) -> Iterator[Problem]:
    asked, here = config.log_processor, ("log_processor",)
    no_epochs = None
    if _no_epochs(config):
        no_epochs = "the iteration loop has none"
        if asked.by_epoch:
            text = "counts epochs, and the iteration loop has none."
            yield problem("FS003", (*here, "by_epoch"), text, "Remove it, or write False.")
    elif asked.by_epoch is False:
        no_epochs = "by_epoch=False leaves them out"
    yield from log_rules.problems(asked.custom_cfg, (*here, "custom_cfg"), epochs=no_epochs)


def _no_epochs(config: Config) -> bool:
    return config.train_cfg is not None and not config.train_cfg.by_epoch


def _logger(config: Config, hook: Logger, path: Path) -> Iterator[Problem]:
    if hook.interval_exp_name is not None and hook.interval_exp_name < 1:
        text = f"must be at least 1, got {shown(hook.interval_exp_name)}."
        yield problem("FK020", (*path, "interval_exp_name"), text, FIX)
    if hook.log_metric_by_epoch and _no_epochs(config):
        text = "counts epochs, and the iteration loop has none."
        yield problem("FS003", (*path, "log_metric_by_epoch"), text, "Remove it.")
    yield from _copying(hook, path)


def _copying(hook: Logger, path: Path) -> Iterator[Problem]:
    if not hook.keep_local:
        text = "is False, and a resume and `flexcore report` read the local files."
        yield problem(
            "FK014", (*path, "keep_local"), text, "Remove it, and the files once they are not needed."
        )
    for key in ("backend_args", "file_client_args"):
        if getattr(hook, key) is not None:
            text = "is for remote storage, and only directories are written to."
            yield problem("FK014", (*path, key), text, "Remove it, and copy the files from out_dir.")
    if hook.out_dir is None:
        return
    if is_url(hook.out_dir):
        text = f"names remote storage, and only directories are written to: {shown(hook.out_dir)}."
        yield problem("FK014", (*path, "out_dir"), text, "Name a directory, and copy the files from there.")
    else:
        yield from _directory((*path, "out_dir"), hook.out_dir)


def _directory(path: Path, value: str | None) -> Iterator[Problem]:
    if value is not None and not usable(value):
        yield problem("FC010", path, f"is not a usable path: {shown(value)}.", "Write a plain path.")


def _without_logger(config: Config) -> Iterator[Problem]:
    """Settings of what the logger hook would tell while there is none."""
    if any(isinstance(hook, Logger) for _, hook in merged(config.default_hooks, config.custom_hooks)):
        return
    text, remedy = (
        "does nothing, as there is no LoggerHook to log values.",
        "Remove it, or keep the LoggerHook.",
    )
    if config.log_processor.custom_cfg:
        yield problem("FK019", ("log_processor", "custom_cfg"), text, remedy)
    for i, backend in enumerate(_asked(config)):
        if isinstance(backend, TensorBoardBackend | WandbBackend | MLflowBackend):
            yield problem("FK019", ("visualizer", "vis_backends", i), text, remedy)


def _asked(config: Config) -> tuple[object, ...]:
    return (config.visualizer.vis_backends or ()) if config.visualizer is not None else ()


def _backends(config: Config) -> Iterator[Problem]:
    seen: dict[type, int] = {}
    for i, backend in enumerate(_asked(config)):
        path: Path = ("visualizer", "vis_backends", i)
        if type(backend) in seen:
            text = f"is of the same type as entry {seen[type(backend)]}."
            yield problem("FK004", path, text, "Keep one of them.")
        seen.setdefault(type(backend), i)
        match backend:
            case TensorBoardBackend(save_dir=given):
                yield from _directory((*path, "save_dir"), given)
            case WandbBackend():
                yield from _wandb(backend, path)
            case MLflowBackend():
                yield from _mlflow(backend, path)


def _wandb(backend: WandbBackend, path: Path) -> Iterator[Problem]:
    yield from _directory((*path, "save_dir"), backend.save_dir)
    if not backend.commit:
        text = "is False, which keeps every value in memory and writes one row at the end."
        yield problem("FK014", (*path, "commit"), text, "Remove it.")
    yield from _wandb_init(backend.init_kwargs or WandbInit(), (*path, "init_kwargs"))
    if isinstance(backend.init_kwargs, WandbInit) and None not in (backend.save_dir, backend.init_kwargs.dir):
        text = "and save_dir both name where the files go."
        yield problem("FK019", (*path, "init_kwargs", "dir"), text, "Keep one of them.")
    yield from _defined(backend.define_metric_cfg, (*path, "define_metric_cfg"))
    yield from _watched(backend.watch_kwargs, (*path, "watch_kwargs"))


def _wandb_init(asked: WandbInit, path: Path) -> Iterator[Problem]:
    yield from _directory((*path, "dir"), asked.dir)
    if asked.resume is not None:
        text = "is decided by the run: one that is resumed goes on under its id."
        yield problem("FK019", (*path, "resume"), text, "Remove it.")
    if asked.id is not None and (
        not usable(asked.id) or asked.id != asked.id.strip() or set(asked.id) & set(FORBIDDEN_IN_IDS)
    ):
        text = f"is no usable run id: {shown(asked.id)}."
        remedy = f"Write a plain name without any of {' '.join(FORBIDDEN_IN_IDS)}"
        yield problem("FK020", (*path, "id"), text, remedy + ".")


def _defined(given: Data | tuple[DefineMetric, ...] | None, path: Path) -> Iterator[Problem]:
    rows: list[tuple[Path, object, object]] = []
    if isinstance(given, Data):
        rows = [((*path, str(name)), name, summary) for name, summary in given.entries]
    elif given is not None:
        rows = [((*path, i), one.name, one.summary) for i, one in enumerate(given)]
    for here, name, summary in rows:
        if not isinstance(name, str) or not name or "*" in name[:-1]:
            yield problem("FK020", here, f"is no metric's name: {shown(name)}.", 'Write "acc", or "val/*".')
        words = summary.split(",") if isinstance(summary, str) else [summary]
        wrong = next(
            (w for w in words if w not in SUMMARIES and (w is not None or isinstance(given, Data))), None
        )
        if wrong is not None or (summary is None and isinstance(given, Data)):
            yield problem(
                "FK020", here, f"has the summary {shown(wrong)}.", f"Known: {', '.join(SUMMARIES)}."
            )


def _watched(given: Data | None, path: Path) -> Iterator[Problem]:
    kinds = dict(WATCHED)
    for key, value in given.entries if given is not None else ():
        if key not in kinds:
            guess = did_you_mean(str(key), kinds).strip() or f"Known: {', '.join(kinds)}."
            yield problem("FK010", (*path, key), "is not known here.", guess)
        elif type(value) not in kinds[str(key)] or (key == "log" and value not in KINDS_WATCHED):
            yield problem("FK020", (*path, key), f"cannot be {shown(value)}.", FIX)
        elif key == "log_freq" and isinstance(value, int) and value < 1:
            yield problem("FK020", (*path, key), f"must be at least 1, got {shown(value)}.", FIX)


def _mlflow(backend: MLflowBackend, path: Path) -> Iterator[Problem]:
    yield from _directory((*path, "save_dir"), backend.save_dir)
    for key in ("exp_name", "run_name", "tracking_uri", "artifact_location"):
        value = getattr(backend, key)
        if value is not None and not usable(value):
            yield problem(
                "FC010", (*path, key), f"is not a usable name: {shown(value)}.", "Write plain text."
            )
    if backend.tracking_uri is not None and backend.save_dir is not None:
        text = "and save_dir both name where the runs are kept."
        yield problem("FK019", (*path, "tracking_uri"), text, "Keep one of them.")
    known = tuple(field.name for field in attrs.fields(Config))
    for i, key in enumerate(backend.tracked_config_keys or ()):
        if key not in known:
            guess = did_you_mean(key, known).strip() or "Name a key of the config."
            yield problem(
                "FK010", (*path, "tracked_config_keys", i), f"is no key of a config: {shown(key)}.", guess
            )
    for key, mapping in (("tags", backend.tags), ("params", backend.params)):
        for name, _ in mapping.entries if mapping is not None else ():
            if not isinstance(name, str) or not usable(name):
                text = f"is no usable name: {shown(name)}."
                yield problem("FK011", (*path, key), text, "Write plain text.")
