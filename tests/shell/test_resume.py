"""A run that was ended anywhere and run again ends with the bits of one that was not, as the report confirms."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import functools
import json
import pathlib
import random
import shutil
import signal
import time

import pytest

from flexcore.problems import ConfigError
from flexcore.sampling import derived_seed
from shell.results import CheckpointRefused
from tests.ranks import run_alone, run_ranks, start_alone, start_ranks
from tests.shell import toys

COUNTING = dict(type="tests.shell.toys:Counting")


def random_config(work_dir, workers=0, **changes):
    """Dropout, noise in every sample, a checkpoint every third iteration, two kept, a hook with state."""
    data = dict(type="tests.shell.toys:Points", n=34, noise=0.5, slow=0.001)
    base = dict(
        model=dict(type="tests.shell.toys:Net", dropout=0.3),
        train_dataloader=dict(dataset=data, batch_size=4, num_workers=workers),
        default_hooks=dict(
            checkpoint=dict(
                type="CheckpointHook",
                by_epoch=False,
                interval=3,
                max_keep_ckpts=2,
                save_best="hits",
                rule="greater",
            )
        ),
        custom_hooks=[COUNTING, dict(type="tests.shell.toys:Started")],
    )
    return toys.config(work_dir, **(base | changes))


def start(cfg, ranks):
    return start_alone(toys.trained, cfg) if ranks == 1 else start_ranks(ranks, toys.trained_rank, cfg)


def finish(cfg, ranks=1):
    results = [run_alone(toys.trained, cfg)] if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)
    assert {result["reason"] for result in results} == {"done"}
    return results[0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(work_dir, seconds of training) of the same run left in peace, for so many ranks and workers."""

    @functools.cache
    def run(ranks, workers):
        work_dir = tmp_path_factory.mktemp("uninterrupted")
        finish(random_config(work_dir, workers), ranks)
        began, ended = (float((work_dir / f"{name}.0").read_text()) for name in ("started", "ended"))
        return work_dir, ended - began

    return run


def kill_within(cfg, ranks, seconds, moment):
    """Start, and kill every rank once `moment` of its training's seconds is over; it may have ended before."""
    mark = pathlib.Path(cfg["work_dir"], "started.0")
    mark.unlink(missing_ok=True)
    with start(cfg, ranks) as running:
        deadline = time.monotonic() + 60
        while (
            not mark.exists()
            and time.monotonic() < deadline
            and None in [process.exitcode for process in running.processes]
        ):
            time.sleep(0.002)
        time.sleep(seconds * moment)
        running.kill(signal.SIGKILL)
        running.wait()


KILLS = (
    [(1, 0, seed) for seed in range(7)]
    + [(1, 2, seed) for seed in range(7, 10)]
    + [(2, 0, seed) for seed in range(10, 13)]
)


@pytest.mark.parametrize(("ranks", "workers", "seed"), KILLS)
def test_killed_at_two_random_moments_a_run_ends_with_the_same_bits(
    ranks, workers, seed, uninterrupted, tmp_path
):
    """kill -9 twice, each time anywhere in what is left; then to the end."""
    whole, seconds = uninterrupted(ranks, workers)
    cfg, moments = random_config(tmp_path, workers), random.Random(seed)
    for _ in range(2):
        kill_within(cfg, ranks, seconds, moments.random())
    finish(cfg, ranks)
    same(tmp_path, whole, ranks)


def same(work_dir, whole, ranks=1):
    """Weights, hooks' state and what was left standing are those of the whole run; nothing differs from the plan."""
    assert toys.weights(work_dir) == toys.weights(whole)
    assert toys.differences(work_dir) == []
    for rank in range(ranks):
        assert (work_dir / f"counted.{rank}").read_text() == (whole / f"counted.{rank}").read_text()
    assert standing(work_dir) == standing(whole)


def standing(work_dir):
    return sorted(path.name for path in (work_dir / "checkpoints").iterdir())


MOMENTS = {
    "before anything": ("before_train_iter", 0),
    "before the first checkpoint": ("before_train_iter", 2),
    "between checkpoints": ("before_train_iter", 13),
    "in a validation": ("before_val_iter", 4),
    "after a validation, before its best is saved": ("after_val_epoch", 0),
    "at an epoch's end": ("after_train_epoch", 1),
    "after the last step": ("after_train_epoch", 2),
    "in the last validation": ("before_val_iter", 7),
    "at the very end": ("after_run", 0),
}


@pytest.mark.parametrize(("stage", "nth"), MOMENTS.values(), ids=MOMENTS)
def test_killed_at_a_chosen_moment(stage, nth, uninterrupted, tmp_path):
    """Whatever was being done is done again, or was done; nothing twice, nothing never."""
    whole, _ = uninterrupted(1, 0)
    hooks = [COUNTING, dict(type="tests.shell.toys:KillIn", stage=stage, nth=nth)]
    cfg = random_config(tmp_path, custom_hooks=hooks)
    assert start_alone(toys.trained, cfg).wait() == [-signal.SIGKILL]
    finish(cfg)
    same(tmp_path, whole)


@pytest.mark.parametrize("killed", [False, True], ids=["at once", "after a kill in its last validation"])
def test_a_finished_run_does_nothing_more(killed, tmp_path):
    """Run again it reports done: no step, no validation, no save, and every file as it was."""
    kill = dict(type="tests.shell.toys:KillIn", stage="before_val_iter", nth=7)
    cfg = random_config(tmp_path, custom_hooks=[COUNTING, *[kill] * killed])
    if killed:
        assert start_alone(toys.trained, cfg).wait() == [-signal.SIGKILL]
    finish(cfg)
    kept = contents(tmp_path / "checkpoints")
    again = finish(cfg)
    assert (again["iter"], again["checkpoints"]) == (27, [])
    assert len(toys.recorded(tmp_path, "validate")) == 3
    assert len(toys.steps(tmp_path)) == 27
    assert contents(tmp_path / "checkpoints") == kept
    assert toys.differences(tmp_path) == []


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_stop_inside_an_accumulation_window_finishes_it_first(tmp_path):
    """SIGTERM in the first of four micro-batches: the window's other three run, then the state is saved."""

    def accumulated(work_dir, *hooks):
        wrapper = dict(
            optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=4, clip_grad=dict(max_norm=0.1)
        )
        return random_config(work_dir, optim_wrapper=wrapper, custom_hooks=[COUNTING, *hooks])

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(accumulated(whole))
    signal_at = dict(type="tests.shell.toys:SignalAt", at=[[12, signal.SIGTERM.value]])
    result = run_alone(toys.trained, accumulated(stopped, signal_at))
    assert (result["reason"], result["iter"], result["code"]) == ("preempted", 16, 75)
    finish(accumulated(stopped))
    same(stopped, whole)


def test_bfloat16_under_autocast_resumes_to_the_bit(tmp_path):
    wrapper = dict(type="AmpOptimWrapper", dtype="bfloat16", optimizer=dict(type="AdamW", lr=0.01))
    kill = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=14)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(random_config(whole, optim_wrapper=wrapper, custom_hooks=[COUNTING]))
    cfg = random_config(killed, optim_wrapper=wrapper, custom_hooks=[COUNTING, kill])
    assert start_alone(toys.trained, cfg).wait() == [-signal.SIGKILL]
    finish(cfg)
    same(killed, whole)


LOADERS = {
    "in order": (dict(), 14),
    "shuffled by the global stream": (dict(shuffle=True), 14),
    "shuffled by the global stream, from an epoch's start": (dict(shuffle=True), 20),
    "shuffled by its own generator": (dict(shuffle=True, generator=5), 14),
    "shuffled by its own generator, from an epoch's start": (dict(shuffle=True, generator=5), 20),
    "with workers": (dict(shuffle=True, num_workers=1), 14),
}


@pytest.mark.parametrize(("loader", "nth"), LOADERS.values(), ids=LOADERS)
def test_a_supplied_loader_is_replayed_exactly(loader, nth, tmp_path):
    """Its pass is drawn again as it was, read past what was trained on, noise and dropout going on as they were."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kill = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=nth)
    run_alone(toys.supplied, random_config(whole, custom_hooks=[COUNTING]), loader)
    cfg = random_config(killed, custom_hooks=[COUNTING, kill])
    assert start_alone(toys.supplied, cfg, loader).wait() == [-signal.SIGKILL]
    assert run_alone(toys.supplied, cfg, loader) == {"reason": "done", "iter": 27}
    assert toys.weights(killed) == toys.weights(whole)
    assert toys.differences(killed) == []


def damage(checkpoint):
    """Flip one bit in the middle of the model."""
    file = checkpoint / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    file.write_bytes(data)


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(uninterrupted, tmp_path):
    whole, _ = uninterrupted(1, 0)
    kill = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=16)
    cfg = random_config(tmp_path, custom_hooks=[COUNTING, kill])
    assert start_alone(toys.trained, cfg).wait() == [-signal.SIGKILL]
    damage(tmp_path / "checkpoints" / "iter_15")
    result, text = run_alone(toys.told, cfg)
    starts = toys.recorded(tmp_path, "start")
    assert [start["iter"] for start in starts] == [0, 12]
    assert toys.weights(tmp_path) == toys.weights(whole)
    assert toys.differences(tmp_path) == []
    assert (tmp_path / "checkpoints" / "iter_15.damaged-1").is_dir()
    assert result["reason"] == "done"
    assert "iter_15 is damaged (file 'model.safetensors' has SHA-256" in text
    assert "set aside as iter_15.damaged-1, falling back" in text


def test_a_run_that_took_the_seed_of_a_damaged_checkpoint_does_not_go_on_with_another(tmp_path):
    """Its weights came from the one seed and its plan would name the other; the next start is fresh and whole."""
    cfg = toys.config(tmp_path, randomness=None, train_cfg=dict(by_epoch=True, max_epochs=1))
    run_alone(toys.trained, cfg)
    damage(tmp_path / "checkpoints" / "epoch_1")
    longer = {**cfg, "train_cfg": dict(by_epoch=True, max_epochs=2)}
    with pytest.raises(CheckpointRefused, match="Every checkpoint was damaged and is set aside"):
        run_alone(toys.trained, longer)
    assert finish(longer)["iter"] == 18
    assert toys.differences(tmp_path) == []


@pytest.mark.parametrize(
    "how", [dict(resume=None, load_from="{}"), dict(resume="{}")], ids=["load_from", "resume"]
)
def test_a_damaged_checkpoint_that_was_named_is_refused(how, uninterrupted, tmp_path):
    """Nothing else is used in its place, and nothing is renamed: exit code 4."""
    whole, _ = uninterrupted(1, 0)
    named = tmp_path / "iter_24"
    shutil.copytree(whole / "checkpoints" / "iter_24", named)
    damage(named)
    how = {key: value and value.format(named) for key, value in how.items()}
    with pytest.raises(CheckpointRefused, match=r"iter_24.*its bytes changed"):
        run_alone(toys.trained, random_config(tmp_path / "new", **how))
    assert named.is_dir()
    assert not (tmp_path / "new").joinpath("checkpoints").exists()


def test_another_model_is_refused_before_anything_is_written(tmp_path):
    """The field is named, with what it was and what it is."""
    finish(random_config(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    wider = random_config(tmp_path, model=dict(type="tests.shell.toys:Net", dropout=0.3, width=9))
    with pytest.raises(ConfigError, match=r"resume: .*was trained with model .*\(incompatible\)"):
        run_alone(toys.trained, wider)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_longer_run_goes_on_where_the_shorter_ended(tmp_path):
    """Iterations go on counting; the schedule is the longer run's from there on."""
    finish(random_config(tmp_path))
    result = finish(random_config(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=5)))
    assert (result["iter"], result["epoch"]) == (45, 5)
    assert [i for i, _, _ in toys.steps(tmp_path)] == list(range(45))
    assert [event["iter"] for event in toys.recorded(tmp_path, "validate")] == [9, 18, 27, 36, 45]
    assert json.loads((tmp_path / "counted.0").read_text()) == [45, sum(range(45))]
    assert toys.differences(tmp_path) == []


def test_on_other_ranks_each_stream_is_derived_from_seed_iteration_and_rank(tmp_path):
    """One rank's streams cannot serve two: a resume says so and seeds each rank by a pure function."""
    cfg = toys.config(tmp_path, global_batch_size=4, train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=34), batch_size=2),
                      custom_hooks=[dict(type="tests.shell.toys:Seeds"), dict(type="tests.shell.toys:Wishes", stop=10)])  # fmt: skip
    assert run_alone(toys.trained, cfg)["iter"] == 11
    run_ranks(2, toys.trained_rank, cfg)
    seeds = [int((tmp_path / f"seed{rank}").read_text()) for rank in range(2)]
    assert seeds == [derived_seed(7, 11, rank) for rank in range(2)]
    assert toys.differences(tmp_path) == []
