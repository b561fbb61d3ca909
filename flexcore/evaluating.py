"""Validation and test of a plan: loaders, their orders, metrics and their names. Nothing is run."""

from flexcore import batching as batches
from flexcore.components import Component, Supplied, is_import_path
from flexcore.config import Config, DataLoader, NamedLoader
from flexcore.facts import Facts
from flexcore.loops import OwnEvalLoop, TestLoop, ValLoop
from flexcore.run_plan import Environment, EvalData, Evaluation, Plan, PlannedMetric
from flexcore.sampling import Order, derived_seed

DUMPS = "DumpResults"


def evaluation(
    config: Config, facts: Facts, mode: str, *, ranks: int | None, env: Environment, smoke: bool
) -> Evaluation | None:
    """The evaluation `mode` ("val" or "test") names, if the config has one."""
    loaders: tuple[NamedLoader, ...] | None = getattr(config, f"{mode}_dataloader")
    loop: ValLoop | TestLoop | OwnEvalLoop | None = getattr(config, f"{mode}_cfg")
    if loaders is None:
        return None
    assert loop is not None
    counts: tuple[int | None, ...] = getattr(facts, f"{mode}_samples") or (None,) * len(loaders)
    planned = tuple(
        EvalData(
            name=named.name if named.name is not None or len(loaders) == 1 else str(i),
            loader=named.loader,
            order=_order(named, counts[i], ranks, env, i),
            max_batches=1 if smoke else _cap(named.loader),
        )
        for i, named in enumerate(loaders)
    )
    metrics = tuple(
        PlannedMetric(name=named.name or metric_name(named.metric), metric=named.metric)
        for named in getattr(config, f"{mode}_evaluator") or ()
        if not is_dump(named.metric)
    )
    if isinstance(loop, OwnEvalLoop):
        return Evaluation(loaders=planned, metrics=metrics, loop=loop.component)
    return Evaluation(
        loaders=planned, metrics=metrics,
        dtype=loop.dtype or ("float16" if loop.fp16 else None),
        predictions=_predictions(config, mode, loop),
        tta=loop.tta if isinstance(loop, TestLoop) else None,
    )  # fmt: skip


def _cap(loader: DataLoader | Supplied) -> int | None:
    return loader.num_batch_per_epoch if isinstance(loader, DataLoader) else None


def is_dump(metric: Component | Supplied) -> bool:
    """Whether this is FlexibleRunner's DumpResults, which writes predictions and measures nothing."""
    return isinstance(metric, Component) and metric.name == DUMPS and _of_mmengine(metric.type)


def _of_mmengine(name: str) -> bool:
    return not is_import_path(name) or name.startswith(("mmengine.", "mmengine:"))


def _predictions(config: Config, mode: str, loop: ValLoop | TestLoop) -> str | None:
    dumps = [m.metric for m in getattr(config, f"{mode}_evaluator") or () if is_dump(m.metric)]
    for dump in dumps:
        assert isinstance(dump, Component)
        return str(dump.kwargs["out_file_path"])
    return loop.predictions


def mark_of(plan: Plan, mode: str, completed: int | str) -> str:
    """What a predictions file's name ends with: the iteration of a validation while training, so that each has its own."""
    return f"_iter_{completed}" if plan.mode == "train" and mode == "val" else ""


def _order(
    named: NamedLoader, samples: int | None, ranks: int | None, env: Environment, index: int
) -> Order | None:
    if samples is None or ranks is None:
        return None
    order = batches.eval_order(named, samples, ranks, derived_seed(env.seed or 0, index + 1))
    return batches.settled(order, named.loader, env.seed)


def metric_name(metric: Component | Supplied) -> str:
    """Snake case of the class name: "torchmetrics:MeanSquaredError" is "mean_squared_error"."""
    if isinstance(metric, Supplied):
        return "metric"
    name = metric.name
    split = [
        "_" + c.lower()
        if c.isupper() and i and (name[i - 1].islower() or name[i + 1 : i + 2].islower())
        else c.lower()
        for i, c in enumerate(name)
    ]
    return "".join(split)
