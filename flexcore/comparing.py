"""Planned against actual: replays recorded events over the plan that made them; zero differences is the product.

A record is a list of segments, one per start of the run. A segment that resumed cuts the ones before it at the
iteration it resumed at, so what was executed twice counts by its last execution.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from attrs import frozen

from flexcore import timeline as clock
from flexcore.questions import saves, validations, value_at
from flexcore.run_plan import Plan
from flexcore.saving import inferred_rule, is_better


@frozen(kw_only=True)
class Segment:
    """One start of the run and what it recorded, in order; steps are unpacked: one (iteration, lr, samples) each.

    resumed: iterations already done; validated: the validation due there was done too.
    """

    plan: Plan
    resumed: int
    validated: bool
    steps: tuple[tuple[int, float, int], ...]
    events: tuple[Mapping[str, Any], ...]


@frozen(kw_only=True)
class Difference:
    """One thing that was not as planned; at: the iteration count it concerns."""

    what: str
    at: int
    planned: str
    actual: str

    def __str__(self) -> str:
        return f"{self.what} at iteration {self.at}: planned {self.planned}, was {self.actual}"


@frozen(kw_only=True)
class Comparison:
    """How many things of each kind were compared, and all that differed."""

    counts: tuple[tuple[str, int], ...]
    differences: tuple[Difference, ...]
    finished: bool
    reason: str | None


def compared(segments: Sequence[Segment]) -> Comparison:
    """Every step, validation and save that counts, against the plan of the segment that executed it."""
    kept = [_kept(segment, segments[i + 1 :]) for i, segment in enumerate(segments)]
    reached = max((step[0] + 1 for part in kept for step in part.steps), default=segments[0].resumed)
    stop = next((e for e in reversed(segments[-1].events) if e["event"] == "stop"), None)
    done = stop is not None and stop["reason"] == "done"
    found: list[Difference] = []
    found += _step_differences(kept, segments[0].resumed)
    last = segments[-1].plan
    planned_checks = [at for _, at in _until(validations(last), reached)]
    actual_checks = _events(kept, "validate")
    found += _sequence("validation", planned_checks, [e["iter"] for e in actual_checks], reached, done)
    planned_saves = [(s.iter, s.name) for s in saves(last, best=False) if s.iter <= reached]
    actual_saves = _saved(kept, segments)
    found += _sequence("save", planned_saves, actual_saves, reached, done)
    found += _best_differences(last, kept)
    if done and last.timeline is not None and reached != last.timeline.max_iters:
        found.append(
            Difference(what="end", at=reached, planned=str(last.timeline.max_iters), actual=str(reached))
        )
    counts = (
        ("iterations", sum(len(part.steps) for part in kept)), ("validations", len(actual_checks)),
        ("saves", len(actual_saves)), ("starts", len(segments)),
    )  # fmt: skip
    return Comparison(counts=counts, differences=tuple(found), finished=done, reason=stop and stop["reason"])


def _until(events: Iterator[tuple[int, int | None]], reached: int) -> Iterator[tuple[int, int]]:
    return (
        (e, at or 0)
        for e, at in takewhile(lambda event: event[1] is not None and event[1] <= reached, events)
    )


def _kept(segment: Segment, later: Sequence[Segment]) -> Segment:
    """The part of a segment no later one executed again."""
    if not later:
        return segment
    cut = min(s.resumed for s in later)
    validated = all(s.validated for s in later if s.resumed == cut)
    events = tuple(e for e in segment.events if e.get("iter", 0) < cut or (
        e.get("iter", 0) == cut and (e["event"] != "validate" or validated)))  # fmt: skip
    return Segment(
        plan=segment.plan, resumed=segment.resumed, validated=segment.validated, events=events,
        steps=tuple(step for step in segment.steps if step[0] < cut),
    )  # fmt: skip


def _events(kept: Sequence[Segment], kind: str) -> list[Mapping[str, Any]]:
    return [event for part in kept for event in part.events if event["event"] == kind]


def _step_differences(kept: Sequence[Segment], start: int) -> Iterator[Difference]:
    expected = start
    for part in kept:
        for i, lr, samples in part.steps:
            if i != expected:
                yield Difference(what="iteration", at=expected, planned=str(expected), actual=str(i))
            expected = i + 1
            planned = value_at(part.plan, "lr", i).value
            if planned is not None and planned != lr:
                yield Difference(what="lr", at=i, planned=repr(planned), actual=repr(lr))
            size = planned_samples(part.plan, i)
            if size is not None and size != samples:
                yield Difference(what="samples", at=i, planned=str(size), actual=str(samples))


def planned_samples(plan: Plan, iteration: int, rank: int = 0) -> int | None:
    """Samples one rank trains on in a running iteration; None for an order of the user's own."""
    order = plan.train.order if plan.train is not None else None
    if order is None or plan.batching is None or plan.timeline is None:
        return None
    per = plan.batching.per_iteration
    if order.endless or plan.timeline.epoch_length is None:
        return per * order.micro_batch_size
    first = iteration % plan.timeline.epoch_length * per
    return sum(len(order.positions(first + a, rank)) for a in range(per))


def _saved(kept: Sequence[Segment], segments: Sequence[Segment]) -> list[tuple[int, str]]:
    """(iteration, name) of regular saves. A checkpoint that was resumed was saved, told or not (a kill between)."""
    found = [
        (e["iter"], e["name"])
        for e in _events(kept, "save")
        if not e["best"] and not _is_extra(e["name"], kept[-1].plan)
    ]
    for segment in segments[1:]:
        start = segment.plan.start
        name = getattr(start, "path", "").rsplit("/", 1)[-1]
        entry = (segment.resumed, name)
        regular = any(s == entry for s in _regular_at(segment.plan, segment.resumed))
        if regular and entry not in found:
            found.append(entry)
    return sorted(dict.fromkeys(found))


def _regular_at(plan: Plan, at: int) -> list[tuple[int, str]]:
    if plan.saving is None or plan.timeline is None or at < 1:
        return []
    due = clock.next_save(plan.timeline, plan.saving.points, at - 1)
    return [(due[1], plan.saving.name(due[0]))] if due is not None and due[1] == at else []


def _is_extra(name: str, plan: Plan) -> bool:
    """A stop's own checkpoint, or one a hook asked for: not planned, so not compared."""
    return plan.saving is None or name.startswith("stopped_iter_")


def _sequence(what: str, planned: list[Any], actual: list[Any], reached: int, done: bool) -> list[Difference]:
    """Events planned and not done, or done and not planned. An unfinished run may owe what falls on its last step."""
    found = []
    for event in planned:
        at = event[0] if isinstance(event, tuple) else event
        if event not in actual and (done or at < reached):
            found.append(Difference(what=what, at=at, planned=str(event), actual="nothing"))
    for event in actual:
        at = event[0] if isinstance(event, tuple) else event
        if event not in planned:
            found.append(Difference(what=what, at=at, planned="nothing", actual=str(event)))
    doubled = {event for event in actual if actual.count(event) > 1}
    return found + [Difference(what=what, at=0, planned="once", actual=f"{event} twice") for event in doubled]


def _best_differences(plan: Plan, kept: Sequence[Segment]) -> Iterator[Difference]:
    """Best checkpoints follow from the logged metrics: replay the comparison and expect exactly those saves."""
    if plan.saving is None:
        return
    actual = {
        (e["iter"], e["name"].split("_epoch_")[0].split("_iter_")[0])
        for e in _events(kept, "save")
        if e["best"]
    }
    best: dict[str, float] = {}
    for check in _events(kept, "validate"):
        for entry in plan.saving.best:
            key = entry.key or next(iter(check["metrics"]), "")
            rule = entry.rule or inferred_rule(key, plan.saving.greater_keys, plan.saving.less_keys)
            score = check["metrics"].get(key)
            if rule is None or score is None:
                continue
            label = (check["iter"], "best_" + "".join(c if c.isalnum() or c in "-_.@" else "_" for c in key))
            if is_better(rule, score, best.get(key)) != (label in actual):
                yield Difference(
                    what=f"best {key}",
                    at=check["iter"],
                    planned=f"a save iff {score} is better",
                    actual=str(label in actual),
                )
            if is_better(rule, score, best.get(key)):
                best[key] = score
