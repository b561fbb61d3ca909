"""Plan and its parts: everything a run will do, as one frozen value. Nothing is decided here."""

from typing import Literal

from attrs import frozen

from flexcore.components import Component, Supplied
from flexcore.config import Config, DataLoader
from flexcore.facts import Facts, Writer
from flexcore.hooks import PlannedHook
from flexcore.loops import TTA
from flexcore.plan_training import Batching, Optimizer, TrainData
from flexcore.problems import Problem
from flexcore.reporting import Logging
from flexcore.sampling import Order
from flexcore.schedules import Schedule
from flexcore.sharding import Sharding
from flexcore.strategies import Compile, Strategy
from flexcore.tensor_parallel import TensorLayout
from flexcore.timeline import SavePoints, Timeline

Mode = Literal["train", "val", "test"]


@frozen(kw_only=True)
class Fresh:
    """Start from the model's own initialisation; `because` says why nothing is resumed."""

    NAME = "Fresh"
    because: str = "nothing was asked to be loaded"


@frozen(kw_only=True)
class LoadWeights:
    """Load model weights only; counters, optimizer and order start anew. revise_keys, strict: as LoadFrom's."""

    NAME = "LoadWeights"
    path: str
    revise_keys: tuple[tuple[str, str], ...] = ()
    strict: bool = True


@frozen(kw_only=True)
class Resume:
    """Continue a checkpoint: weights, optimizer, counters, RNG, hooks and sample position.

    epoch, iter: completed counts when it was saved; None while the checkpoint has not been looked at.
    validated: the validation due at that point is already done. record: the name of the record it goes on with;
    None: the checkpoint is of another work_dir, or does not say. writer: whose format it is in.
    """

    NAME = "Resume"
    path: str
    epoch: int | None = None
    iter: int | None = None
    validated: bool = False
    because: str = ""
    record: str | None = None
    writer: Writer = "flexcore"


Start = Fresh | LoadWeights | Resume


@frozen(kw_only=True)
class Names:
    """Where the run's files go. timestamp and run id come from Facts; None while unknown.

    out_dir: where checkpoints go, if not under work_dir.
    """

    experiment_name: str
    work_dir: str
    timestamp: str | None
    run_id: str | None
    out_dir: str | None = None

    @property
    def log_dir(self) -> str | None:
        """work_dir/<timestamp>_<run id>."""
        return None if self.timestamp is None else f"{self.work_dir}/{self.timestamp}_{self.run_id}"

    @property
    def checkpoint_dir(self) -> str:
        return self.out_dir or f"{self.work_dir}/checkpoints"


@frozen(kw_only=True)
class Environment:
    """How every process is set up.

    device_type: "cpu" or "cuda"; None: chosen by what the shell finds. backend: of torch.distributed.
    timeout: of collectives, in seconds. hang_timeout: seconds without progress that end the run; None: none do.
    """

    launcher: str
    world_size: int | None
    device_type: str | None
    backend: str | None
    timeout: float
    seed: int | None
    seed_given: bool
    diff_rank_seed: bool
    deterministic: bool
    cudnn_benchmark: bool
    mp_start_method: str
    opencv_num_threads: int
    resource_limit: int
    hang_timeout: float | None


@frozen(kw_only=True)
class EvalData:
    """One evaluation loader: samples by stride, never padded, so that none counts twice.

    max_batches: at most so many per rank; None: all.
    """

    name: str | None
    loader: DataLoader | Supplied
    order: Order | None
    max_batches: int | None = None


@frozen(kw_only=True)
class PlannedMetric:
    """A metric and the key its value is reported under (a mapping of values keeps its own keys)."""

    name: str
    metric: Component | Supplied


@frozen(kw_only=True)
class Evaluation:
    """Every loader is run over and reported through every metric.

    dtype: autocast of forward passes.
    predictions: the file they are written to, under the log directory unless absolute, with "_<name>" for each
    of several loaders and "_iter_<n>" for each validation while training; without a suffix .safetensors where they
    stack as tensors, else .jsonl. None: nowhere.
    tta: the batch is predicted once per transform, and what comes out is merged.
    loop: a class of the user's own that evaluates in place of the built-in loop.
    """

    loaders: tuple[EvalData, ...]
    metrics: tuple[PlannedMetric, ...]
    dtype: Literal["float16", "bfloat16"] | None = None
    predictions: str | None = None
    tta: TTA | Component | None = None
    loop: Component | None = None


@frozen(kw_only=True)
class Best:
    """Keep the best checkpoint of one metric; key None is the first metric reported."""

    key: str | None
    rule: Literal["greater", "less"] | None


@frozen(kw_only=True)
class Saving:
    """When checkpoints are written, under which names, and which are kept.

    weights_only: without the optimizer, so that none can be resumed. every_seconds: of wall time since the last
    checkpoint, another is due at the next update; the newest max_keep of these are kept besides. published: tensor files of the best (else the
    last) checkpoint that are written out as one at the run's end. async_save: training goes on while one is written.
    retry_seconds: how long after a save that failed another one follows; see retrying.
    """

    points: SavePoints
    max_keep: int
    template: str
    best: tuple[Best, ...]
    greater_keys: tuple[str, ...]
    less_keys: tuple[str, ...]
    weights_only: bool = False
    published: tuple[str, ...] = ()
    every_seconds: float | None = None
    async_save: bool = False
    retry_seconds: float | None = None

    def name(self, units: int) -> str:
        return self.template.format(units)


@frozen(kw_only=True)
class Unresolved:
    """A plan field that stays symbolic and the fact that would settle it."""

    field: str
    fact: str


@frozen(kw_only=True)
class Plan:
    """All a run will do. Equal plans run alike; `config` and `facts` are what it was made from."""

    format_version: int
    mode: Mode
    smoke: bool
    names: Names
    environment: Environment
    strategy: Strategy
    model: Component | Supplied
    loss: Component | Supplied | None
    compile: Compile | None
    train: TrainData | None
    batching: Batching | None
    timeline: Timeline | None
    optimizers: tuple[Optimizer, ...]
    validation: Evaluation | None
    testing: Evaluation | None
    saving: Saving | None
    logging: Logging
    hooks: tuple[PlannedHook, ...]
    start: Start
    notices: tuple[Problem, ...]
    unresolved: tuple[Unresolved, ...]
    config: Config
    facts: Facts
    data_preprocessor: Component | None = None
    sharding: Sharding | None = None
    tensor_parallel: TensorLayout | None = None

    def data_rank(self, rank: int) -> int:
        """A rank's place among those that see different samples: ranks that compute a copy together have one."""
        group = 1 if self.tensor_parallel is None else self.tensor_parallel.size
        return 0 if group is None else rank // group

    def leads(self, rank: int) -> bool:
        """Whether a rank is the first of those that see the same samples: what they all have, it tells."""
        return rank == 0 or self.data_rank(rank - 1) != self.data_rank(rank)

    @property
    def mesh(self) -> tuple[tuple[str, int | None], ...]:
        """How ranks are laid out: dimensions with their names and sizes, neighbours in the last; None: unknown."""
        layout, cut = self.sharding, self.tensor_parallel
        if layout is None and cut is None:
            return ()
        copies = cut.groups if layout is None and cut is not None else layout and layout.replicas
        return (
            *((("replicate", copies),) if copies != 1 else ()),
            *((("shard", layout.shards),) if layout is not None else ()),
            *((("tensor", cut.size),) if cut is not None else ()),
        )

    def hooks_at(self, stage: str) -> tuple[PlannedHook, ...]:
        """The hooks that listen to a stage, in the order they run. Unlooked-at user hooks count as listening."""
        return tuple(hook for hook in self.hooks if hook.stages is None or stage in hook.stages)

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, or the first of several; None in a plan that does not train."""
        return self.optimizers[0] if self.optimizers else None

    @property
    def schedules(self) -> tuple[Schedule, ...] | None:
        """What moves the groups of `optimizer`; None while the run's length is unknown."""
        return self.optimizers[0].schedules if self.optimizers else None

    @property
    def record(self) -> str | None:
        """What all starts of this training are kept together under: the name of the first one's log directory."""
        if self.mode == "train" and isinstance(self.start, Resume) and self.start.record is not None:
            return self.start.record
        return None if self.names.log_dir is None else self.names.log_dir.rsplit("/", 1)[-1]

    @property
    def title(self) -> str:
        """How trackers call the run, the same for all its starts."""
        own, record = self.names.experiment_name, self.record
        given = (
            own
            if self.names.timestamp is None
            else own.removesuffix(f"_{self.names.timestamp}_{self.names.run_id}")
        )
        return given if record is None else f"{given}_{record}"

    @property
    def supplied(self) -> tuple[str, ...]:
        """The slots live objects must fill: any process can read such a plan, one that has them can execute it."""
        from flexcore.noticing import supplied_slots

        return supplied_slots(self.config)

    def to_json(self, indent: int | None = None) -> str:
        """The whole plan as JSON text. Slots for live objects are marked: whoever executes it passes them."""
        from flexcore import plan_files

        return plan_files.to_json(self, indent)

    @staticmethod
    def from_json(text: str) -> "Plan":
        """The plan `to_json` wrote.

        Raises:
            ConfigError: not a plan, of another format version, or altered past its types.
        """
        from flexcore import plan_files

        return plan_files.from_json(text)

    @property
    def plan_digest(self) -> str:
        """SHA-256 of everything but the facts it rests on; ranks compare it before they start."""
        from flexcore import plan_files

        return plan_files.plan_digest(self)

    @property
    def trajectory_digest(self) -> str:
        """SHA-256 of what decides the weights; equal digests mean a checkpoint can be continued."""
        from flexcore import plan_files

        return plan_files.trajectory_digest(self)

    def __str__(self) -> str:
        from flexcore.explaining import explain

        return explain(self)
