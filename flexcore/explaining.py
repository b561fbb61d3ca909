"""A plan as text a person reads: every section one function from values to lines. Nothing is decided here."""

from collections.abc import Iterable, Iterator
from itertools import islice

from flexcore import questions
from flexcore.components import Supplied
from flexcore.evaluating import mark_of
from flexcore.explaining_ranks import ranks_of
from flexcore.explaining_rows import row, thing
from flexcore.explaining_training import batches_of, length_of, rates_of
from flexcore.hook_texts import text_of
from flexcore.hooks import STAGES
from flexcore.loops import TTA
from flexcore.run_plan import EvalData, Fresh, LoadWeights, Plan, Resume

SHOWN_EVENTS = 4
NEVER = "never"


def explain(plan: Plan) -> str:
    """The whole plan as text, ending in a newline."""
    sections = (_what(plan), ranks_of(plan), batches_of(plan), length_of(plan), rates_of(plan), _evaluations(plan),
                _events(plan), _hooks(plan), _start(plan), _notes(plan))  # fmt: skip
    return "\n".join(line for section in sections for line in section) + "\n"


def _what(plan: Plan) -> Iterator[str]:
    smoke = ", one batch of everything (smoke)" if plan.smoke else ""
    yield row("Plan", f"{plan.mode}{smoke}: {plan.names.experiment_name}")
    yield row("model", thing(plan.model), "" if plan.compile is None else "(compiled)")
    if plan.loss is not None:
        yield row("loss", thing(plan.loss))
    if plan.data_preprocessor is not None:
        yield row("preprocessor", thing(plan.data_preprocessor))
    yield row("writes to", plan.names.work_dir)


def _evaluations(plan: Plan) -> Iterator[str]:
    for label, part, mark in (
        ("validation", plan.validation, mark_of(plan, "val", "<n>")),
        ("test", plan.testing, ""),
    ):
        if part is None:
            continue
        for data in part.loaders:
            yield row(label, f"{data.name + ': ' if data.name else ''}{_eval_size(data)}")
        if part.metrics:
            yield row("", "metrics " + ", ".join(f"{m.name} = {thing(m.metric)}" for m in part.metrics))
        if part.loop is not None:
            yield row("", f"by a loop of its own, {thing(part.loop)}")
        if part.dtype is not None:
            yield row("", f"autocast {part.dtype}")
        if isinstance(part.tta, TTA):
            names = ", ".join(thing(one) if one.is_import_path else one.type for one in part.tta.transforms)
            yield row("", f"each batch as {names}; outputs merged by {part.tta.merge}")
        elif part.tta is not None:
            yield row("", f"each batch augmented and merged by {thing(part.tta)}")
        if part.predictions is not None:
            each = f", {mark} in each validation's name" if mark else ""
            yield row("", f"predictions to {part.predictions}, in dataset order{each}")


def _eval_size(data: EvalData) -> str:
    order, most = data.order, data.max_batches
    capped = "" if most is None else f", at most {most:,} batch{'' if most == 1 else 'es'} on each rank"
    if order is None:
        return ("its own loader" if isinstance(data.loader, Supplied) else "? samples") + capped
    return f"{order.samples:,} samples in batches of {order.micro_batch_size}, each counted once{capped}"


def _own_events(plan: Plan) -> Iterator[str]:
    """Of a loop of the user's own: what is certain once it ends an epoch or an iteration."""
    if plan.validation is not None:
        yield row("validates", "when its loop asks")
    if plan.saving is not None:
        points = plan.saving.points
        unit = "epochs that its loop ends" if points.by_epoch else "iterations"
        when = [f"every {points.interval} {unit}"] if points.interval > 0 else []
        yield row("saves", ", ".join([*when, *(["at the end"] if points.save_last else [])]) or NEVER)


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
        first = _some(checks)
        yield row("validates", "" if first == NEVER else "after", first)
    if plan.saving is not None and plan.timeline.max_iters is not None:
        yield row("saves", _some(f"{s.name} (iteration {s.iter})" for s in questions.saves(plan, best=False)))
    yield from _keeping(plan)


def _keeping(plan: Plan) -> Iterator[str]:
    if plan.saving is not None:
        if plan.saving.every_seconds is not None:
            minutes = f"{plan.saving.every_seconds / 60:g}"
            yield row("", f"and at the first update when the last one is {minutes} minutes old")
        if plan.saving.retry_seconds is not None:
            yield row(
                "",
                f"after one that failed another {plan.saving.retry_seconds:g} s later, each next twice as late",
            )
        keep = plan.saving.max_keep
        yield row("keeps", "all" if keep == -1 else f"the newest {keep}",
                   *(f"and the best by {b.key or 'the first metric'} ({b.rule or 'rule by its name'})" for b in plan.saving.best))  # fmt: skip
        if plan.saving.async_save:
            yield row("", "each written while training goes on, from a copy in host memory")
        if plan.saving.weights_only:
            yield row("", "weights only: none of them can be resumed")
        if plan.saving.published:
            which = "best, else the last," if plan.saving.best else "last"
            yield row("publishes", f"{', '.join(plan.saving.published)} of the {which} checkpoint at the end")


def _some(events: Iterable[str]) -> str:
    """The first few events and a note that there are more, without walking them all."""
    walk = iter(events)
    first = ", ".join(islice(walk, SHOWN_EVENTS))
    return (first if next(walk, None) is None else f"{first}, ...") or NEVER


def _hooks(plan: Plan) -> Iterator[str]:
    for i, hook in enumerate(plan.hooks):
        stages = (
            "? (needs --probe)" if hook.stages is None else ", ".join(s for s in STAGES if s in hook.stages)
        )
        yield row("hooks" if i == 0 else "", f"{hook.priority:>3} {hook.name:<20} {stages}")
        text = text_of(hook.hook)
        if text is not None:
            yield row("", f"    {text}")


def _start(plan: Plan) -> Iterator[str]:
    match plan.start:
        case Fresh(because=because):
            yield row("starts", f"fresh: {because}")
        case LoadWeights(path=path, revise_keys=revisions, strict=strict):
            left = "" if strict else "; what does not fit is left out"
            yield row("starts", f"from the weights of {path}{left}")
            for pattern, replacement in revisions:
                yield row("", f"names: {pattern!r} becomes {replacement!r}")
        case Resume(
            path=path, epoch=epoch, iter=iteration, because=because, writer=writer
        ):  # pragma: no branch - the last there is
            at = "" if iteration is None else f" at epoch {epoch}, iteration {iteration}"
            whose = "" if writer == "flexcore" else f"{writer}'s "
            yield row("starts", f"by resuming {whose}{path}{at}: {because}")


def _notes(plan: Plan) -> Iterator[str]:
    for unknown in plan.unresolved:
        if unknown.field == "names.timestamp":
            continue  # no plan made before its run has one, and nothing depends on it
        yield row("unknown", f"{unknown.field} until the fact {unknown.fact} is there")
    for notice in plan.notices:
        yield row(notice.severity, str(notice))
