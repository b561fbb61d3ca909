"""From a plan with unknowns to the plan that runs: facts are completed, shared by rank 0, compared and held to."""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from flexcore.config import Config
from flexcore.converting import dump, marked, parse_partly, structure, unmarked
from flexcore.facts import Facts
from flexcore.noticing import supplied_slots
from flexcore.plan_files import config_digest, plan_digest
from flexcore.planning import plan as make_plan
from flexcore.problems import ConfigError, Problem, is_url
from flexcore.rules import problem
from flexcore.run_plan import Environment, Fresh, LoadWeights, Mode, Plan, Resume
from shell import building, manifests, probe
from shell.locking import LockUnavailable, WorkDirLocked
from shell.processes import Group
from shell.results import EXIT_CODES, CheckpointRefused, StalePlan


class PeerFailed(Exception):  # noqa: N818 - named for what happened
    """Another rank failed while this one was well; `code` is the exit code of that failure."""

    def __init__(self, rank: int, text: str, code: int) -> None:
        super().__init__(f"rank {rank} failed: {text}")
        self.code = code


def with_stem(facts: Facts, path: str) -> Facts:
    return facts if facts.config_stem is not None else evolve(facts, config_stem=pathlib.Path(path).stem)


def planned(
    cfg: Any, facts: Facts, mode: Mode, *, smoke: bool = False, supplied: Mapping[str, Any] | None = None
) -> Plan:
    """The plan, if every component it names can be built. supplied: the live objects it may count on; None: not told.

    Raises:
        ConfigError: what is wrong with the config, the components it names and the objects supplied, in one go.
    """
    try:
        plan = make_plan(cfg, facts, mode=mode, smoke=smoke)
    except ConfigError as error:
        config = cfg if isinstance(cfg, Config) else parse_partly(cfg)[0]
        more = [*building.problems(config, mode, smoke=smoke), *_slot_problems(config, supplied)]
        raise ConfigError([*error.problems, *more]) from None
    check(plan, supplied)
    return plan


def check(plan: Plan, supplied: Mapping[str, Any] | None = None) -> None:
    """Import everything the plan will build, check that each call binds and each slot has its object. Builds nothing.

    Raises:
        ConfigError: with every component that cannot be built and every slot left open.
    """
    found = building.problems(plan.config, plan.mode, smoke=plan.smoke)
    found += _slot_problems(plan.config, supplied)
    if found:
        raise ConfigError(found)


def _slot_problems(config: Config, supplied: Mapping[str, Any] | None) -> list[Problem]:
    if supplied is None:
        return []
    needed = supplied_slots(config)
    open_slots = [
        problem("FK012", (name,), "waits for an object.", f"Pass {name}=... to execute.")
        for name in needed if name not in supplied
    ]  # fmt: skip
    text, remedy = "was supplied, but the plan has no slot for it.", "Put flexcore.Supplied() in the config."
    return open_slots + [problem("FK010", (name,), text, remedy) for name in supplied if name not in needed]


def completed(plan: Plan) -> Plan:
    """The plan with every fact of the first round; what it already rests on must hold here.

    Raises:
        StalePlan: the world size or the device is another. ConfigError: a loop cannot go on where it is to.
    """
    here = probe.device(probe.environment())
    wrong = probe.differences(
        evolve(
            plan.facts,
            train_samples=None,
            train_batches=None,
            train_iterable=None,
            train_batch_size=None,
            val_samples=None,
            test_samples=None,
        ),
        here,
    )
    if wrong:
        raise StalePlan(wrong)
    facts = evolve(probe.device(probe.environment(plan.facts)), environment=here.environment)
    if facts.checkpoints is None:
        facts = probe.checkpoints(facts, plan.config, plan.names)
    final = replanned(plan, facts)
    stuck = list(building.unresumable(final))
    if stuck:
        raise ConfigError(stuck)
    return final


def replanned(plan: Plan, facts: Facts) -> Plan:
    return plan if facts == plan.facts else make_plan(plan.config, facts, mode=plan.mode, smoke=plan.smoke)


def backend_of(env: Environment) -> str:
    return env.backend or "gloo"


def agreed(plan: Plan, group: Group) -> Plan:
    """The same plan on every rank: one config, rank 0's facts.

    Raises:
        ConfigError: ranks read different configs.
    """
    if group.rank.world_size == 1:
        return plan
    digests = group.gather(config_digest(plan))
    if len(set(digests)) > 1:
        odd = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        text = f"differs between ranks: rank {', '.join(odd)} read another config than rank 0."
        raise ConfigError([problem("FK015", (), text, "Give every rank the same file and overrides.")])
    return replanned(plan, _shared(plan.facts, group))


def _shared(facts: Facts, group: Group) -> Facts:
    """Rank 0's facts on every rank."""
    if group.rank.world_size == 1:
        return facts
    data = group.broadcast(dump(facts, marked))
    return structure(unmarked(data), Facts)


def settled(plan: Plan, seen: Facts, group: Group) -> Plan:
    """The plan completed with what the built objects show, the same on every rank.

    Raises:
        StalePlan: a count the plan rests on is another. ConfigError: ranks see different data or models, or
            the counts leave no plan. CheckpointRefused: a named checkpoint cannot be read.
    """
    seen = _shortest(seen, group)
    wrong = probe.differences(evolve(plan.facts, world_size=None, device_type=None), seen)
    if wrong:
        raise StalePlan(wrong)
    _compare(seen, group)
    found = {name: getattr(seen, name) for name in SECOND_ROUND}
    final = replanned(plan, evolve(plan.facts, **found))
    _check_named(final)
    return final


SECOND_ROUND = ("train_samples", "train_batches", "most_train_batches", "train_iterable", "train_batch_size", "val_samples", "test_samples", "parameters",
                "model_bytes",
                "modules", "model_blocks", "parameter_groups", "train_step", "hooks")  # fmt: skip


def _shortest(seen: Facts, group: Group) -> Facts:
    """With the passes of the rank that has the fewest batches, where the lengths of users' own loaders differ."""
    counts = group.gather(seen.train_batches) if group.rank.world_size > 1 else [seen.train_batches]
    if None in counts or len(set(counts)) == 1:
        return seen
    return evolve(seen, train_batches=min(counts), most_train_batches=max(counts))


def _compare(seen: Facts, group: Group) -> None:
    if group.rank.world_size == 1:
        return
    for name in SECOND_ROUND:
        values = group.gather(dump(getattr(seen, name), marked))
        odd = [str(rank) for rank, value in enumerate(values) if value != values[0]]
        if odd:
            text = f"{name} differs between ranks: rank {', '.join(odd)} sees another value than rank 0."
            raise ConfigError([problem("FK015", (), text, "Every rank must build the same model and data.")])


def _check_named(plan: Plan) -> None:
    start, known = plan.start, {fact.path for fact in plan.facts.checkpoints or ()}
    if isinstance(start, Fresh) or start.path in known or is_url(start.path):
        return
    if _is_foreign(start):
        _check_foreign(start)
        return
    found = manifests.read(pathlib.Path(start.path))
    if isinstance(found, manifests.Damaged):
        raise CheckpointRefused(f"{start.path}: {found.reason}")


def _is_foreign(start: LoadWeights | Resume) -> bool:
    """What others wrote and has been looked at; anything else that is named is a checkpoint of ours."""
    from shell import weights

    return weights.is_foreign(start.path)


def _fetch(url: str, work_dir: str) -> None:
    """Weights from afar, before any rank reads them."""
    from shell import remote, weights

    found = remote.fetched(url, work_dir)
    weights.check(str(remote.local(url, work_dir)))
    hashes = ", ".join(f"{one.name} {one.size:,} bytes SHA-256 {one.sha256}" for one in found.files[:4])
    print(
        f"flexcore: {url} is {hashes}{', ...' if len(found.files) > 4 else ''}", file=sys.stderr, flush=True
    )


def _check_foreign(start: LoadWeights | Resume) -> None:
    from shell import mmengine_files, weights

    if isinstance(start, LoadWeights):
        weights.check(start.path)
    else:
        mmengine_files.opened(start.path)


def started(plan: Plan, group: Group) -> Plan:
    """With the work_dir held: look again, verify what will be read, set damaged ones aside, and agree.

    Raises:
        CheckpointRefused: the checkpoint the config names is damaged, or every one whose seed this start took.
    """
    facts, failure = plan.facts, None
    if group.rank.rank == 0:
        try:
            facts = _verified(plan)
        except Exception as error:
            failure = error
    raise_together(group, failure)
    final = replanned(plan, _shared(facts, group))
    digests = group.gather(plan_digest(final)) if group.rank.world_size > 1 else []
    if len(set(digests)) > 1:
        text = "the ranks made different plans; this is a defect of flexcore."
        raise ConfigError([problem("FK015", (), text, "Report it with the config.")])
    lost = plan.sharding is not None and plan.sharding.skips_init and isinstance(final.start, Fresh)
    if (
        lost or final.environment.seed != plan.environment.seed
    ):  # the model was initialised for the other start
        raise CheckpointRefused("Every checkpoint was damaged and is set aside. Start again for a fresh run.")
    return final


def _verified(plan: Plan) -> Facts:
    if plan.config.resume is True and plan.mode == "train" and not plan.smoke:
        _leave_out(plan.names.checkpoint_dir)
    while True:
        facts = probe.checkpoints(plan.facts, plan.config, plan.names) if not plan.smoke else plan.facts
        plan = replanned(plan, facts)
        if not isinstance(plan.start, Resume | LoadWeights) or _is_foreign(plan.start):
            return facts
        if is_url(plan.start.path):
            _fetch(plan.start.path, plan.names.work_dir)
            return facts
        manifest = manifests.read(pathlib.Path(plan.start.path))
        reasons = (
            manifests.verify(manifest) if isinstance(manifest, manifests.Manifest) else (manifest.reason,)
        )
        if not reasons:
            return facts
        if plan.start.path not in {fact.path for fact in facts.checkpoints or ()} or isinstance(
            plan.config.resume, str
        ):
            raise CheckpointRefused(f"{plan.start.path}: {'; '.join(reasons)}")
        _set_aside(plan.start.path, "; ".join(reasons))


def _leave_out(checkpoint_dir: str) -> None:
    """Say which directories cannot be started from; a checkpoint that no longer is whole is not to be written over."""
    for found in manifests.scan(checkpoint_dir).damaged:
        path = pathlib.Path(found.path)
        own = (path / manifests.MANIFEST).is_file() and isinstance(manifests.read(path), manifests.Damaged)
        if own and not path.is_symlink():
            _set_aside(found.path, found.reason)
        else:
            print(f"flexcore: {path}: {found.reason}; it is left out", file=sys.stderr, flush=True)


def _set_aside(path: str, reason: str) -> None:
    aside = manifests.set_aside(pathlib.Path(path))
    text = f"flexcore: {path} is damaged ({reason}); set aside as {aside.name}, falling back"
    print(text, file=sys.stderr, flush=True)


def raise_together(group: Group, failure: Exception | None) -> None:
    """Raise this rank's failure, or PeerFailed if another rank has one, so that no rank waits for a dead one."""
    if group.rank.world_size > 1:
        told = None if failure is None else [str(failure), code_of(failure)]
        for rank, other in enumerate(group.gather(told)):
            if other is not None and failure is None:
                raise PeerFailed(rank, other[0], other[1])
    if failure is not None:
        raise failure


def code_of(error: BaseException) -> int:
    """The exit code an error ends `flexcore run` with; 1 for what is not foreseen."""
    from shell.building import BuildError
    from shell.ranks import LauncherError

    match error:
        case ConfigError() | BuildError() | LauncherError() | LockUnavailable():
            return EXIT_CODES["usage"]
        case StalePlan():
            return EXIT_CODES["stale"]
        case CheckpointRefused():
            return EXIT_CODES["checkpoint"]
        case WorkDirLocked():
            return EXIT_CODES["locked"]
        case PeerFailed():
            return error.code
        case _:
            return 1
