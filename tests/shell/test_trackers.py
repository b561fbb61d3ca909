"""Weights & Biases, MLflow and TensorBoard hold what events.jsonl holds, read back from what the real packages wrote."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import pathlib
import signal
import struct
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from flexcore.problems import ConfigError
from shell.loggers.packages import installed
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

pytest.importorskip("wandb", reason="the loggers extra is not installed")
pytest.importorskip("mlflow", reason="the loggers extra is not installed")

HERE = "tests.shell.test_trackers"
WANDB = dict(
    type="WandbVisBackend", init_kwargs=dict(project="p", tags=["t"], config=dict(mine=3)),
    define_metric_cfg={"val/hits": "max"}, log_code_name="code", watch_kwargs=dict(log_freq=5),
)  # fmt: skip
MLFLOW = dict(
    type="MLflowVisBackend", exp_name="digits", tags=dict(who="me"), params=dict(mine=3), artifact_suffix=".log",
    tracked_config_keys=["optim_wrapper"],
)  # fmt: skip


def config(work_dir, *backends, **changes):
    hook = dict(type="LoggerHook", interval=4, **changes.pop("logger", {}))
    return toys.config(
        work_dir, visualizer=dict(vis_backends=list(backends)), default_hooks=dict(logger=hook), **changes,
    )  # fmt: skip


def trained_in(directory, cfg):
    """Run in a directory of one's own: wandb's log_code takes what is in the current one."""
    import os

    os.chdir(directory)
    pathlib.Path("script.py").write_text("print('code')\n")
    return toys.trained(cfg)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The work_dir of a run that a signal ended and that was run again, with every backend."""
    work_dir = tmp_path_factory.mktemp("twice")
    stop = dict(type="tests.shell.toys:SignalAt", at=[[12, signal.SIGTERM]])
    cfg = config(work_dir / "w", WANDB, MLFLOW, "TensorboardVisBackend", custom_hooks=[stop])
    assert run_alone(trained_in, work_dir, cfg, timeout=170)["reason"] == "preempted"
    assert run_alone(trained_in, work_dir, cfg, timeout=170)["reason"] == "done"
    return work_dir / "w"


def told(work_dir, axis="iter"):
    """(name, step) -> value, as events.jsonl has them."""
    found = {}
    for event in toys.recorded(work_dir, "log"):
        values = event["values"]
        found |= {(f"train/{name}", event["iter"]): values[name] for name in values if name != "eta"}
    for event in toys.recorded(work_dir, "validate"):
        found |= {(f"val/{name}", event[axis]): value for name, value in event["metrics"].items()}
    assert len(found) > 15
    return found


def records(file):
    """What a .wandb file holds: a LevelDB log (blocks of 32 KiB; CRC, length and kind before each piece) of protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", raw[at : at + 7])
        whole, at = whole + raw[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):
            record, whole = Record.FromString(whole), b""
            yield record


def wandb_files(work_dir):
    return sorted(file for file in work_dir.glob("wandb/offline-run-*/*.wandb"))


def wandb_rows(work_dir, prefixes=("train/", "val/")):
    """(name, step) -> value over all starts, and every row whole."""
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for file in wandb_files(work_dir) for record in records(file) if record.HasField("history")
    ]  # fmt: skip
    named = {(key, row["_step"]): row[key] for row in rows for key in row if key.startswith(prefixes)}
    return named, rows


def of_kind(work_dir, kind):
    return [
        [getattr(record, kind) for record in records(file) if record.HasField(kind)]
        for file in wandb_files(work_dir)
    ]


@pytest.mark.slow
def test_wandb_holds_every_scalar_at_every_step(twice):
    assert wandb_rows(twice)[0] == told(twice)


@pytest.mark.slow
def test_both_starts_are_one_run_of_wandb(twice):
    runs = [run for start in of_kind(twice, "run") for run in start]
    (record,) = {run.run_id for run in runs}
    assert (twice / record / "events.jsonl").exists()
    assert {(run.project, run.display_name, tuple(run.tags), run.resume) for run in runs} == {
        ("p", f"experiment_{record}", ("t",), True)
    }
    assert [exit.exit_code for start in of_kind(twice, "exit") for exit in start] == [75, 0]
    assert len(of_kind(twice, "preempting")[0]) == 1


@pytest.mark.slow
def test_wandb_has_parameters_plan_code_metrics_definitions_and_watched_gradients(twice):
    given = {
        item.key: json.loads(item.value_json)
        for start in of_kind(twice, "config") for update in start for item in update.update
    }  # fmt: skip
    given |= {
        item.key: json.loads(item.value_json)
        for run in of_kind(twice, "run")[0]
        for item in run.config.update
    }
    assert (given["optim_wrapper.optimizer.lr"], given["plan.seed"], given["mine"]) == (0.01, 7, 3)
    plans = sorted(twice.glob("wandb/offline-run-*/files/plan_*.txt"))
    assert len(plans) == 2
    assert plans[0].read_text().startswith("Plan         train: experiment_")
    assert [(one.name, one.summary.max) for one in of_kind(twice, "metric")[0]] == [("val/hits", True)]
    assert [artifact.name for artifact in of_kind(twice, "artifact")[0]] == ["code"]
    rows = wandb_rows(twice)[1]
    assert any(key.startswith("gradients/0.weight") for row in rows for key in row)


def mlflow_client(folder):
    import os

    os.environ["MLFLOW_ALLOW_FILE_STORE"], os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true", "true"
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=(folder / "mlruns").as_uri())


def mlflow_runs(folder, experiment):
    client = mlflow_client(folder)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def mlflow_values(client, run):
    found = {}
    for name in run.data.metrics:
        for one in client.get_metric_history(run.info.run_id, name):
            found[(name, one.step)] = one.value
    return found


@pytest.mark.slow
def test_mlflow_holds_every_scalar_at_every_step_of_both_starts_in_one_run(twice):
    client, (run,) = mlflow_runs(twice, "digits")
    assert mlflow_values(client, run) == told(twice)
    assert (run.info.status, run.data.tags["who"]) == ("FINISHED", "me")
    assert run.info.run_name == f"experiment_{run.data.tags['flexcore.record']}"


@pytest.mark.slow
def test_mlflow_has_parameters_plans_and_artifacts(twice):
    client, (run,) = mlflow_runs(twice, "digits")
    params = run.data.params
    assert (params["optim_wrapper.optimizer.lr"], params["mine"], params["plan.seed"]) == ("0.01", "3", "7")
    assert not any(name.startswith("model") for name in params)
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    starts = sorted(path.name for path in twice.iterdir() if (path / "events.jsonl").exists())
    assert kept == {f"plan_{start}.txt" for start in starts} | set(starts)
    inside = client.list_artifacts(run.info.run_id, starts[0])
    assert [file.path for file in inside] == [f"{starts[0]}/run.log"]


def tensorboard(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def tensorboard_values(directory):
    seen = tensorboard(directory)
    return {(tag, one.step): one.value for tag in seen.Tags()["scalars"] for one in seen.Scalars(tag)}


@pytest.mark.slow
def test_tensorboard_holds_every_scalar_at_every_step(twice):
    """Of both starts, in the directory of the first."""
    (directory,) = twice.glob("*/tensorboard")
    assert tensorboard_values(directory) == {
        key: pytest.approx(value, rel=1e-6) for key, value in told(twice).items()
    }


@pytest.mark.slow
def test_tensorboard_shows_parameters_by_record_and_the_plan_as_text(twice):
    (directory,) = twice.glob("*/tensorboard")
    seen = tensorboard(directory)
    content = seen.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    start = HParamsPluginData.FromString(content).session_start_info
    assert start.group_name == directory.parent.name
    assert start.hparams["optim_wrapper.optimizer.lr"].number_value == 0.01
    assert start.hparams["plan.mode"].string_value == "train"
    assert start.hparams["resume"].bool_value is True
    texts = [one.tensor_proto.string_val[0] for one in seen.Tensors("plan/text_summary")]
    assert [text.startswith(b"    Plan         train: experiment_") for text in texts] == [True, True]
    assert list(seen.PluginTagToContent("text")) == ["plan/text_summary"]


class Breaks:
    """Fails in the third epoch."""

    def before_train_iter(self, run, **_):
        if run.iter == 20:
            raise ArithmeticError("broken")


def broken(cfg):
    with pytest.raises(ArithmeticError):
        toys.trained(cfg)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The work_dir of a run that raised; evaluations by epoch, names without hierarchy."""
    work_dir = tmp_path_factory.mktemp("failed")
    cfg = config(
        work_dir / "w", dict(WANDB, log_code_name=None, watch_kwargs=None, save_dir=str(work_dir / "elsewhere")),
        dict(type="MLflowVisBackend", tracking_uri=(work_dir / "store" / "mlruns").as_uri(), run_name="mine"),
        dict(type="TensorboardVisBackend", save_dir=str(work_dir / "board")),
        custom_hooks=[dict(type=f"{HERE}:Breaks")], logger=dict(log_metric_by_epoch=True),
        log_processor=dict(log_with_hierarchy=False),
    )  # fmt: skip
    run_alone(broken, cfg, timeout=170)
    return work_dir


@pytest.mark.slow
def test_a_run_that_fails_closes_every_backend_and_says_so(failed):
    _, (run,) = mlflow_runs(failed / "store", "Default")
    assert (run.info.status, run.info.run_name) == ("FAILED", "mine")
    assert [exit.exit_code for start in of_kind(failed / "elsewhere", "exit") for exit in start] == [1]


@pytest.mark.slow
def test_evaluations_can_be_counted_by_epoch_and_names_go_without_hierarchy(failed):
    expected = {
        (name.partition("/")[2], step): value for (name, step), value in told(failed / "w", "epoch").items()
    }
    client, (run,) = mlflow_runs(failed / "store", "Default")
    assert mlflow_values(client, run) == expected
    assert tensorboard_values(failed / "board") == {
        key: pytest.approx(value, rel=1e-6) for key, value in expected.items()
    }
    checks = [(row["_step"], row["epoch"]) for row in wandb_rows(failed / "elsewhere")[1] if "hits" in row]
    assert checks == [(9, 1), (18, 2)]
    defined = {one.name: one.step_metric for one in of_kind(failed / "elsewhere", "metric")[0]}
    assert defined["hits"] == "epoch"


@pytest.mark.slow
def test_only_rank_0_writes(tmp_path):
    cfg = config(
        tmp_path / "w", "TensorboardVisBackend", log_level="INFO", logger=dict(out_dir=str(tmp_path / "out"))
    )
    run_ranks(2, toys.trained_rank, cfg)
    (log_dir,) = (path for path in (tmp_path / "w").iterdir() if (path / "events.jsonl").exists())
    assert len(list((log_dir / "tensorboard").iterdir())) == 1
    lines = (log_dir / "run.log").read_text().splitlines()
    assert sum("iter 4/" in line for line in lines) == 1
    copied = sorted((tmp_path / "out" / "w" / log_dir.name).iterdir())
    assert [file.name for file in copied] == ["plan.json", "run.log"]


def test_a_package_that_is_missing_is_told_before_anything_is_written(tmp_path, monkeypatch):
    for name in ("wandb", "mlflow", "google_crc32c", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as caught:
        toys.trained(config(tmp_path / "w", WANDB, MLFLOW, "TensorboardVisBackend"))
    assert str(caught.value).splitlines() == [
        'visualizer.vis_backends.0: WandbVisBackend needs the package wandb, which is not installed. pip install "flexcore[loggers]", or remove the backend. [FK013]',
        'visualizer.vis_backends.1: MLflowVisBackend needs the package mlflow, which is not installed. pip install "flexcore[loggers]", or remove the backend. [FK013]',
        'visualizer.vis_backends.2: TensorboardVisBackend needs the package google_crc32c or tensorboard, which is not installed. pip install "flexcore[train]", or remove the backend. [FK013]',
    ]
    assert not (tmp_path / "w").exists()


def test_a_directory_named_as_the_package_is_no_package(tmp_path, monkeypatch):
    """wandb leaves ./wandb behind, which Python takes for a package without contents."""
    (tmp_path / "some_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not installed("some_tracker")
    assert installed("tensorboard")


def test_a_backend_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        toys.trained(
            config(
                tmp_path / "w",
                "LocalVisBackend",
                dict(type="TensorboardVisBackend", save_dir=str(tmp_path / "file")),
            )
        )
    assert str(caught.value) == (
        "visualizer.vis_backends.1: TensorboardVisBackend cannot be opened: FileExistsError: [Errno 17] File exists: "
        f"'{tmp_path / 'file'}'. Correct its settings, or remove it. [FK013]"
    )


class Unplugs:
    """Closes TensorBoard's file under the run's hands, as a full disk would, in the second epoch."""

    def before_train_iter(self, run, **_):
        if run.iter == 10:
            logger = next(hook for hook in run.stages.hooks if type(hook).__name__ == "LoggerHook")
            logger.sinks.open[0][1]._file.close()


def test_a_backend_that_fails_is_told_of_once_and_training_goes_on(tmp_path):
    cfg = config(tmp_path / "w", "TensorboardVisBackend", custom_hooks=[dict(type=f"{HERE}:Unplugs")])
    result, text = run_alone(toys.told, cfg)
    assert result["reason"] == "done"
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == [
        "ERROR TensorboardVisBackend: ValueError: write to closed file; nothing more is written to it"
    ]
    assert toys.differences(tmp_path / "w") == []
