"""RunResult: what a finished run says of itself; and the errors a run ends with, with their exit codes."""

from collections.abc import Mapping

from attrs import frozen

from flexcore.run_plan import Plan

EXIT_CODES: Mapping[str, int] = {
    "done": 0, "early_stopping": 0, "time_limit": 0, "requested": 0, "usage": 2, "stale": 3, "checkpoint": 4, "hang": 5, "nonfinite": 6,
    "locked": 7, "save_failed": 8, "preempted": 75, "interrupted": 130,
}  # fmt: skip


@frozen(kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        reason: "done", "preempted", "interrupted", "time_limit", "early_stopping", "nonfinite", or "requested" for
            what a hook of the user's asked.
        metrics: the last evaluation's values. epoch, iter: completed.
        checkpoints: paths this process wrote that still stand. missing: of those due in this
            start, what does not stand at its end and nothing stands for. save_failed: there is such a one, or what was
            to be published was not.
        plan: the final plan, with every fact it rests on.
    """

    reason: str
    metrics: Mapping[str, float]
    epoch: int
    iter: int
    checkpoints: tuple[str, ...]
    work_dir: str
    log_dir: str | None
    save_failed: bool
    plan: Plan
    missing: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The process exit code for this ending (DESIGN's table)."""
        code = EXIT_CODES.get(self.reason, 0)
        return EXIT_CODES["save_failed"] if code == 0 and self.save_failed else code


class StalePlan(Exception):  # noqa: N818 - named for what is so
    """The plan rests on facts that are not so here; each difference is (fact, planned, found)."""

    def __init__(self, differences: list[tuple[str, object, object]]) -> None:
        self.differences = differences
        lines = [
            f"{name}: the plan rests on {planned}, and here it is {found}."
            for name, planned, found in differences
        ]
        super().__init__(
            "\n".join(["The plan does not fit this run:", *lines, "Plan again, or restore what changed."])
        )


class CheckpointRefused(Exception):  # noqa: N818 - named for what happened
    """A checkpoint the config names cannot be used."""
