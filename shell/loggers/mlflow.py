"""Scalars, parameters and the plan to MLflow; by default to local files under the work_dir, without a server.

All starts of a training are one run of MLflow, found by a tag that holds the record's name. A parameter cannot change
there, so a start with another config leaves those of the first; each start's plan is an artifact of its own.
"""

import os
import pathlib
import posixpath
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from flexcore.components import thaw
from flexcore.hparams import hparams
from flexcore.log_specs import MLflowBackend
from flexcore.reporting import as_suffixes
from shell.results import EXIT_CODES
from shell.run import Run

RECORD = "flexcore.record"
ENVIRONMENT = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # its newer stores need a database; files are what it can do alone
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
LONGEST_NAME, LONGEST_VALUE, PARAMS_AT_ONCE = 250, 6000, 100
STOPPED = ("preempted", "interrupted")


class MLflowSink:
    """One run of MLflow over all starts of a training."""

    def __init__(self, asked: MLflowBackend) -> None:
        self.asked, self._names = asked, dict[str, str]()

    def begin(self, run: Run) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        plan, self._metric = run.plan, Metric
        self._log_dir, self._work_dir = run.log_dir, run.work_dir
        self._by_epoch = plan.logging.metric_axis == "epoch"
        folder = pathlib.Path(self.asked.save_dir or plan.names.work_dir, "mlruns").absolute()
        self._client = MlflowClient(tracking_uri=self.asked.tracking_uri or folder.as_uri())
        self._run_id = self._joined(plan.record or "", self.asked.run_name or plan.title)
        self._params([*_entries(self.asked.params), *hparams(plan, self.asked.tracked_config_keys)])
        self._client.log_text(self._run_id, str(plan), f"plan_{plan.names.timestamp}_{plan.names.run_id}.txt")
        run.logger.info("MLflow run %s is kept in %s", self._run_id, self._client.tracking_uri)

    def _joined(self, record: str, name: str) -> str:
        """The id of the record's run, begun here unless an earlier start did."""
        client, asked = self._client, self.asked
        experiment = client.get_experiment_by_name(asked.exp_name)
        where = (
            client.create_experiment(asked.exp_name, artifact_location=asked.artifact_location)
            if experiment is None
            else experiment.experiment_id
        )
        known = client.search_runs([where], f"tags.`{RECORD}` = '{record}'")
        if known:
            client.update_run(known[0].info.run_id, status="RUNNING")
            return str(known[0].info.run_id)
        tags = {str(key): str(value) for key, value in _entries(asked.tags)}
        return str(client.create_run(where, run_name=name, tags={**tags, RECORD: record}).info.run_id)

    def _params(self, given: Iterable[tuple[Any, Any]]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self._run_id).data.params
        new = {self._name(str(key)): str(value)[:LONGEST_VALUE] for key, value in given}
        rows = [Param(key, value) for key, value in new.items() if key not in known]
        for first in range(0, len(rows), PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=rows[first : first + PARAMS_AT_ONCE])

    def _name(self, name: str) -> str:
        """A name MLflow takes: it knows letters, digits and a few signs, and no path that is not plain."""
        if name not in self._names:
            plain = re.sub(r"[^/\w.\- ]", "_", name)[:LONGEST_NAME]
            plain = plain if posixpath.normpath(plain) == plain else plain.replace("/", "_")
            self._names[name] = plain.strip(".") or "_"
        return self._names[name]

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        now = int(time.time() * 1000)
        rows = [self._metric(self._name(name), value, now, iteration) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=rows)

    def metrics(self, values: Mapping[str, float], iteration: int, epoch: int) -> None:
        self.scalars(values, epoch if self._by_epoch else iteration)

    def close(self, reason: str | None) -> None:
        self._artifacts()
        ended = reason is not None and EXIT_CODES.get(reason, 0) == 0
        status = "FINISHED" if ended else "KILLED" if reason in STOPPED else "FAILED"
        self._client.set_terminated(self._run_id, status)

    def _artifacts(self) -> None:
        """Files of this start's log directory, under its name."""
        if self._log_dir is None:
            return
        suffixes = as_suffixes(self.asked.artifact_suffix)
        for file in sorted(self._log_dir.rglob("*")):
            if file.is_file() and file.name.endswith(suffixes):
                place = file.parent.relative_to(self._work_dir).as_posix()
                self._client.log_artifact(self._run_id, str(file), place)


def _entries(given: Any) -> list[tuple[Any, Any]]:
    return [] if given is None else list(thaw(given).items())
