"""What a config says of processes and of compiling reaches torch: seen from inside real runs."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import datetime as dt
import json
import multiprocessing

import pytest
import torch
from torch import _dynamo
from torch.utils.data import get_worker_info

import shell
from flexcore.problems import ConfigError
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

HERE = "tests.shell.test_settings"


class Started(toys.Points):
    """Tells by its labels how the worker that reads it was started: 0 fork, 1 spawn, 2 forkserver."""

    def __getitem__(self, index):
        assert get_worker_info() is not None
        kind = {"ForkProcess": 0, "SpawnProcess": 1, "ForkServerProcess": 2}
        return self.inputs[index], torch.tensor(kind[type(multiprocessing.current_process()).__name__])


class Labels:
    """Notes every label a batch brings."""

    def before_train(self, run):
        self.seen = set()

    def after_train_iter(self, run, data_batch, **_):
        self.seen |= set(data_batch[1].tolist())

    def after_train(self, run):
        (run.work_dir / "labels").write_text(json.dumps(sorted(self.seen)))


@pytest.mark.parametrize(("method", "label"), [("fork", 0), ("spawn", 1), ("forkserver", 2)])
def test_workers_start_as_mp_start_method_says(method, label, tmp_path):
    data = dict(type=f"{HERE}:Started", n=4)
    cfg = toys.config(
        tmp_path, train_dataloader=dict(dataset=data, batch_size=2, num_workers=1), custom_hooks=[dict(type=f"{HERE}:Labels")],
        env_cfg=dict(mp_cfg=dict(mp_start_method=method)), train_cfg=dict(by_epoch=True, max_epochs=1),
        val_dataloader=None, val_cfg=None, val_evaluator=None,
    )  # fmt: skip
    run_alone(toys.trained, cfg)
    assert json.loads((tmp_path / "labels").read_text()) == [label]


class Grouped:
    """Notes the process group's backend and how long it waits."""

    def before_train(self, run):
        dist = torch.distributed
        backend = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
        told = [dist.get_backend(), backend.options._timeout / dt.timedelta(seconds=1)]
        (run.work_dir / f"group.{run.rank}").write_text(json.dumps(told))


def test_the_group_has_the_backend_and_the_timeout_of_dist_cfg(tmp_path):
    cfg = toys.config(
        tmp_path,
        env_cfg=dict(dist_cfg=dict(backend="gloo", timeout=77)),
        custom_hooks=[dict(type=f"{HERE}:Grouped")],
    )
    run_ranks(2, toys.trained_rank, cfg)
    assert [json.loads((tmp_path / f"group.{rank}").read_text()) for rank in range(2)] == [["gloo", 77.0]] * 2


def compiled(cfg, sizes):
    """What a backend of our own is asked for when the config is trained, batch by batch of these sizes."""
    asked = []

    def noting(graph, inputs, **settings):
        asked.append(settings)
        return graph.forward

    _dynamo.register_backend(noting, name="noting")
    _dynamo.reset()
    loader = [(torch.randn(size, toys.FEATURES), torch.zeros(size, dtype=torch.long)) for size in sizes]
    from flexcore import Supplied
    from shell.execute import run

    run(cfg | dict(train_dataloader=Supplied()), train_dataloader=loader)
    return asked


def compiling(work_dir, model="Net", **settings):
    return toys.config(
        work_dir, compile=settings, train_cfg=dict(by_epoch=True, max_epochs=1), val_dataloader=None, val_cfg=None,
        val_evaluator=None, model=dict(type=f"{HERE}:{model}" if model != "Net" else "tests.shell.toys:Net"),
    )  # fmt: skip


class Broken(toys.Net):
    """Its graph breaks in the middle."""

    def forward(self, inputs):
        _dynamo.graph_break()
        return super().forward(inputs)


def test_each_key_of_compile_reaches_torch(tmp_path):
    """The backend is asked, with its options; dynamic decides about another size; disable asks nobody."""

    def asked(name, **settings):
        return run_alone(compiled, compiling(tmp_path / name, backend="noting", **settings), [2, 3, 4])

    assert asked("options", options={"a": 1}, dynamic=True, target="forward") == [{"options": {"a": 1}}]
    assert asked("mode", mode="max-autotune", dynamic=False) == [{"mode": "max-autotune"}] * 3
    assert asked("disabled", disable=True) == []


def test_fullgraph_reaches_torch(tmp_path):
    assert run_alone(compiled, compiling(tmp_path / "cut", model="Broken", backend="noting"), [2])
    with pytest.raises(_dynamo.exc.Unsupported):
        run_alone(
            compiled, compiling(tmp_path / "full", model="Broken", backend="noting", fullgraph=True), [2]
        )


def test_a_backend_that_is_none_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError) as caught:
        shell.run(compiling(tmp_path / "w", backend="eagr"))
    assert (
        str(caught.value)
        == 'compile.backend: "eagr" is not a backend of torch.compile. Did you mean "eager"? [FK013]'
    )
    assert not (tmp_path / "w").exists()
