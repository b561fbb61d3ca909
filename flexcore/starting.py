"""Where a run starts: the resume / load_from matrix over the checkpoints in Facts, and what may differ."""

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import evolve

from flexcore.config import Config, weights_of
from flexcore.facts import CheckpointFact, Facts
from flexcore.hooks import PlannedHook
from flexcore.problems import Problem, shown
from flexcore.rules import problem
from flexcore.run_plan import Fresh, LoadWeights, Resume, Start
from flexcore.timeline import Timeline, closes

Change = Literal["resume-safe", "trajectory-changing", "incompatible"]

# What a difference in each trajectory field means for continuing a checkpoint. Incompatible: the state does not
# fit or its counters would mean something else. Trajectory-changing: it fits, and the weights will differ from
# those of an uninterrupted run.
CHANGES: Mapping[str, Change] = {
    "model": "incompatible",
    "optimizer": "incompatible",
    "seed": "incompatible",
    "clock": "incompatible",
    "loop": "incompatible",
    "batches": "incompatible",
    "order": "incompatible",
    "data": "trajectory-changing",
    "loss": "trajectory-changing",
    "preprocessor": "trajectory-changing",
    "optimizer settings": "trajectory-changing",
    "accumulation": "trajectory-changing",
    "schedules": "trajectory-changing",
    "precision": "trajectory-changing",
    "between ranks": "trajectory-changing",
    "length": "resume-safe",
}


REMEDIES: Mapping[str, str] = {
    "batches": "Restore the batch and world size, or start in another work_dir; "
    "with global_batch_size a run goes on at any world size.",
}


def newest(checkpoints: tuple[CheckpointFact, ...] | None, *, trains: bool = True) -> CheckpointFact | None:
    """The checkpoint with the most iterations that can be resumed, or evaluated; of two, the validated one."""
    able = [fact for fact in checkpoints or () if fact.resumable or not trains]
    return max(able, key=lambda fact: (fact.iter, fact.validated, not fact.best, fact.name), default=None)


def chosen(config: Config, facts: Facts, *, trains: bool = True) -> Start:
    """The starting point by DESIGN's matrix. (True, X) prefers work_dir's newest, so a requeued job goes on."""
    resume, weights = config.resume, weights_of(config)
    if isinstance(resume, str):
        return _resumed(facts, facts.named_checkpoint, resume, "resume names it")
    if not resume:
        if weights is None:
            return Fresh()
        return LoadWeights(path=weights.path, revise_keys=weights.revise_keys, strict=weights.strict)
    found = newest(facts.checkpoints, trains=trains)
    if found is not None:
        return _resumed(facts, found, found.path, "newest complete checkpoint in work_dir")
    if weights is not None:
        held = "work_dir has not been looked at" if facts.checkpoints is None else "work_dir holds none"
        return _resumed(facts, facts.named_checkpoint, weights.path, f"load_from names it and {held}")
    if facts.checkpoints is None:
        return Fresh(because="resume=True, but work_dir has not been looked at")
    return Fresh(because="resume=True found no complete checkpoint in work_dir")


def _resumed(facts: Facts, fact: CheckpointFact | None, path: str, because: str) -> Resume:
    """A checkpoint that stands in work_dir goes on with its record; another's starts one here."""
    if fact is None:
        return Resume(path=path, because=because)
    own = any((one.name, one.record) == (fact.name, fact.record) for one in facts.checkpoints or ())
    return Resume(
        path=path, epoch=fact.epoch, iter=fact.iter, validated=fact.validated, because=because,
        record=fact.record if own else None, writer=fact.writer,
    )  # fmt: skip


def counted(start: Start, clock: Timeline | None) -> Start:
    """With the epoch its iterations come to: mmengine may tell one too many, where it saved again after a validation."""
    if not isinstance(start, Resume) or start.writer == "flexcore" or start.iter is None or clock is None:
        return start
    return start if clock.epoch_length is None else evolve(start, epoch=clock.epoch_of(start.iter))


def fact_of(start: Start, facts: Facts) -> CheckpointFact | None:
    """What is known of the checkpoint a start resumes."""
    if not isinstance(start, Resume):
        return None
    known = (*(facts.checkpoints or ()), *((facts.named_checkpoint,) if facts.named_checkpoint else ()))
    return next((fact for fact in known if fact.path == start.path), None) or (
        facts.named_checkpoint
        if facts.named_checkpoint and start.iter == facts.named_checkpoint.iter
        else None
    )


def recorded_seed(config: Config, facts: Facts) -> int | None:
    """The seed a checkpoint to be resumed was trained with: a run without a seed of its own goes on with it."""
    fact = fact_of(chosen(config, facts), facts)
    text = dict(fact.trajectory or ()).get("seed", "") if fact is not None else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def differences(
    then: tuple[tuple[str, str], ...], now: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, Change, str, str], ...]:
    """(field, class, then, now) of each trajectory field known on both sides that changed."""
    before, after = dict(then), dict(now)
    return tuple(
        (name, CHANGES.get(name, "trajectory-changing"), before[name], after[name])
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    )


def resume_problems(
    fact: CheckpointFact, trajectory: tuple[tuple[str, str], ...], clock: Timeline, config: Config
) -> list[Problem]:
    """Why the checkpoint cannot be continued as planned, or what will differ if it is."""
    if fact.writer == "mmengine" and config.global_batch_size is not None:
        text = f"{shown(fact.path)} is mmengine's, which counts iterations in micro-batches; with global_batch_size they are global batches."
        remedy = "Drop global_batch_size, or take its weights alone with load_from and resume=False."
        return [problem("FC005", ("resume",), text, remedy)]
    total = clock.max_iters
    found = _mmengine_notices(fact, clock) if fact.writer == "mmengine" else []
    if not fact.resumable:
        text = f"{shown(fact.path)} holds weights only: saved inside an accumulation window, or with save_optimizer=False."
        found.append(problem("FC009", ("resume",), text, "Resume another checkpoint, or use load_from."))
    if total is not None and fact.iter > total:
        text = f"{shown(fact.path)} has done {fact.iter} iterations and this run ends at {total}."
        found.append(problem("FC005", ("resume",), text, "Train for longer, or start in another work_dir."))
    if total is not None and fact.iter == total:
        text = f"{shown(fact.path)} is at the end of the run already; nothing is left to train."
        found.append(problem("FC007", ("resume",), text, "Raise the run's length to go on."))
    for name, change, then, now in differences(fact.trajectory, trajectory) if fact.trajectory else ():
        found.append(_difference(fact.path, name, change, then, now))
    return found


def _mmengine_notices(fact: CheckpointFact, clock: Timeline) -> list[Problem]:
    """What means something else in a checkpoint of mmengine's."""
    found = []
    if fact.iter and clock.window > 1 and not closes(clock, fact.iter - 1):
        text = f"{shown(fact.path)} was saved inside an accumulation window, whose gradients so far are lost, as when mmengine resumes it."
        found.append(problem("FC014", ("resume",), text, "Resume another checkpoint to lose none."))
    if clock.epoch_length is not None and clock.by_epoch and clock.epoch_of(fact.iter) != fact.epoch:
        text = (
            f"{shown(fact.path)} tells epoch {fact.epoch} and {fact.iter} iterations, which here are "
            f"{clock.epoch_of(fact.iter)} epochs of {clock.epoch_length}; it goes on by its iterations."
        )
        found.append(problem("FC015", ("resume",), text, "Check the batch size if that is not meant."))
    return found


def hook_notices(fact: CheckpointFact, hooks: Iterable[PlannedHook]) -> list[Problem]:
    """State in the checkpoint that no hook takes, and hooks that take none: told, for both are as well meant."""
    if fact.hooks is None:
        return []
    running = tuple(hooks)
    keys = {hook.key for hook in running}
    found = [
        problem(
            "FC011", ("custom_hooks",),
            f"has no {key}, whose state {shown(fact.path)} holds; it is left behind.",
            "Register the hook again, or nothing if meant.",
        )
        for key in fact.hooks if key not in keys
    ]  # fmt: skip
    for hook in running:
        if hook.stateful and hook.key not in fact.hooks:
            section = "custom_hooks" if isinstance(hook.place, int) else "default_hooks"
            text = f"is {hook.key}, of which {shown(fact.path)} has no state; it starts anew."
            found.append(problem("FC012", (section, hook.place), text, "Nothing to do if meant."))
    return found


def _brief(text: str, limit: int = 200) -> str:
    """JSON text as it may stand in a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _difference(path: str, name: str, change: Change, then: str, now: str) -> Problem:
    text = f"{shown(path)} was trained with {name} {_brief(then)}, this run has {_brief(now)} ({change})."
    if change == "incompatible":
        remedy = REMEDIES.get(name, "Restore the setting, or start in another work_dir.")
        return problem("FC005", ("resume",), text, remedy)
    severity: Literal["warning", "info"] = "info" if change == "resume-safe" else "warning"
    return Problem(
        code="FC005", path=("resume",), message=text, remedy="Nothing to do if meant.", severity=severity
    )
