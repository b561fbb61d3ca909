"""Asks for the run's end when the plan's rule of scores says so; the rule is flexcore.stopping_early's."""

from collections.abc import Mapping
from typing import Any

from attrs import asdict

from flexcore.hooks import EarlyStopping
from flexcore.problems import ConfigError
from flexcore.rules import problem
from flexcore.stopping_early import REASON, Watched, verdict, watched
from shell.run import Run


class EarlyStoppingHook:
    """State: what the scores so far come to, so that a run that ended so ends again at once when it is resumed."""

    def __init__(self, spec: EarlyStopping) -> None:
        self.spec, self.so_far = spec, Watched()

    def before_train(self, run: Run) -> None:
        self._judge(run)

    def after_val_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        if run.plan.mode != "train":
            return
        score = run.group.broadcast(
            (metrics or {}).get(self.spec.monitor)
        )  # rank 0's, which is the one on record
        if score is None:
            self._missing(run, metrics or {})
            return
        self.so_far = watched(self.spec, self.so_far, float(score))
        self._judge(run)

    def _judge(self, run: Run) -> None:
        why = verdict(self.spec, self.so_far)
        if why is not None:
            run.logger.info("early stopping: %s", why)
            run.request_stop(f"{REASON}: {why}", alike=True)

    def _missing(self, run: Run, metrics: Mapping[str, float]) -> None:
        text = f"is {self.spec.monitor!r}, and the validation gives {', '.join(metrics) or 'nothing'}."
        if self.spec.strict:
            place = next(hook.place for hook in run.plan.hooks if isinstance(hook.hook, EarlyStopping))
            section = "custom_hooks" if isinstance(place, int) else "default_hooks"
            raise ConfigError([problem("FC003", (section, place, "monitor"), text, "Name one of them.")])
        run.logger.warning("EarlyStoppingHook: monitor %s", text)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.so_far)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.so_far = Watched(**state)
