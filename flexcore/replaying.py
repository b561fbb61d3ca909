"""Early stops replayed from the metrics on record: where each start of a run had to end, and whether it did."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from flexcore import timeline as clock
from flexcore.hooks import EarlyStopping
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
