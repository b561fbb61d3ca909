"""When a watched metric ends a run: a function of its scores in order. Nothing is measured or stopped here."""

import math

from attrs import frozen

from flexcore.hook_specs import EarlyStopping
from flexcore.saving import GREATER_KEYS, LESS_KEYS, Rule, inferred_rule, is_better

REASON = "early_stopping"


@frozen(kw_only=True)
class Watched:
    """What the scores so far come to. best: None before the first. waited: scores in a row that were no better."""

    best: float | None = None
    waited: int = 0
    last: float | None = None


def rule_of(hook: EarlyStopping) -> Rule | None:
    """Which way is better; None if the name does not tell."""
    return hook.rule or inferred_rule(hook.monitor, GREATER_KEYS, LESS_KEYS)


def watched(hook: EarlyStopping, so_far: Watched, score: float) -> Watched:
    """With one more score. A better one improves on the best by more than min_delta."""
    if hook.check_finite and not math.isfinite(score):
        return Watched(best=so_far.best, waited=so_far.waited, last=score)
    rule = rule_of(hook) or "greater"
    step = hook.min_delta if rule == "greater" else -hook.min_delta
    better = is_better(rule, score, None if so_far.best is None else so_far.best + step)
    if better or _reached(hook, score):
        return Watched(best=score, last=score)
    return Watched(best=so_far.best, waited=so_far.waited + 1, last=score)


def _reached(hook: EarlyStopping, score: float) -> bool:
    limit = hook.stopping_threshold
    return limit is not None and is_better(rule_of(hook) or "greater", score, limit)


def verdict(hook: EarlyStopping, so_far: Watched) -> str | None:
    """Why the run ends after these scores; None to go on."""
    last = so_far.last
    if last is None:
        return None
    if hook.check_finite and not math.isfinite(last):
        return f"{hook.monitor} is {last}"
    if _reached(hook, last):
        return f"{hook.monitor} is {last:g}, past {hook.stopping_threshold:g}"
    if so_far.waited >= hook.patience:
        best = "none yet" if so_far.best is None else f"{so_far.best:g}"
        return f"{hook.monitor} is no better than {best} after {so_far.waited} validations"
    return None
