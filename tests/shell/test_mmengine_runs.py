"""What mmengine's runs did, as recorded, against runs of ours: the stages called, the counters after a resume."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
from typing import Any

from flexcore.hooks import STAGES
from tests.flexcore.test_mmengine import differs
from tests.oracles import claimed
from tests.ranks import run_alone
from tests.shell import toys

HERE = "tests.shell.test_mmengine_runs"


class Trace:
    """Writes down every stage it is called at, with the number of the batch."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def note(self, stage: str, run: Any, **given: Any) -> None:
        self.called.append(f"{stage}[{given['batch_idx']}]" if stage.endswith("_iter") else stage)
        if stage == "after_run":
            (run.work_dir / "trace.json").write_text(json.dumps(self.called))


def _noting(stage: str) -> Any:
    def method(self: Trace, run: Any, **given: Any) -> None:
        self.note(stage, run, **given)

    return method


for _stage in STAGES:
    setattr(Trace, _stage, _noting(_stage))


class Counters:
    """(epoch, iteration, batch of the epoch) of every training step, and which samples it was given."""

    def __init__(self, n: int) -> None:
        self.at, self.seen = [], []
        self.index = {float(point[0]): i for i, point in enumerate(toys.Points(n).inputs)}

    def before_train_iter(self, run: Any, batch_idx: int, data_batch: Any) -> None:
        self.at.append([run.epoch, run.iter, batch_idx])
        self.seen.append([self.index[float(point[0])] for point in data_batch[0]])

    def after_run(self, run: Any) -> None:
        told = {"at": self.at, "seen": self.seen, "final": [run.epoch, run.iter]}
        (run.work_dir / "counters.json").write_text(json.dumps(told))


def traced(tmp_path, given: dict[str, Any], **more: Any) -> list[str]:
    """The trace of a run as the recording describes it: four samples in twos, the same for each evaluation."""
    points = dict(dataset=dict(type=f"{toys.HERE}:Points", n=4), batch_size=2)
    loop = dict(by_epoch=True, max_epochs=given["epochs"])
    if given.get("loop") == "iter":
        loop = dict(by_epoch=False, max_iters=3, val_interval=2)
    evaluator = dict(hits=dict(type=f"{toys.HERE}:Hits"))
    cfg = toys.config(
        tmp_path, train_dataloader=points, train_cfg=loop, param_scheduler=None, val_dataloader=points,
        default_hooks=dict(checkpoint=given.get("ckpt"), logger=None), custom_hooks=[dict(type=f"{HERE}:Trace")],
        test_dataloader=points, test_evaluator=evaluator, test_cfg=dict(), **more,
    )  # fmt: skip
    run_alone(toys.trained, cfg, given["mode"])
    return json.loads((tmp_path / "trace.json").read_text())


@claimed("o09")
def test_stages_are_called_in_mmengines_order(case, tmp_path):
    given, more = case["input"], {}
    if "load" in given:
        trained = toys.config(tmp_path / "before", val_dataloader=None, val_evaluator=None, val_cfg=None)
        run_alone(toys.trained, trained | dict(train_cfg=dict(by_epoch=True, max_epochs=1)))
        more = dict(resume=False, load_from=str(tmp_path / "before" / "checkpoints" / "epoch_1"))
    assert traced(tmp_path / "run", given, **more) == case["expected"]["ok"]["trace"]


@claimed("o15")
def test_a_resume_goes_on_with_the_counters_and_samples_of_a_whole_run(case, tmp_path):
    given, expected = case["input"], case["expected"]["ok"]
    samples = 2 * given["epoch_length"]

    def counted(work_dir, epochs):
        cfg = toys.config(
            work_dir, train_dataloader=dict(dataset=dict(type=f"{toys.HERE}:Points", n=samples), batch_size=2),
            train_cfg=dict(by_epoch=True, max_epochs=epochs), param_scheduler=None, val_dataloader=None, val_evaluator=None,
            val_cfg=None, custom_hooks=[dict(type=f"{HERE}:Counters", n=samples)],
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", **given["CheckpointHook"])),
        )  # fmt: skip
        run_alone(toys.trained, cfg)
        return json.loads((work_dir / "counters.json").read_text())

    whole = counted(tmp_path / "whole", given["second_total"])
    counted(tmp_path / "split", given["first_total"])
    resumed = counted(tmp_path / "split", given["second_total"])
    begun = expected["resumed_start"]["start_iter"]
    assert whole["final"] == resumed["final"] == expected["uninterrupted_final"]
    assert resumed["seen"] == whole["seen"][begun:]
    assert len(whole["seen"]) == len(expected["batches_seen_uninterrupted"])
    length = given["epoch_length"]
    right = [[i // length, i, i % length] for i in range(begun, given["second_total"] * length)]
    assert resumed["at"] == right
    assert (right == expected["resumed_epoch_iter_batchidx"]) != differs("o15", case)
