"""Rules of hooks and checkpoints: priorities, slots, names, best-metric rules."""

import math
import re
import string
from collections.abc import Iterator

from flexcore.config import Config
from flexcore.facts import Facts
from flexcore.hooks import (
    DEFAULT_SLOTS,
    PRIORITIES,
    Checkpoint,
    Hook,
    Logger,
    UserHook,
    merged,
    valid_priority,
)
from flexcore.loops import IterLoop
from flexcore.problems import Path, Problem, did_you_mean, is_url, shown, usable
from flexcore.rules import problem
from flexcore.saving import PUBLISHED, as_tuple, best_rules, last_part
from flexcore.schedules import ReduceOnPlateau

PRIORITY_NAMES = f"Names: {', '.join(PRIORITIES)}."
MANY = 10**18  # iterations: none counts further
PLAIN_SPEC = re.compile(r"0?[0-9]{0,2}d?")


def placed(config: Config) -> Iterator[tuple[Path, Hook]]:
    yield from (
        (("default_hooks", slot.key), slot.hook) for slot in config.default_hooks if slot.hook is not None
    )
    yield from ((("custom_hooks", i), hook) for i, hook in enumerate(config.custom_hooks))


def hooks(config: Config, facts: Facts, __: frozenset[str]) -> Iterator[Problem]:
    for slot in config.default_hooks:
        if slot.hook is None and slot.key not in DEFAULT_SLOTS:
            guess = did_you_mean(slot.key, DEFAULT_SLOTS).strip() or f"Known: {', '.join(DEFAULT_SLOTS)}."
            yield problem(
                "FK010", ("default_hooks", slot.key), "is None, and no default hook has that name.", guess
            )
    yield from _doubled(config)
    yield from _own_priorities(facts)
    for path, hook in placed(config):
        if not valid_priority(hook.priority):
            text = f"must be 0-100 or a priority's name, got {shown(hook.priority)}."
            yield problem("FK020", (*path, "priority"), text, PRIORITY_NAMES)
        if isinstance(hook, Logger) and hook.interval < 1:
            yield problem(
                "FK020",
                (*path, "interval"),
                f"must be at least 1, got {hook.interval}.",
                "Correct the value.",
            )


def _doubled(config: Config) -> Iterator[Problem]:
    """A built-in hook registered while another of its kind is, a default left in place included."""
    seen: set[type] = set()
    for place, hook in merged(config.default_hooks, config.custom_hooks):
        if not isinstance(hook, UserHook) and type(hook) in seen:
            section = "default_hooks" if isinstance(place, str) else "custom_hooks"
            text = f"is a second {hook.NAME}; the run has one of each built-in."
            yield problem("FK019", (section, place), text, "Set it in default_hooks under its own key.")
        seen.add(type(hook))


def _own_priorities(facts: Facts) -> Iterator[Problem]:
    for fact in facts.hooks or ():
        if not valid_priority(fact.priority):
            section = "default_hooks" if isinstance(fact.place, str) else "custom_hooks"
            text = f"has a class of priority {shown(fact.priority)}; it must be 0-100 or a priority's name."
            yield problem("FK020", (section, fact.place), text, PRIORITY_NAMES)


def checkpoints(config: Config, _: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    for path, hook in placed(config):
        if isinstance(hook, Checkpoint):
            yield from _points(config, hook, path)
            yield from _template(hook.filename_tmpl, (*path, "filename_tmpl"))
            yield from _published(hook, (*path, "published_keys"))
            yield from _place(config, hook, path)
            yield from _storage(hook, path)
            yield from _schedulers(config, hook, (*path, "save_param_scheduler"))
            yield from _best(hook, path, validates=config.val_cfg is not None or "val_cfg" in broken)


def _points(config: Config, hook: Checkpoint, path: Path) -> Iterator[Problem]:
    if isinstance(config.train_cfg, IterLoop) and hook.by_epoch:
        text = "counts epochs, and the iteration loop has none."
        yield problem(
            "FS003", (*path, "by_epoch"), text, "Set by_epoch=False and give the interval in iterations."
        )
    if hook.save_begin < 0:
        yield problem(
            "FK020",
            (*path, "save_begin"),
            f"must be at least 0, got {hook.save_begin}.",
            "Correct the value.",
        )
    if hook.max_keep_ckpts == 0 or hook.max_keep_ckpts < -1:
        text = f"must be -1 (all) or at least 1, got {hook.max_keep_ckpts}."
        yield problem("FK020", (*path, "max_keep_ckpts"), text, "Correct the value.")
    for key, minutes in (("interval_minutes", hook.interval_minutes), ("retry_minutes", hook.retry_minutes)):
        if minutes is not None and not 0 < minutes < math.inf:
            text = f"must be a finite number > 0, got {shown(minutes)}."
            yield problem("FK020", (*path, key), text, "Correct the value.")
    never = hook.interval is not None and hook.interval <= 0
    if not hook.save_last and never and hook.save_best is None and hook.interval_minutes is None:
        yield problem(
            "FC006", path, "saves nothing: no interval, no last, no best.", "Set interval or save_last=True."
        )


def _template(template: str | None, path: Path) -> Iterator[Problem]:
    if template is None:
        return
    if not _names_files(template):
        text = f"must be a plain file name with one {{}}, got {shown(template)}."
        yield problem("FC004", path, text, 'Write, for example, "epoch_{}".')


def _published(hook: Checkpoint, path: Path) -> Iterator[Problem]:
    for key in as_tuple(hook.published_keys):
        if key not in PUBLISHED:
            text = f"{shown(key)} is nothing a checkpoint holds."
            guess = did_you_mean(key, PUBLISHED).strip() or f"Known: {', '.join(PUBLISHED)}."
            yield problem("FK020", path, text, guess)
        elif key == "optimizer" and not hook.save_optimizer:
            text = "names the optimizer, which save_optimizer=False leaves out."
            yield problem("FK019", path, text, "Set save_optimizer=True, or leave it out.")


def _place(config: Config, hook: Checkpoint, path: Path) -> Iterator[Problem]:
    """out_dir with the last part of work_dir must be a directory of its own."""
    if hook.out_dir is None:
        return
    if not usable(hook.out_dir):
        text = f"is not a usable path: {shown(hook.out_dir)}."
        yield problem("FC010", (*path, "out_dir"), text, "Write a plain path, or remove it.")
    elif is_url(hook.out_dir):
        yield _remote((*path, "out_dir"), hook.out_dir)
    elif config.work_dir is not None and last_part(config.work_dir) in ("", ".", ".."):
        text = f"takes the last part of work_dir, and {shown(config.work_dir)} ends in none."
        yield problem("FC010", (*path, "out_dir"), text, "Write work_dir with a name at its end.")


LOCAL = ("local", "disk", "LocalBackend", "HardDiskBackend")


def _storage(hook: Checkpoint, path: Path) -> Iterator[Problem]:
    if hook.file_client_args is not None and hook.backend_args is not None:
        text = "is given with backend_args, and both say where checkpoints are kept."
        yield problem("FK019", (*path, "file_client_args"), text, "Keep backend_args, or neither.")
    for key in ("file_client_args", "backend_args"):
        given = getattr(hook, key)
        for name, value in given.entries if given is not None else ():
            if (name, value in LOCAL) != ("backend", True):
                yield _remote((*path, key, name), value)


def _remote(path: Path, value: object) -> Problem:
    text = f"is {shown(value)}; checkpoints are kept in a local file system."
    return problem("FK014", path, text, "Mount the storage and name a directory of it in out_dir.")


def _schedulers(config: Config, hook: Checkpoint, path: Path) -> Iterator[Problem]:
    if hook.save_param_scheduler:
        return
    if any(isinstance(schedule, ReduceOnPlateau) for schedule in config.param_scheduler or ()):
        text = "is false, and what ReduceOnPlateauLR has gathered decides the LR after a resume."
        yield problem("FK019", path, text, "Remove it, or save_optimizer=False for weights alone.")
    else:
        text = (
            "is false and changes nothing: these schedules are functions of the iteration and have no state."
        )
        yield problem("FK023", path, text, "Nothing to do.")


def _names_files(template: str) -> bool:
    """One plain counter, and a visible file name that no other kind of checkpoint's can equal."""
    try:
        parts = tuple(string.Formatter().parse(template))
    except ValueError:
        return False
    fields = [(field, str(spec), form) for _, field, spec, form in parts if field is not None]
    if len(fields) != 1:
        return False
    ((field, spec, form),) = fields
    if field not in ("", "0") or form or not PLAIN_SPEC.fullmatch(spec):
        return False
    name = template.format(MANY)
    hidden = (
        name.startswith((".", "best_", "timed_iter_", "stopped_iter_"))
        or any(c in name for c in "/\\")
        or not name.isprintable()
    )
    return len(name) <= 200 and not hidden


def _best(hook: Checkpoint, path: Path, *, validates: bool) -> Iterator[Problem]:
    wanted = as_tuple(hook.save_best)
    if not wanted:
        return
    if not validates:
        text = f"watches {shown(hook.save_best)}, but the config has no validation."
        yield problem("FC003", (*path, "save_best"), text, "Add val_dataloader, val_cfg and val_evaluator.")
    if len(set(wanted)) < len(wanted):
        text = f"names {shown(next(key for key in wanted if wanted.count(key) > 1))} twice."
        yield problem("FC002", (*path, "save_best"), text, "Name each metric once.")
        return
    if wanted.count("auto") and len(wanted) > 1:
        yield problem(
            "FC002", (*path, "save_best"), 'mixes "auto" with names.', 'Use "auto" alone or name all.'
        )
        return
    rules = as_tuple(hook.rule)
    for rule in rules:
        if rule not in ("greater", "less"):
            text = f'must be "greater" or "less", got {shown(rule)}.'
            yield problem("FC002", (*path, "rule"), text, "Correct the rule.")
    if len(rules) not in (0, 1, len(wanted)):
        text = f"gives {len(rules)} rules for {len(wanted)} metrics."
        yield problem("FC002", (*path, "rule"), text, "Give one rule, or one per metric.")
        return
    for best in best_rules(hook):
        if best.key is not None and best.rule is None:
            text = f"cannot tell whether more or less of {shown(best.key)} is better."
            yield problem("FC002", (*path, "save_best"), text, 'Add rule="greater" or rule="less".')
