"""What was planned as a condition, replayed from what decided it: early stops by metrics, attempts by failures on record."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from flexcore import timeline as clock
from flexcore.hooks import EarlyStopping
from flexcore.retrying import pause, retried_name
from flexcore.run_plan import Plan
from flexcore.stopping_early import Watched, verdict, watched


class Part(Protocol):
    """What a start of the run recorded, as far as it counts."""

    @property
    def plan(self) -> Plan: ...
    @property
    def resumed(self) -> int: ...
    @property
    def steps(self) -> tuple[tuple[int, Any, int], ...]: ...
    @property
    def events(self) -> tuple[Mapping[str, Any], ...]: ...


def early_stop_differences(parts: Sequence[Part], *, early: bool) -> Iterator[tuple[int, str, str]]:
    """(iteration, planned, actual) for each end the scores called for that was passed; early: the run ended so."""
    so_far, called_for = Watched(), False
    for part in parts:
        hook = next((h.hook for h in part.plan.hooks if isinstance(h.hook, EarlyStopping)), None)
        if hook is None or part.plan.timeline is None:
            continue
        so_far, end, why = _end(part, hook, so_far)
        called_for = end is not None
        reached = max((step[0] + 1 for step in part.steps), default=part.resumed)
        if end is not None and reached > end:
            yield end, f"the end, as {why}", f"{reached} iterations"
    if early and not called_for:
        at = max((step[0] + 1 for part in parts for step in part.steps), default=0)
        yield at, "no early stop by the metrics on record", "one"


def _end(part: Part, hook: EarlyStopping, so_far: Watched) -> tuple[Watched, int | None, str | None]:
    """The scores with this part's, and after which iteration it had to end: the update that closes the window."""
    assert part.plan.timeline is not None
    end, why = part.resumed, verdict(hook, so_far)
    for event in part.events:
        if event["event"] != "validate" or hook.monitor not in event["metrics"]:
            continue
        so_far = watched(hook, so_far, event["metrics"][hook.monitor])
        if why is None:
            end, why = event["iter"], verdict(hook, so_far)
    if why is None:
        return so_far, None, None
    return so_far, clock.update_at_or_after(part.plan.timeline, max(end, 1)), why


def retry_differences(parts: Sequence[Part]) -> Iterator[tuple[int, str, str]]:
    """(iteration, planned, actual) of each other attempt at a checkpoint that its failures on record did not call for."""
    for part in parts:
        first = part.plan.saving.retry_seconds if part.plan.saving is not None else None
        failures = 0
        for event in part.events:
            if event["event"] not in ("save", "save_failed") or event.get("best"):
                continue
            if event.get("failures") and not _called_for(event, first, failures):
                yield event["iter"], _called(event["iter"], first, failures), _tried(event)
            failures = failures + 1 if event["event"] == "save_failed" else 0


def _called_for(event: Mapping[str, Any], first: float | None, failures: int) -> bool:
    due = first is not None and failures > 0 and event["waited"] >= pause(first, failures)
    return due and event["name"] == retried_name(event["iter"])


def _called(at: int, first: float | None, failures: int) -> str:
    if first is None or failures == 0:
        return "nothing"
    return f"{retried_name(at)} {pause(first, failures):g} s after failure {failures}"


def _tried(event: Mapping[str, Any]) -> str:
    return f"{event['name']} {event['waited']:g} s after failure {event['failures']}"
