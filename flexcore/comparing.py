"""Planned against actual: replays recorded events over the plan that made them; zero differences is the product.

A record is a list of segments, one per start of the run. A segment that resumed cuts the ones before it at the
iteration it resumed at, so what was executed twice counts by its last execution.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any

from attrs import evolve, frozen

from flexcore import timeline as clock
from flexcore.questions import saves, validations
from flexcore.replayed_rates import Rates, rate_differences
from flexcore.replaying import early_stop_differences, retry_differences
from flexcore.run_plan import Plan, Resume
from flexcore.saving import Rule, best_name, inferred_rule, is_better, timed_name
from flexcore.stopping_early import REASON


@frozen(kw_only=True)
class Segment:
    """One start of the run and what it recorded, in order; steps are unpacked: one (iteration, lr, samples) each.

    Of several optimizers lr holds one each, in the plan's order.
    resumed: iterations already done; validated: the validation due there was done too. best: the score to beat of
    each metric, where a run of mmengine's had set it. incomplete: the record says of itself that it lacks its end, for
    the disk was full.
    """

    plan: Plan
    resumed: int
    validated: bool
    steps: tuple[tuple[int, float | tuple[float, ...], int], ...]
    events: tuple[Mapping[str, Any], ...]
    best: tuple[tuple[str, float], ...] = ()
    incomplete: bool = False

    @property
    def reached(self) -> int:
        """Iterations done as far as steps are on record."""
        return max((step[0] + 1 for step in self.steps), default=self.resumed)


@frozen(kw_only=True)
class Difference:
    """One thing that was not as planned; at: the iteration count it concerns."""

    what: str
    at: int
    planned: str
    actual: str

    def __str__(self) -> str:
        return f"{self.what} at iteration {self.at}: planned {self.planned}, was {self.actual}"


OWN_LOOPS = ("samples", "validations", "saves", "end")
"""What a loop of the user's own decides, so that there is nothing to compare it with."""


RECORDED, REPLAYED = ("iteration", "validation", "save"), ("best", "early")
"""What cannot be told where a record lacks its end, and what (by its first word) cannot from there on."""


@frozen(kw_only=True)
class Comparison:
    """How many things of each kind were compared, and all that differed; what no plan said, in `unplanned`.

    failed: saves that were tried and did not succeed, with the reason; trying is what was planned. unrecorded: what the
    record lacks and says so, so that it is not compared.
    """

    counts: tuple[tuple[str, int], ...]
    differences: tuple[Difference, ...]
    finished: bool
    reason: str | None
    unplanned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()


def compared(segments: Sequence[Segment]) -> Comparison:
    """Every step, validation and save that counts, against the plan of the segment that executed it."""
    kept = [_kept(segment, segments[i + 1 :]) for i, segment in enumerate(segments)]
    reached = max((step[0] + 1 for part in kept for step in part.steps), default=segments[0].resumed)
    stop = next((e for e in reversed(segments[-1].events) if e["event"] == "stop"), None)
    done = stop is not None and stop["reason"] == "done"
    found: list[Difference] = []
    found += _step_differences(kept, segments[0].resumed)
    spans, last = list(_spans(segments, reached)), segments[-1].plan
    opaque = last.timeline is not None and last.timeline.opaque
    checks, saved = [e["iter"] for e in _events(kept, "validate")], _saved(kept, segments)
    if not opaque:
        found += _sequence("validation", _planned_checks(spans), checks, reached, done)
        found += _sequence("save", _planned_saves(spans), saved, reached, done)
    found += _best_differences(kept, segments)
    found += _timed_differences(kept)
    found += [Difference(what="save tried again", at=at, planned=planned, actual=actual)
              for at, planned, actual in retry_differences(kept)]  # fmt: skip
    early = stop is not None and stop["reason"] == REASON
    found += [Difference(what="early stop", at=at, planned=planned, actual=actual)
              for at, planned, actual in early_stop_differences(kept, early=early)]  # fmt: skip
    if done and not opaque and last.timeline is not None and reached != last.timeline.max_iters:
        found.append(
            Difference(what="end", at=reached, planned=str(last.timeline.max_iters), actual=str(reached))
        )
    gaps = list(_gaps(segments))
    found = [one for one in found if not any(_hidden(one, *gap) for gap in gaps)]
    counts = (
        ("iterations", sum(len(part.steps) for part in kept)), ("validations", len(checks)),
        ("saves", len(saved) + len(list(_timed(kept)))), ("starts", len(segments)),
    )  # fmt: skip
    reason = stop and stop["reason"]
    return Comparison(counts=counts, differences=tuple(found), finished=done or early, reason=reason,
                      unplanned=OWN_LOOPS if opaque else (), failed=tuple(map(_told, _events(kept, "save_failed"))),
                      unrecorded=tuple(_unrecorded(segments, gaps)))  # fmt: skip


@frozen
class _Span:
    """What one segment's plan answers for: iterations above `after` up to `upto`.

    A save at `upto` is its own. A validation at `after` or `upto` belongs to whoever did it last.
    """

    plan: Plan
    after: int
    upto: int
    checked_before: bool
    checks_last: bool


def _spans(segments: Sequence[Segment], reached: int) -> Iterator[_Span]:
    for i, segment in enumerate(segments):
        later = segments[i + 1 :]
        upto = min((s.resumed for s in later), default=reached)
        checks_last = all(s.validated for s in later if s.resumed == upto)
        if upto >= segment.resumed:
            yield _Span(segment.plan, segment.resumed, upto, segment.validated, checks_last)


def _planned_checks(spans: Sequence[_Span]) -> list[int]:
    found = []
    for span in spans:
        first = span.after + 1 if span.checked_before else span.after
        last = span.upto if span.checks_last else span.upto - 1
        found += [at for at in _checks_until(span.plan, last) if at >= first]
    return found


def _planned_saves(spans: Sequence[_Span]) -> list[tuple[int, str]]:
    return [entry for span in spans for entry in _saves_within(span.plan, span.after, span.upto)]


def _saves_within(plan: Plan, after: int, upto: int) -> list[tuple[int, str]]:
    within = takewhile(lambda save: save.iter <= upto, saves(plan, best=False))
    return [(save.iter, save.name) for save in within if save.iter > after]


def _checks_until(plan: Plan, last: int) -> Iterator[int]:
    for _, at in validations(plan):
        if at is None or at > last:
            return
        yield at


def _kept(segment: Segment, later: Sequence[Segment]) -> Segment:
    """The part of a segment no later one executed again."""
    if not later:
        return segment
    cut = min(s.resumed for s in later)
    validated = all(s.validated for s in later if s.resumed == cut)
    told = (e for e in segment.events if e["event"] in ("validate", "save", "save_failed"))
    return evolve(
        segment, events=tuple(e for e in told if _counts(e, cut, validated)),
        steps=tuple(step for step in segment.steps if step[0] < cut),
    )  # fmt: skip


def _counts(event: Mapping[str, Any], cut: int, validated: bool) -> bool:
    """Whether an event still counts when a later start resumed at `cut`; `validated`: with the validation there done."""
    if event["iter"] < cut:
        return True
    follows = event["event"] == "validate" or event.get("best", False)
    return event["iter"] == cut and (validated or not follows)


def _events(kept: Sequence[Segment], kind: str) -> list[Mapping[str, Any]]:
    return [event for part in kept for event in part.events if event["event"] == kind]


def _step_differences(kept: Sequence[Segment], start: int) -> Iterator[Difference]:
    expected, checks = start, _events(kept, "validate")
    rates = [Rates(checks, at) for at in range(max(len(part.plan.optimizers) for part in kept))]
    for part in kept:
        for i, lr, samples in part.steps:
            if i != expected:
                yield Difference(what="iteration", at=expected, planned=str(expected), actual=str(i))
            expected = i + 1
            for what, planned, actual in rate_differences(part.plan, i, rates, lr):
                yield Difference(what=what, at=i, planned=planned, actual=actual)
            size = planned_samples(part.plan, i)
            if size is not None and size != samples:
                yield Difference(what="samples", at=i, planned=str(size), actual=str(samples))


def planned_samples(plan: Plan, iteration: int, rank: int = 0) -> int | None:
    """Samples one rank trains on in a running iteration; None for an order of the user's own."""
    order = plan.train.order if plan.train is not None else None
    if order is None or plan.batching is None or plan.timeline is None or plan.timeline.opaque:
        return None
    per = plan.batching.per_iteration
    if order.endless or plan.timeline.epoch_length is None:
        return per * order.micro_batch_size
    first = iteration % plan.timeline.epoch_length * per
    return sum(len(order.positions(first + a, plan.data_rank(rank))) for a in range(per))


def _saved(kept: Sequence[Segment], segments: Sequence[Segment]) -> list[tuple[int, str]]:
    """(iteration, name) of regular saves, tried if not done. A checkpoint that was resumed was saved, told or not (a kill between)."""
    found = []
    for part in kept:
        found += [
            (e["iter"], e["name"]) for e in part.events
            if e["event"] == "save" and not e["best"] and e.get("planned", True)
        ]  # fmt: skip
    tried = (
        (e["iter"], e["name"]) for e in _events(kept, "save_failed") if e.get("planned") and not e["best"]
    )
    found += [entry for entry in dict.fromkeys(tried) if entry not in found]
    for saved_by, entry in _resumed(segments):
        if entry[0] > 0 and entry == _regular_after(saved_by, entry[0] - 1) and entry not in found:
            found.append(entry)
    return sorted(found)


def _resumed(segments: Sequence[Segment]) -> Iterator[tuple[Plan, tuple[int, str]]]:
    """(plan of the start before, (iteration, name)) of each checkpoint that a start resumed."""
    for before, segment in pairwise(segments):
        if isinstance(segment.plan.start, Resume):
            yield before.plan, (segment.resumed, segment.plan.start.path.rpartition("/")[2])


def _regular_after(plan: Plan, after: int) -> tuple[int, str] | None:
    """(iteration, name) of the first regular save after so many completed iterations."""
    if plan.saving is None or plan.timeline is None or plan.timeline.opaque:
        return None
    due = clock.next_save(plan.timeline, plan.saving.points, after)
    return None if due is None else (due[1], plan.saving.name(due[0]))


def _sequence(what: str, planned: list[Any], actual: list[Any], reached: int, done: bool) -> list[Difference]:
    """Events planned and not done, or done and not planned. An unfinished run may owe what falls on its last step."""
    found = [
        Difference(what=what, at=_at(event), planned=str(event), actual="nothing")
        for event in planned
        if event not in actual and (done or _at(event) < reached)
    ]
    for event in dict.fromkeys(actual):
        if event not in planned:
            found.append(Difference(what=what, at=_at(event), planned="nothing", actual=str(event)))
        elif actual.count(event) > 1:
            text = f"{event} {actual.count(event)} times"
            found.append(Difference(what=what, at=_at(event), planned="once", actual=text))
    return found


def _at(event: Any) -> int:
    return int(event[0] if isinstance(event, tuple) else event)


def _best_differences(kept: Sequence[Segment], segments: Sequence[Segment]) -> Iterator[Difference]:
    """Best checkpoints follow from the logged metrics: replay the comparison and expect exactly those saves."""
    actual = {(e["iter"], e["name"]) for e in _events(kept, "save") if e["best"]}
    actual |= {entry for _, entry in _resumed(segments) if entry[1].startswith("best_")}
    tried = {(e["iter"], e["name"]) for e in _events(kept, "save_failed") if e.get("best")} - actual
    best = {key: score for part in kept for key, score in part.best}
    expected = set()
    for plan, check in ((part.plan, e) for part in kept for e in part.events if e["event"] == "validate"):
        by_epoch = plan.timeline is not None and plan.timeline.by_epoch
        for key, rule in _rules(plan, check["metrics"]):
            score = check["metrics"][key]
            if not is_better(rule, score, best.get(key)):
                continue
            entry = (check["iter"], best_name(key, by_epoch, check["epoch" if by_epoch else "iter"]))
            expected.add(entry)
            if entry in tried:  # so the one before stays the best there is
                continue
            best[key] = score
            if entry not in actual:
                planned = f"a save, as {score} is the best so far"
                yield Difference(what=f"best {key}", at=entry[0], planned=planned, actual="nothing")
    for at, name in sorted((actual | tried) - expected):
        yield Difference(what="best", at=at, planned="nothing", actual=f"a save as {name}")


def _timed(kept: Sequence[Segment]) -> Iterator[tuple[Plan, Mapping[str, Any]]]:
    return ((part.plan, e) for part in kept for e in part.events if e["event"] == "save" and "waited" in e)


def _gaps(segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """(iterations on record, iterations done) of each start whose record lacks its end and that a later one went on from."""
    for segment, later in pairwise(segments):
        if segment.incomplete and later.resumed >= segment.reached:
            yield segment.reached, later.resumed


def _hidden(difference: Difference, after: int, upto: int) -> bool:
    if difference.what.split()[0] in REPLAYED:
        return difference.at >= after
    return difference.what in RECORDED and after <= difference.at <= upto


def _unrecorded(segments: Sequence[Segment], gaps: Sequence[tuple[int, int]]) -> Iterator[str]:
    yield from (f"iterations {after + 1} to {upto}" for after, upto in gaps if after < upto)
    if segments[-1].incomplete:
        yield f"what followed iteration {segments[-1].reached}"


def _told(event: Mapping[str, Any]) -> str:
    return f"{event['name']} at iteration {event['iter']}: {event['reason']}"


def _timed_differences(kept: Sequence[Segment]) -> Iterator[Difference]:
    """A save by wall time is planned as a condition: the seconds on record must have met it."""
    for plan, event in _timed(kept):
        if event.get("failures"):  # another attempt at one that failed
            continue
        every = plan.saving.every_seconds if plan.saving is not None else None
        at, waited = int(event["iter"]), float(event["waited"])
        if every is None or waited < every or event["name"] != timed_name(at):
            planned = "nothing" if every is None else f"{timed_name(at)} after {every:g} s"
            actual = f"{event['name']} after {waited:g} s"
            yield Difference(what="save by wall time", at=at, planned=planned, actual=actual)


def _rules(plan: Plan, metrics: Mapping[str, float]) -> Iterator[tuple[str, Rule]]:
    """(metric, which way is better) of each save_best entry that these metrics decide."""
    saving = plan.saving
    if saving is None or not metrics:
        return
    for entry in saving.best:
        key = entry.key or next(iter(metrics))
        rule = entry.rule or inferred_rule(key, saving.greater_keys, saving.less_keys)
        if rule is not None and key in metrics:
            yield key, rule
