"""`flexcore report WORK_DIR`: reads the plans and events of every start of a run and prints planned against actual."""

import pathlib
from typing import Any

from attrs import evolve

from flexcore.comparing import Comparison, Segment, compared
from flexcore.problems import ConfigError
from flexcore.run_plan import Plan
from shell import events
from shell.appending import INCOMPLETE

SHOWN = 20


def report(work_dir: pathlib.Path) -> tuple[str, int]:
    """(text, exit code): 0 nothing differs, 1 something does, 2 there is no record, or none that can be read."""
    try:
        segments = read_segments(work_dir)
    except (ConfigError, events.DamagedRecord, OSError) as error:
        return f"flexcore: {error}", 2
    if not segments:
        return f"flexcore: {work_dir}: no recorded run. Give the work_dir of `flexcore run`.", 2
    comparison = compared(segments)
    return told(comparison, work_dir), int(bool(comparison.differences))


def told(comparison: Comparison, work_dir: pathlib.Path) -> str:
    counts = ", ".join(
        f"{count:,} {name if count != 1 else name.removesuffix('s')}" for name, count in comparison.counts
    )
    state = "finished" if comparison.finished else f"not finished ({comparison.reason or 'killed'})"
    number = len(comparison.differences)
    lines = [f"Plan versus actual: {work_dir}, {state}", f"  compared     {counts}",
             *(f"  not recorded {told}: the disk was full" for told in comparison.unrecorded),
             *(f"  not saved    {failed}" for failed in comparison.failed[:SHOWN]), f"  differences  {number}"]  # fmt: skip
    if comparison.unplanned:
        lines.insert(2, f"  not planned  {', '.join(comparison.unplanned)}: the loop's own")
    lines += [f"    {difference}" for difference in comparison.differences[:SHOWN]]
    return "\n".join(lines + ([f"    ... and {number - SHOWN} more"] if number > SHOWN else []))


def read_segments(work_dir: pathlib.Path) -> list[Segment]:
    """Every training start recorded under work_dir, oldest first; one that never started training is left out.

    Raises:
        ConfigError: a plan.json cannot be read. DamagedRecord: an events file cannot.
    """
    found = []
    for file in work_dir.glob(f"*/{events.FILE}"):
        plan_file = file.parent / "plan.json"
        if plan_file.exists():
            segment = segment_of(_plan(plan_file), list(events.read(file)), incomplete=marked(file))
            if segment is not None and segment.plan.mode == "train":
                found.append(((segment.plan.names.timestamp or "", file.stat().st_mtime_ns), segment))
    return latest_run([segment for _, segment in sorted(found, key=lambda pair: pair[0])])


def _plan(file: pathlib.Path) -> Plan:
    try:
        return Plan.from_json(file.read_text(encoding="utf-8", errors="replace"))
    except ConfigError as error:
        raise ConfigError(evolve(p, where=p.where or str(file)) for p in error.problems) from error


def latest_run(segments: list[Segment]) -> list[Segment]:
    """From the last start that was fresh on: a work_dir may hold older runs."""
    fresh = [i for i, segment in enumerate(segments) if segment.resumed == 0]
    return segments[fresh[-1] :] if fresh else segments


def marked(file: pathlib.Path) -> bool:
    """Whether a record says of itself that it lacks its end."""
    return file.with_name(file.name + INCOMPLETE).exists()


def segment_of(plan: Plan, recorded: list[dict[str, Any]], *, incomplete: bool = False) -> Segment | None:
    start = next((event for event in recorded if event["event"] == "start"), None)
    if start is None:
        return None
    steps = [
        (event["first"] + i, lr, samples)
        for event in recorded if event["event"] == "steps"
        for i, (lr, samples) in enumerate(zip(_rates(event["lr"], plan), events.unpacked(event["samples"]), strict=True))
    ]  # fmt: skip
    others = tuple(event for event in recorded if event["event"] != "steps")
    return Segment(
        plan=plan, resumed=start["iter"], validated=start["validated"], steps=tuple(steps), events=others,
        best=tuple(start.get("best", {}).items()), incomplete=incomplete,
    )  # fmt: skip


def _rates(column: Any, plan: Plan) -> list[Any]:
    """The LR of each step; of several optimizers one each, in the plan's order."""
    if isinstance(column, list):
        return events.unpacked(column)
    return list(zip(*(events.unpacked(column[str(one.name)]) for one in plan.optimizers), strict=True))
