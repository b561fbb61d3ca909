"""How logged values are smoothed and shown, and where they go besides the console; nothing is decided here."""

from typing import Literal

from attrs import frozen

from flexcore.components import Data

ARTIFACT_SUFFIXES = (".json", ".log", ".py", "yaml")


@frozen(kw_only=True)
class LogProcessor:
    """How logged values are smoothed, named and printed.

    Attributes:
        window_size: iterations a mean is taken over. mean_pattern: a regular expression; a value whose name it is
            not found in is shown as it was last. None: means of all.
        custom_cfg: rules of one's own, each a mapping; see flexcore.log_rules. num_digits: digits printed.
        log_with_hierarchy: whether backends get "train/loss" and "val/loss", or "loss" for both.
        by_epoch: whether lines count epochs; None: as the training loop does.
    """

    NAME = "LogProcessor"
    window_size: int = 10
    by_epoch: bool | None = None
    custom_cfg: tuple[Data, ...] | None = None
    num_digits: int = 4
    log_with_hierarchy: bool = True
    mean_pattern: str | None = None


@frozen(kw_only=True)
class LocalBackend:
    """events.jsonl in the log directory; always there, named for FlexibleRunner's vocabulary."""

    NAME = "LocalVisBackend"


@frozen(kw_only=True)
class TensorBoardBackend:
    """Scalars, parameters and the plan to TensorBoard. save_dir None: a directory in the log directory."""

    NAME = "TensorboardVisBackend"
    save_dir: str | None = None


@frozen(kw_only=True)
class WandbInit:
    """What wandb.init is given besides what the run itself says.

    Attributes:
        mode: "offline" keeps everything in local files (`wandb sync` sends them); "online" needs the network.
        id: None: the record's, so that a resumed run goes on under it. name: None: experiment name and record.
        dir: None: save_dir, or work_dir. config: parameters besides the config's own.
    """

    project: str | None = None
    entity: str | None = None
    name: str | None = None
    id: str | None = None
    dir: str | None = None
    mode: Literal["offline", "online"] = "offline"
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] | None = None
    config: Data | None = None
    save_code: bool | None = None
    resume: bool | str | None = None


@frozen(kw_only=True)
class DefineMetric:
    """One call of wandb's define_metric; summary: names joined by commas."""

    name: str
    step_metric: str | None = None
    step_sync: bool | None = None
    hidden: bool | None = None
    summary: str | None = None
    overwrite: bool | None = None


@frozen(kw_only=True)
class WandbBackend:
    """Scalars, parameters and the plan to Weights & Biases, offline unless init_kwargs says otherwise.

    Attributes:
        define_metric_cfg: name -> summary, or a list of define_metric's arguments.
        commit: a row is written as the next one begins, so only True can be kept.
        log_code_name: sends the *.py files under the current directory as an artifact of this name.
        watch_kwargs: watches the model's gradients or parameters with these arguments of wandb's watch.
    """

    NAME = "WandbVisBackend"
    save_dir: str | None = None
    init_kwargs: WandbInit | None = None
    define_metric_cfg: Data | tuple[DefineMetric, ...] | None = None
    commit: bool = True
    log_code_name: str | None = None
    watch_kwargs: Data | None = None


@frozen(kw_only=True)
class MLflowBackend:
    """Scalars, parameters and the plan to MLflow, in local files unless tracking_uri says otherwise.

    Attributes:
        save_dir: where "mlruns" stands; None: work_dir. artifact_location: None: the store's own.
        run_name: None: experiment name and record. tags, params: besides the run's own.
        artifact_suffix: files of the log directory ending so are stored as artifacts at the end.
        tracked_config_keys: the config's keys whose values become parameters; None: all.
    """

    NAME = "MLflowVisBackend"
    save_dir: str | None = None
    exp_name: str = "Default"
    run_name: str | None = None
    tags: Data | None = None
    params: Data | None = None
    tracking_uri: str | None = None
    artifact_suffix: str | tuple[str, ...] = ARTIFACT_SUFFIXES
    tracked_config_keys: tuple[str, ...] | None = None
    artifact_location: str | None = None


VisBackend = LocalBackend | TensorBoardBackend | WandbBackend | MLflowBackend


@frozen(kw_only=True)
class Visualizer:
    """name: of the directory TensorBoard reads, in the log directory."""

    NAME = "Visualizer"
    name: str | None = None
    vis_backends: tuple[VisBackend, ...] | None = None
