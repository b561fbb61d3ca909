"""What a run tells while it runs, resolved: which values, how they are smoothed, where they go."""

from typing import Literal

from attrs import evolve, frozen

from flexcore.config import Config
from flexcore.hooks import Logger, PlannedHook, merged
from flexcore.log_rules import LogRule, rules
from flexcore.log_specs import LocalBackend, TensorBoardBackend, VisBackend


@frozen(kw_only=True)
class Copies:
    """Files of the log directory, by how their names end, that are copied to `directory` at the run's end."""

    directory: str
    suffixes: tuple[str, ...]


@frozen(kw_only=True)
class Logging:
    """What is printed and recorded: every `interval` iterations, means over `window` of them.

    Attributes:
        interval: None: the logger hook was removed; nothing is printed while training.
        mean_pattern: a regular expression; a value whose name it is not found in is shown as it was last.
        backends: where values go, as they are set; the first is the local record.
        by_epoch: lines count epochs. hierarchy: backends get "train/loss", not "loss".
        metric_axis: what backends count evaluations by.
        rules: values that are shown besides, or in place of, those.
        board: the directory TensorBoard reads, in the log directory.
        name_interval: iterations between lines that tell the experiment's name; None: none does.
    """

    interval: int | None
    ignore_last: bool
    window: int
    digits: int
    level: str
    backends: tuple[VisBackend, ...]
    mean_pattern: str | None = None
    by_epoch: bool = True
    hierarchy: bool = True
    metric_axis: Literal["iter", "epoch"] = "iter"
    rules: tuple[LogRule, ...] = ()
    name_interval: int | None = None
    board: str = "tensorboard"
    copies: Copies | None = None


def logging(config: Config, hooks: tuple[PlannedHook, ...], work_dir: str) -> Logging:
    """Everything Logging says, of a config without problems."""
    logger = next((h.hook for h in hooks if isinstance(h.hook, Logger)), None)
    asked = config.log_processor
    follows = config.train_cfg is not None and config.train_cfg.by_epoch
    common = Logging(
        interval=None, ignore_last=True, mean_pattern=asked.mean_pattern, window=asked.window_size,
        digits=asked.num_digits, level=config.log_level, backends=tuple(one for _, one in backends(config)),
        by_epoch=follows if asked.by_epoch is None else asked.by_epoch, hierarchy=asked.log_with_hierarchy,
        board=(config.visualizer.name if config.visualizer is not None else None) or "tensorboard",
    )  # fmt: skip
    if logger is None:
        return common
    return evolve(
        common, interval=logger.interval, ignore_last=logger.ignore_last, rules=rules(asked.custom_cfg),
        metric_axis="epoch" if logger.log_metric_by_epoch else "iter",
        name_interval=logger.interval_exp_name, copies=_copies(logger, work_dir),
    )  # fmt: skip


def backends(config: Config) -> tuple[tuple[int | None, VisBackend], ...]:
    """(place in the config, backend) of each: the local record, then those asked for; by default TensorBoard.

    Without a logger hook there is nothing to write to them.
    """
    local: tuple[int | None, VisBackend] = (None, LocalBackend())
    if not any(isinstance(hook, Logger) for _, hook in merged(config.default_hooks, config.custom_hooks)):
        return (local,)
    given = config.visualizer.vis_backends if config.visualizer is not None else None
    if given is None:
        return (local, (None, TensorBoardBackend()))
    return (local, *((i, one) for i, one in enumerate(given) if not isinstance(one, LocalBackend)))


def _copies(logger: Logger, work_dir: str) -> Copies | None:
    if logger.out_dir is None:
        return None
    own = work_dir.rpartition("/")[2]
    return Copies(directory=f"{logger.out_dir.rstrip('/')}/{own}", suffixes=as_suffixes(logger.out_suffix))


def as_suffixes(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given
