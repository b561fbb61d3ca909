"""A plan as text a person reads: every section one function from values to lines. Nothing is decided here."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from flexcore import questions
from flexcore.backends import native, stage
from flexcore.components import Component, Supplied
from flexcore.config import DataLoader
from flexcore.evaluating import mark_of
from flexcore.hook_texts import end_of, text_of
from flexcore.hooks import STAGES
from flexcore.loops import TTA, OwnTrainLoop
from flexcore.plan_training import Group, Optimizer
from flexcore.run_plan import EvalData, Fresh, LoadWeights, Plan, Resume
from flexcore.sharding import Sharding
from flexcore.strategies import DeepSpeed, SingleDevice
from flexcore.timeline import Timeline

SHOWN_EVENTS = 4
SHARED = (
    "every rank holds all of it", "ranks share optimizer state", "ranks share optimizer state and gradients",
    "ranks share optimizer state, gradients and parameters",
)  # fmt: skip


def explain(plan: Plan) -> str:
    """The whole plan as text, ending in a newline."""
    sections = (_what(plan), _where(plan), _batch(plan), _clock(plan), _rates(plan), _evaluations(plan),
                _events(plan), _hooks(plan), _start(plan), _notes(plan))  # fmt: skip
    return "\n".join(line for section in sections for line in section) + "\n"


def _row(label: str, *parts: object) -> str:
    return f"{label:<12} {' '.join(str(part) for part in parts if part not in (None, ''))}".rstrip()


def _or_unknown(value: object, fact: str) -> str:
    return f"? (needs {fact})" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _thing(thing: Component | Supplied) -> str:
    if isinstance(thing, Supplied):
        return "supplied at run time"
    args = ", ".join(f"{key}={_brief(value)}" for key, value in thing.kwargs.entries)
    return f"{thing.type}({args})"


def _brief(value: object) -> str:
    text = repr(value) if not hasattr(value, "entries") and not hasattr(value, "values") else "..."
    return text if len(text) < 40 else text[:37] + "..."


def _what(plan: Plan) -> Iterator[str]:
    smoke = ", one batch of everything (smoke)" if plan.smoke else ""
    yield _row("Plan", f"{plan.mode}{smoke}: {plan.names.experiment_name}")
    yield _row("model", _thing(plan.model), "" if plan.compile is None else "(compiled)")
    if plan.loss is not None:
        yield _row("loss", _thing(plan.loss))
    if plan.data_preprocessor is not None:
        yield _row("preprocessor", _thing(plan.data_preprocessor))
    yield _row("writes to", plan.names.work_dir)


def _where(plan: Plan) -> Iterator[str]:
    env = plan.environment
    ranks = _or_unknown(env.world_size, "world_size")
    device = env.device_type or "? (needs device_type)"
    link = "" if isinstance(plan.strategy, SingleDevice) else f"over {env.backend or '?'}"
    yield _row("runs on", f"{plan.strategy.NAME}, {ranks} rank{'' if env.world_size == 1 else 's'} on {device}", link,
               "" if env.launcher == "none" else f"(launcher {env.launcher})")  # fmt: skip
    yield from _shares(plan.sharding)
    if isinstance(plan.strategy, DeepSpeed):
        yield _row("", f"ZeRO stage {stage(plan.strategy)}: {SHARED[stage(plan.strategy)]}")
    origin = "given" if env.seed_given else "drawn from entropy"
    yield _row("seed", _or_unknown(env.seed, "entropy") if env.seed is None else f"{env.seed} ({origin})",
               "deterministic algorithms" if env.deterministic else "")  # fmt: skip


def _shares(layout: Sharding | None) -> Iterator[str]:
    """How FSDP lays the model over ranks."""
    if layout is None:
        return
    mesh = f"over {_or_unknown(layout.shards, 'world_size')} ranks"
    copies = "" if layout.replicas in (None, 1) else f", {layout.replicas} copies"
    count = "? (needs modules)" if layout.units is None else f"{len(layout.units):,}"
    kept = (
        ""
        if layout.reshard_after_forward in (None, True)
        else f", {_kept(layout.reshard_after_forward)} until backward"
    )
    yield _row("shares", f"{mesh}{copies}; {count} unit{'' if count == '1' else 's'} beside the whole{kept}")
    precision = layout.mixed_precision
    if precision is not None:
        yield _row(
            "",
            f"computes in {precision.param_dtype or 'the own dtype'}, reduces in {precision.reduce_dtype or precision.param_dtype or 'the own dtype'}",
        )
    if layout.recomputed:
        yield _row("", f"activations of {len(layout.recomputed):,} modules are computed again in backward")
    if layout.cpu_offload:
        yield _row("", "shares rest in host memory")


def _kept(reshard_after_forward: bool | int | None) -> str:
    return "gathered" if reshard_after_forward is False else f"shared by {reshard_after_forward} ranks"


def _batch(plan: Plan) -> Iterator[str]:
    batch = plan.batching
    if batch is None or plan.train is None:
        return
    yield _row("batch", _or_unknown(batch.micro_batch_size, "train_batch_size"), "micro x",
               _or_unknown(batch.gradient_accumulation_steps, "world_size"), "accumulation x", _or_unknown(batch.data_parallel_size, "world_size"),
               "ranks =", _or_unknown(batch.global_batch_size, "world_size"), "samples per optimizer step")  # fmt: skip
    told = native(plan)
    if told is not None:
        yield _row("deepspeed", json.dumps(told, sort_keys=True))
    what = "one global batch" if batch.clock == "global" else "one micro-batch per rank"
    yield _row("iteration", what)
    order = plan.train.order
    loader = plan.train.loader
    if isinstance(loader, DataLoader):
        yield _row("train data", _thing(loader.dataset))
    if order is not None:
        detail = f"{order.samples:,} samples, {'shuffled' if order.shuffle else 'in order'}"
        counts = f", {batch.dropped} dropped and {batch.repeated} repeated per epoch"
        yield _row("", detail + ("" if order.endless else counts))
    elif plan.train.opaque:
        yield _row("", "order of its own")


def _clock(plan: Plan) -> Iterator[str]:
    clock = plan.timeline
    if clock is None:
        return
    if clock.opaque:
        yield from _own_clock(plan, clock)
        return
    length = _or_unknown(clock.epoch_length, "train_samples")
    total = _or_unknown(clock.max_iters, "train_samples")
    steps = (
        f"{_or_unknown(clock.optimizer_steps, 'train_samples')} optimizer steps"
        if clock.updates == "planned"
        else "the model's train_step updates the optimizers"
        if len(plan.optimizers) > 1
        else "the model's train_step updates the optimizer"
    )
    loop = (
        f"{clock.max_epochs:,} epochs x {length} iterations = {total}"
        if clock.by_epoch
        else f"{total} iterations"
    )
    yield _row("length", f"{loop}; {steps}")
    if clock.window > 1:
        tail = {
            "carry": "windows cross epochs",
            "step": "each epoch's last window may be short",
            "drop": "no short windows",
        }
        yield _row("", f"a step every {clock.window} iterations; {tail[clock.tail]}")
    if clock.max_seconds is not None:
        yield _row("", f"or {clock.max_seconds:g} s of wall time, whichever comes first")
    for condition in filter(None, (end_of(hook.hook) for hook in plan.hooks)):
        yield _row("", f"or sooner: {condition}")


def _own_clock(plan: Plan, clock: Timeline) -> Iterator[str]:
    loop = plan.config.train_cfg
    assert isinstance(loop, OwnTrainLoop)
    yield _row("loop", _thing(loop.component))
    epochs = f"{clock.max_epochs:,} epochs x {_or_unknown(clock.epoch_length, 'train_samples')} iterations = "
    total = _or_unknown(clock.max_iters, "train_samples") if loop.max_epochs else f"{clock.max_iters or 0:,}"
    if loop.max_epochs or loop.max_iters:
        planned = f"; schedules take it for {epochs if loop.max_epochs else ''}{total} iterations"
    else:
        planned = ""
    yield _row("length", f"as its loop decides{planned}")


def _rates(plan: Plan) -> Iterator[str]:
    if plan.timeline is None:
        return
    for optimizer in plan.optimizers:
        yield from _optimizer(plan, optimizer)


def _optimizer(plan: Plan, optimizer: Optimizer) -> Iterator[str]:
    clip = optimizer.clip_grad
    clipping = (
        ""
        if clip is None
        else f"clip {clip.type} {clip.max_norm if clip.type == 'norm' else clip.clip_value}"
    )
    kind = "model in" if optimizer.precision.casts_model else "autocast"
    precision = "" if optimizer.precision.dtype is None else f"{kind} {optimizer.precision.dtype}"
    scale = "" if optimizer.lr_scale in (None, 1.0) else f"LR scaled by {optimizer.lr_scale:g}"
    sharded = "state spread over the ranks" if optimizer.sharded else ""
    of = "" if optimizer.name is None else f"{optimizer.name}:"
    parts = (_thing(optimizer.component), sharded, scale, clipping, precision)
    yield _row("optimizer", of, "; ".join(part for part in parts if part))
    if optimizer.groups[0].params is not None:
        yield _row("groups", of, f"{len(optimizer.groups):,}:", ", ".join(_alike(optimizer.groups)))
    for key in dict.fromkeys(schedule.param for schedule in optimizer.schedules or ()):
        names = ", then ".join(type(s).__name__ for s in optimizer.schedules or () if s.param == key)
        yield _row(key, of, f"{names}: {_curve(plan, key, optimizer.name)}")
    if not optimizer.schedules:
        constant = f"{_number(questions.value_at(plan, optimizer=optimizer.name).value)} throughout"
        yield _row("lr", of, constant if optimizer.schedules == () else "? (needs train_samples)")


def _alike(groups: Iterable[Group]) -> Iterator[str]:
    """How many groups have which LR and weight decay."""
    counts = Counter(tuple((key, group.base(key)) for key in ("lr", "weight_decay")) for group in groups)
    for values, count in counts.items():
        yield f"{count} with {' '.join(f'{key} {_number(value)}' for key, value in values if value is not None)}"


def _curve(plan: Plan, key: str, optimizer: str | None) -> str:
    total = plan.timeline.max_iters if plan.timeline is not None else None
    if not total:
        return "?"
    end = questions.foreseen(plan, key, total, optimizer)
    points = sorted({0, end // 4, end // 2, 3 * end // 4, end - 1})
    values = questions.values_at(plan, key, points, optimizer=optimizer)
    if None in values:
        return questions.value_at(plan, key, optimizer=optimizer).reason
    rest = "" if end == total else "  then by the recursion"
    return "  ".join(f"{_number(value)} @{i}" for i, value in zip(points, values, strict=True)) + rest


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _evaluations(plan: Plan) -> Iterator[str]:
    for label, part in (("validation", plan.validation), ("test", plan.testing)):
        if part is None:
            continue
        for data in part.loaders:
            yield _row(label, f"{data.name + ': ' if data.name else ''}{_eval_size(data)}")
        if part.metrics:
            yield _row("", "metrics " + ", ".join(f"{m.name} = {_thing(m.metric)}" for m in part.metrics))
        if part.loop is not None:
            yield _row("", f"by a loop of its own, {_thing(part.loop)}")
        if part.dtype is not None:
            yield _row("", f"autocast {part.dtype}")
        if isinstance(part.tta, TTA):
            names = ", ".join(_thing(one) if one.is_import_path else one.type for one in part.tta.transforms)
            yield _row("", f"each batch as {names}; outputs merged by {part.tta.merge}")
        elif part.tta is not None:
            yield _row("", f"each batch augmented and merged by {_thing(part.tta)}")
        if part.predictions is not None:
            each = ", _iter_<n> in each validation's name" if mark_of(plan, label[:3], 0) else ""
            yield _row("", f"predictions to {part.predictions}, in dataset order{each}")


def _eval_size(data: EvalData) -> str:
    order, most = data.order, data.max_batches
    capped = "" if most is None else f", at most {most:,} batch{'' if most == 1 else 'es'} on each rank"
    if order is None:
        return ("its own loader" if isinstance(data.loader, Supplied) else "? samples") + capped
    return f"{order.samples:,} samples in batches of {order.micro_batch_size}, each counted once{capped}"


def _own_events(plan: Plan) -> Iterator[str]:
    """Of a loop of the user's own: what is certain once it ends an epoch or an iteration."""
    if plan.validation is not None:
        yield _row("validates", "when its loop asks")
    if plan.saving is not None:
        points = plan.saving.points
        unit = "epochs that its loop ends" if points.by_epoch else "iterations"
        when = [f"every {points.interval} {unit}"] if points.interval > 0 else []
        yield _row("saves", ", ".join([*when, *(["at the end"] if points.save_last else [])]) or "never")


def _events(plan: Plan) -> Iterator[str]:
    if plan.timeline is None:
        return
    if plan.timeline.opaque:
        yield from _own_events(plan)
        yield from _keeping(plan)
        return
    checks = (
        f"epoch {e}" if plan.timeline.by_epoch else f"iteration {i}" for e, i in questions.validations(plan)
    )
    if plan.timeline.validates:
        yield _row("validates", "after", _some(checks))
    if plan.saving is not None and plan.timeline.max_iters is not None:
        yield _row(
            "saves", _some(f"{s.name} (iteration {s.iter})" for s in questions.saves(plan, best=False))
        )
    yield from _keeping(plan)


def _keeping(plan: Plan) -> Iterator[str]:
    if plan.saving is not None:
        if plan.saving.every_seconds is not None:
            minutes = f"{plan.saving.every_seconds / 60:g}"
            yield _row("", f"and at the first update when the last one is {minutes} minutes old")
        keep = plan.saving.max_keep
        yield _row("keeps", "all" if keep < 0 else f"the newest {keep}",
                   *(f"and the best by {b.key or 'the first metric'} ({b.rule or 'rule by its name'})" for b in plan.saving.best))  # fmt: skip
        if plan.saving.weights_only:
            yield _row("", "weights only: none of them can be resumed")
        if plan.saving.published:
            which = "best, else the last," if plan.saving.best else "last"
            yield _row(
                "publishes", f"{', '.join(plan.saving.published)} of the {which} checkpoint at the end"
            )


def _some(events: Iterable[str]) -> str:
    """The first few events and a note that there are more, without walking them all."""
    first = list(islice(iter(events), SHOWN_EVENTS + 1))
    more = ", ..." if len(first) > SHOWN_EVENTS else ""
    return (", ".join(first[:SHOWN_EVENTS]) + more) or "never"


def _hooks(plan: Plan) -> Iterator[str]:
    for i, hook in enumerate(plan.hooks):
        stages = (
            "? (needs --probe)" if hook.stages is None else ", ".join(s for s in STAGES if s in hook.stages)
        )
        yield _row("hooks" if i == 0 else "", f"{hook.priority:>3} {hook.name:<20} {stages}")
        text = text_of(hook.hook)
        if text is not None:
            yield _row("", f"    {text}")


def _start(plan: Plan) -> Iterator[str]:
    match plan.start:
        case Fresh(because=because):
            yield _row("starts", f"fresh: {because}")
        case LoadWeights(path=path):
            yield _row("starts", f"from the weights of {path}")
        case Resume(
            path=path, epoch=epoch, iter=iteration, because=because
        ):  # pragma: no branch - the last there is
            at = "" if iteration is None else f" at epoch {epoch}, iteration {iteration}"
            yield _row("starts", f"by resuming {path}{at}: {because}")


def _notes(plan: Plan) -> Iterator[str]:
    for unknown in plan.unresolved:
        if unknown.field == "names.timestamp":
            continue  # no plan made before its run has one, and nothing depends on it
        yield _row("unknown", f"{unknown.field} until the fact {unknown.fact} is there")
    for notice in plan.notices:
        yield _row(notice.severity, str(notice))
