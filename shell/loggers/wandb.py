"""Scalars, parameters and the plan to Weights & Biases; offline it writes files and needs no network.

A row's step is the iteration, so an evaluation joins the row of the iteration it follows. Rows are written by wandb's
own process in blocks of 32 KiB: a kill -9 of the run loses the last of them there, never in events.jsonl.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from flexcore.components import thaw
from flexcore.hparams import hparams
from flexcore.log_specs import WandbBackend, WandbInit
from flexcore.run_plan import Plan
from shell.results import EXIT_CODES
from shell.run import Run


class WandbSink:
    """One run of W&B over all starts of a training: it goes on under the record's name."""

    def __init__(self, asked: WandbBackend) -> None:
        self.asked, self._defined = asked, set[str]()
        self._by_epoch = False
        self._run: Any = None

    def begin(self, run: Run) -> None:
        import wandb

        self._by_epoch = run.plan.logging.metric_axis == "epoch"
        self._run = wandb.init(**arguments(self.asked, run.plan), settings=wandb.Settings(console="off", silent=True),
                               reinit=None if wandb.run is None else "create_new")  # fmt: skip
        self._run.config.update(dict(hparams(run.plan)), allow_val_change=True)
        self._define()
        text = pathlib.Path(self._run.dir, f"plan_{run.plan.names.timestamp}_{run.plan.names.run_id}.txt")
        text.write_text(str(run.plan), encoding="utf-8")
        self._run.save(str(text), base_path=self._run.dir, policy="now")
        if self.asked.log_code_name is not None:
            self._run.log_code(name=self.asked.log_code_name)
        if self.asked.watch_kwargs is not None and run.plan.mode == "train":
            self._run.watch(run.model, **thaw(self.asked.watch_kwargs))
        if self._run.settings._offline:
            run.logger.info("W&B run %s is kept in %s", self._run.id, pathlib.Path(self._run.dir).parent)
        else:
            run.logger.info("W&B run %s: %s", self._run.id, self._run.url)

    def _define(self) -> None:
        given = self.asked.define_metric_cfg
        if isinstance(given, tuple):
            for one in given:
                self._run.define_metric(
                    one.name, step_metric=one.step_metric, step_sync=one.step_sync, hidden=one.hidden,
                    summary=one.summary, overwrite=one.overwrite,
                )  # fmt: skip
        elif given is not None:
            for name, summary in given.entries:
                self._run.define_metric(name, summary=summary)

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        self._run.log(dict(values), step=iteration)

    def metrics(self, values: Mapping[str, float], iteration: int, epoch: int) -> None:
        """By epoch: steps may only rise, so the row stays the iteration's and the charts' axis is the epoch."""
        if not self._by_epoch:
            self.scalars(values, iteration)
            return
        for name in values.keys() - self._defined:
            self._run.define_metric(name, step_metric="epoch")
            self._defined.add(name)
        self.scalars({**values, "epoch": epoch}, iteration)

    def close(self, reason: str | None) -> None:
        if self._run is None:
            return
        if reason == "preempted":
            self._run.mark_preempting()
        self._run.finish(exit_code=1 if reason is None else EXIT_CODES.get(reason, 0))


def arguments(asked: WandbBackend, plan: Plan) -> dict[str, Any]:
    """What wandb.init is given."""
    init = asked.init_kwargs or WandbInit()
    directory = pathlib.Path(init.dir or asked.save_dir or plan.names.work_dir)
    directory.mkdir(parents=True, exist_ok=True)
    return {
        "project": init.project, "entity": init.entity, "name": init.name or plan.title, "mode": init.mode,
        "id": init.id or plan.record, "resume": "allow", "dir": str(directory), "group": init.group,
        "job_type": init.job_type, "notes": init.notes, "save_code": init.save_code,
        "tags": None if init.tags is None else list(init.tags),
        "config": None if init.config is None else thaw(init.config),
    }  # fmt: skip
