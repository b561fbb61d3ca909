"""Rules of hooks and checkpoints: priorities, slots, names, best-metric rules."""

import string
from collections.abc import Iterator

from flexcore.config import Config, IterLoop
from flexcore.facts import Facts
from flexcore.hooks import DEFAULT_SLOTS, BuiltinHook, Checkpoint, Hook, Logger, UserHook, valid_priority
from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem
from flexcore.saving import as_tuple, best_rules


def placed(config: Config) -> Iterator[tuple[Path, Hook]]:
    yield from ((("default_hooks", slot.key), slot.hook) for slot in config.default_hooks if slot.hook is not None)
    yield from ((("custom_hooks", i), hook) for i, hook in enumerate(config.custom_hooks))


def hooks(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    seen: set[type] = set()
    for path, hook in placed(config):
        if not valid_priority(hook.priority):
            text = f"must be 0-100 or a priority's name, got {shown(hook.priority)}."
            yield problem("FK020", (*path, "priority"), text, "Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST.")
        if isinstance(hook, Logger) and hook.interval < 1:
            yield problem("FK020", (*path, "interval"), f"must be at least 1, got {hook.interval}.", "Correct the value.")
        if not isinstance(hook, UserHook) and _doubled(path, hook, seen):
            text = f"is a second {hook.NAME}; the run has one of each built-in."
            yield problem("FK019", path, text, "Set it in default_hooks under its own key.")


def _doubled(path: Path, hook: BuiltinHook, seen: set[type]) -> bool:
    own_slot = next((key for key, default in DEFAULT_SLOTS.items() if type(default) is type(hook)), None)
    elsewhere = path != ("default_hooks", own_slot)
    doubled = type(hook) in seen or elsewhere
    seen.add(type(hook))
    return doubled


def checkpoints(config: Config, _: Facts, __: frozenset[str]) -> Iterator[Problem]:
    for path, hook in placed(config):
        if isinstance(hook, Checkpoint):
            yield from _points(config, hook, path)
            yield from _template(hook.filename_tmpl, (*path, "filename_tmpl"))
            yield from _best(config, hook, path)


def _points(config: Config, hook: Checkpoint, path: Path) -> Iterator[Problem]:
    if isinstance(config.train_cfg, IterLoop) and hook.by_epoch:
        text = "counts epochs, and the iteration loop has none."
        yield problem("FS003", (*path, "by_epoch"), text, "Set by_epoch=False and give the interval in iterations.")
    if hook.save_begin < 0:
        yield problem("FK020", (*path, "save_begin"), f"must be at least 0, got {hook.save_begin}.", "Correct the value.")
    if hook.max_keep_ckpts == 0 or hook.max_keep_ckpts < -1:
        text = f"must be -1 (all) or at least 1, got {hook.max_keep_ckpts}."
        yield problem("FK020", (*path, "max_keep_ckpts"), text, "Correct the value.")
    if not hook.save_last and hook.interval is not None and hook.interval <= 0 and hook.save_best is None:
        yield problem("FC006", path, "saves nothing: no interval, no last, no best.", "Set interval or save_last=True.")


def _template(template: str | None, path: Path) -> Iterator[Problem]:
    if template is None:
        return
    try:
        fields = [(name, spec) for _, name, spec, _ in string.Formatter().parse(template) if name is not None]
        name = template.format(7) if len(fields) == 1 and fields[0][0] in ("", "0") else ""
    except (ValueError, IndexError, KeyError, AttributeError):
        name = ""
    if not name or len(name) > 200 or name.startswith(".") or any(c in name for c in "/\\\0") or not name.isprintable():
        text = f"must be a plain file name with one {{}}, got {shown(template)}."
        yield problem("FC004", path, text, 'Write, for example, "epoch_{}".')


def _best(config: Config, hook: Checkpoint, path: Path) -> Iterator[Problem]:
    wanted = as_tuple(hook.save_best)
    if not wanted:
        return
    if config.val_cfg is None:
        text = f"watches {shown(hook.save_best)}, but the config has no validation."
        yield problem("FC003", (*path, "save_best"), text, "Add val_dataloader, val_cfg and val_evaluator.")
    if wanted.count("auto") and len(wanted) > 1:
        yield problem("FC002", (*path, "save_best"), 'mixes "auto" with names.', 'Use "auto" alone or name all.')
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
