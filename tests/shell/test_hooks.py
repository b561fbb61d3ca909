"""Built-in hooks in real runs, on one rank and on two: what they change, what they save, how a run ends by them."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import flexcore
from flexcore.hooks import EmptyCache, NaNGuard
from shell.hooks import empty_cache
from shell.hooks.nan_guard import NaNGuardHook, Watch, not_finite
from shell.locking import WorkDirLocked, work_dir_lock
from tests.ranks import run_alone, run_ranks, start_alone
from tests.shell import hook_toys, toys

MEAN = dict(mean=dict(type="tests.shell.hook_toys:Mean"))
EVEN = dict(dataset=dict(type="tests.shell.toys:Points", n=32), batch_size=4)  # batch norm needs two samples
EMA = dict(type="EMAHook", momentum=0.3)


def carry_out(cfg, ranks=1):
    return run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)[0]


# --- EMA -----------------------------------------------------------------------------------------

KINDS = {
    "exponential": dict(ema_type="ExponentialMovingAverage", momentum=0.3, interval=2),
    "annealed": dict(ema_type="MomentumAnnealingEMA", momentum=0.1, gamma=5, begin_iter=11),
    "mean": dict(ema_type="StochasticWeightAverage", interval=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_evaluations_run_with_the_average_and_give_the_weights_back(kind, tmp_path):
    own = KINDS[kind]
    by_hand = dict(type="tests.shell.hook_toys:ByHand", priority=55, kind=own["ema_type"], momentum=own.get("momentum", 1.0),
                   interval=own.get("interval", 1), gamma=own.get("gamma", 0), begin=own.get("begin_iter", 0))  # fmt: skip
    cfg = toys.config(tmp_path, custom_hooks=[dict(type="EMAHook", **own), by_hand])
    seen = run_alone(hook_toys.averaged_by_hand, cfg)
    assert len(seen) == 3 * (3 + 1)
    if kind == "mean":  # its formula rounds once more when written by hand
        seen = seen[3::4]
    assert all(seen)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_average_goes_on_where_it_was_to_the_bit(ranks, tmp_path):
    def config(work_dir, **more):
        """Batch norms alone: on two ranks each has buffers of its own, and a checkpoint holds rank 0's."""
        model = (
            dict(type="tests.shell.hook_toys:Normed")
            if ranks == 1
            else dict(type="tests.shell.toys:Net", dropout=0.3)
        )
        return toys.config(
            work_dir, model=model, val_evaluator=MEAN, train_dataloader=EVEN,
            custom_hooks=[dict(EMA, update_buffers=True), dict(type="tests.shell.toys:Wishes", **more)],
        )  # fmt: skip

    whole, split = tmp_path / "whole", tmp_path / "split"
    done = carry_out(config(whole), ranks)
    assert carry_out(config(split, stop=10), ranks)["reason"] == "requested"
    again = carry_out(config(split), ranks)
    assert (again["reason"], again["metrics"]) == ("done", done["metrics"])
    tensors = hook_toys.hook_tensors(whole, "epoch_3")
    assert "state.EMAHook.averaged.0.weight" in tensors
    assert ("state.EMAHook.averaged.1.running_mean" in tensors) == (ranks == 1)
    assert tensors == hook_toys.hook_tensors(split, "epoch_3")
    assert toys.weights(whole) == toys.weights(split)
    assert toys.differences(split) == []


def test_an_evaluation_of_a_checkpoint_uses_its_average_if_the_hook_is_there(tmp_path):
    cfg = toys.config(tmp_path / "run", val_evaluator=MEAN, custom_hooks=[EMA])
    trained = carry_out(cfg)["metrics"]
    named = dict(resume=False, load_from=str(tmp_path / "run" / "checkpoints" / "epoch_3"))
    evaluated = run_alone(toys.trained, cfg | named | dict(work_dir=str(tmp_path / "val")), "val")
    assert evaluated["metrics"] == trained
    plain = run_alone(
        toys.trained, cfg | named | dict(work_dir=str(tmp_path / "plain"), custom_hooks=[]), "val"
    )
    assert plain["metrics"] != trained


# --- early stopping ------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_ends_when_its_metric_gets_no_better_and_again_at_once(ranks, tmp_path):
    watch = dict(type="EarlyStoppingHook", monitor="hits", rule="greater", min_delta=1.0, patience=2)
    cfg = toys.config(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=9), custom_hooks=[watch])
    ended = carry_out(cfg, ranks)
    assert (ended["reason"], ended["epoch"], ended["code"]) == ("early_stopping", 3, 0)
    assert ended["checkpoints"] == ["epoch_1", "epoch_2", "epoch_3"]
    assert toys.differences(tmp_path) == []
    again = carry_out(cfg, ranks)
    assert (again["reason"], again["epoch"], again["checkpoints"]) == ("early_stopping", 3, [])
    assert toys.differences(tmp_path) == []
    assert carry_out(cfg | dict(custom_hooks=[dict(watch, patience=4)]), ranks)["epoch"] == 5
    assert toys.differences(tmp_path) == []


@pytest.mark.parametrize("by_epoch", [True, False])
def test_an_early_end_finishes_the_accumulation_window(by_epoch, tmp_path):
    """Nine iterations an epoch, windows of four: the scores of iterations 9 and 18 end the run at 20."""
    loop = (
        dict(by_epoch=True, max_epochs=9) if by_epoch else dict(by_epoch=False, max_iters=81, val_interval=9)
    )
    cfg = toys.config(
        tmp_path, train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=4),
        custom_hooks=[dict(type="EarlyStoppingHook", monitor="hits", rule="greater", min_delta=1.0, patience=1)],
    )  # fmt: skip
    ended = carry_out(cfg)
    assert (ended["reason"], ended["iter"]) == ("early_stopping", 20)
    assert toys.differences(tmp_path) == []
    assert carry_out(cfg)["iter"] == 20


def test_a_metric_that_is_not_there_is_told_or_refused(tmp_path):
    watch = dict(type="EarlyStoppingHook", monitor="acc")
    _, text = run_alone(toys.told, toys.config(tmp_path / "a", custom_hooks=[watch]))
    assert "EarlyStoppingHook: monitor is 'acc', and the validation gives hits." in text
    with pytest.raises(Exception, match="and the validation gives hits"):
        run_alone(toys.trained, toys.config(tmp_path / "b", custom_hooks=[dict(watch, strict=True)]))


# --- NaN guard -----------------------------------------------------------------------------------


def spoiled(work_dir, **more):
    """Sample 21 of 34 is not a number; in order, it is in iteration 5 of one rank, 2 of the second of two."""
    data = dict(dataset=dict(type="tests.shell.hook_toys:Spoiled", n=34, bad=21), batch_size=4,
                sampler=dict(type="DefaultSampler", shuffle=False))  # fmt: skip
    saves = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1))
    return toys.config(
        work_dir, train_dataloader=data, default_hooks=saves, custom_hooks=[dict(type="NaNGuardHook", **more)],
        val_dataloader=None, val_evaluator=None, val_cfg=None,
    )  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("check", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_run_and_is_not_saved(check, ranks, tmp_path):
    ended = carry_out(spoiled(tmp_path, check=check), ranks)
    at = 6 if ranks == 1 else 3
    assert (ended["reason"], ended["code"], ended["iter"]) == ("nonfinite", 6, at)
    assert ended["checkpoints"][-1] == f"iter_{at - 1}"
    (event,) = toys.recorded(tmp_path, "nonfinite")
    assert (event["iter"], event["what"], event["action"]) == (at, [check], "stop")
    where = {"0": [20, 21, 22, 23]} if ranks == 1 else {"1": [17, 19, 21, 23]}
    if check == "loss" or ranks == 1:
        assert event["samples"] == where
    else:
        assert event["samples"] == {"0": [16, 18, 20, 22], **where}
    assert hook_toys.finite(tmp_path)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_update_that_is_not_finite_can_be_left_out(ranks, tmp_path):
    ended = carry_out(spoiled(tmp_path, action="skip", check="both"), ranks)
    assert ended["reason"] == "done"
    at = [6, 15, 24] if ranks == 1 else [3, 8, 13]
    assert [event["iter"] for event in toys.recorded(tmp_path, "nonfinite")] == at
    assert hook_toys.finite(tmp_path)
    assert toys.differences(tmp_path) == []


def test_looking_now_and_then_saves_nothing_spoiled_between(tmp_path):
    ended = carry_out(spoiled(tmp_path, interval=4))
    assert (ended["reason"], ended["checkpoints"][-1]) == ("nonfinite", "iter_5")
    assert hook_toys.finite(tmp_path)


def test_a_guard_that_does_not_look_touches_nothing():
    """No tensor, no run: so no wait for the device and no word to other ranks."""
    hook = NaNGuardHook(NaNGuard(interval=3, check="both"))
    watch = Watch(hook, None, ())
    for _ in range(2):
        watch.loss(None)
        assert watch.passes()
    assert hook.state_dict() == {"updates": 2, "skipped": 0}


def test_large_is_not_infinite():
    large = torch.full((3,), 3e38)
    assert not not_finite([large, torch.zeros(0)])
    assert not not_finite([])
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not_finite([large, torch.tensor([1.0, bad])])


# --- the rest ------------------------------------------------------------------------------------


def test_buffers_become_the_mean_over_ranks_at_each_epochs_end(tmp_path):
    note = dict(type="tests.shell.hook_toys:Buffers")
    hooks = ["SyncBuffersHook", dict(note, name="before", priority=45), dict(note, name="after", priority=55)]
    carry_out(toys.config(
        tmp_path, model=dict(type="tests.shell.hook_toys:Normed"), custom_hooks=hooks, train_dataloader=EVEN,
        strategy=dict(type="DDPStrategy", broadcast_buffers=False), launcher="pytorch",
    ), ranks=2)  # fmt: skip
    before, after = (
        [json.loads((tmp_path / f"{name}.{rank}").read_text()) for rank in range(2)]
        for name in ("before", "after")
    )
    assert before[0] != before[1]
    assert after[0] == after[1]
    for epoch in range(3):
        means = [(a + b) / 2 for a, b in zip(before[0][epoch], before[1][epoch], strict=True)]
        assert after[0][epoch] == pytest.approx(means, rel=1e-6)


def test_the_cache_is_emptied_at_the_planned_moments_where_there_is_one(monkeypatch):
    emptied = []
    monkeypatch.setattr(empty_cache, "torch", SimpleNamespace(cuda=SimpleNamespace(
        is_initialized=lambda: len(emptied) < 3, empty_cache=lambda: emptied.append(1))))  # fmt: skip
    hook = empty_cache.EmptyCacheHook()
    for stage in EmptyCache.STAGES:
        getattr(hook, stage)(None, batch_idx=0)
    assert len(emptied) == 3


def test_a_profile_is_left_in_the_log_directory(tmp_path):
    profile = dict(type="ProfilerHook", by_epoch=False, profile_times=4, record_shapes=True, json_trace_path="deep/trace.json",
                   on_trace_ready=dict(type="log_trace", row_limit=3))  # fmt: skip
    cfg = toys.config(tmp_path / "a", custom_hooks=[profile], log_level="INFO", visualizer=None)
    _, text = run_alone(toys.told, cfg)
    assert "Self CPU time total" in text
    (trace,) = (tmp_path / "a").glob("*/deep/trace.json")
    assert json.loads(trace.read_text())["traceEvents"]
    board = dict(
        type="ProfilerHook", schedule=dict(wait=1, warmup=1, active=2, repeat=1), on_trace_ready="tb_trace"
    )
    run_ranks(2, toys.trained_rank, toys.config(tmp_path / "b", custom_hooks=[board]))
    assert len(list((tmp_path / "b").glob("*/tf_tracing/*.json"))) == 2


@pytest.mark.parametrize("ranks", [1, 2])
def test_log_lines_tell_samples_per_second_over_all_ranks(ranks, tmp_path):
    hook = dict(type="ThroughputHook", flops_per_sample=3e6, peak_flops=1e9)
    carry_out(toys.config(tmp_path, custom_hooks=[hook]), ranks)
    lines = [event["values"] for event in toys.recorded(tmp_path, "log")]
    assert lines
    for values in lines:
        assert values["samples_per_second"] > 0
        assert values["mfu"] == pytest.approx(values["samples_per_second"] * 3e6 / (1e9 * ranks))


def test_weights_alone_are_saved_and_never_resumed(tmp_path):
    saves = dict(checkpoint=dict(type="CheckpointHook", save_optimizer=False))
    cfg = toys.config(tmp_path, default_hooks=saves)
    assert carry_out(cfg)["checkpoints"] == ["epoch_1", "epoch_2", "epoch_3"]
    assert {path.name for path in (tmp_path / "checkpoints" / "epoch_3").iterdir()} == {
        "manifest.json",
        "model.safetensors",
    }
    assert carry_out(cfg)["checkpoints"] == ["epoch_1", "epoch_2", "epoch_3"]
    assert toys.differences(tmp_path) == []


@pytest.mark.parametrize("best", [None, "hits"])
def test_what_is_published_is_one_file_named_by_its_content(best, tmp_path):
    saves = dict(
        checkpoint=dict(
            type="CheckpointHook",
            save_best=best,
            rule="greater",
            published_keys=["meta", "state_dict", "hooks"],
        )
    )
    carry_out(toys.config(tmp_path, default_hooks=saves, custom_hooks=[EMA]))
    (event,) = toys.recorded(tmp_path, "publish")
    file = tmp_path / "checkpoints" / event["file"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    assert file.name == f"{event['name']}-{digest}.safetensors"
    assert event["name"].startswith("best_hits" if best else "epoch_3")
    tensors = load_file(file)
    assert {"0.weight", "hooks.state.EMAHook.averaged.0.weight"} <= tensors.keys()
    saved = load_file(tmp_path / "checkpoints" / event["name"] / "model.safetensors")
    assert all(torch.equal(tensors[name], saved[name]) for name in saved)
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata()
    manifest = json.loads((tmp_path / "checkpoints" / event["name"] / "manifest.json").read_text())
    assert told["format"] == "pt"
    assert [told[key] for key in ("iter", "plan_digest")] == [
        str(manifest[key]) for key in ("iter", "plan_digest")
    ]


def by_time(work_dir, keep=2, **more):
    """Forty milliseconds an iteration, and a checkpoint whenever the last one is sixty old; none by interval."""
    saves = dict(type="CheckpointHook", interval=-1, interval_minutes=0.001, max_keep_ckpts=keep)
    data = dict(type="tests.shell.toys:Points", n=34, noise=0.5, slow=0.01)
    model = dict(type="tests.shell.toys:Net", dropout=0.3)
    return toys.config(work_dir, model=model, train_dataloader=dict(dataset=data, batch_size=4),
                       default_hooks=dict(checkpoint=saves), **more)  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_checkpoint_is_saved_whenever_the_last_one_is_too_old(ranks, tmp_path):
    """At the same update on all ranks; the newest are kept; each had waited, as the report confirms."""
    wrapper = dict(optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=2)
    carry_out(by_time(tmp_path, optim_wrapper=wrapper), ranks)
    saves = toys.recorded(tmp_path, "save")
    timed = [event for event in saves if "waited" in event]
    assert len(timed) > 2
    assert all(event["waited"] >= 0.06 and event["iter"] % 2 == 0 for event in timed)
    assert [event["name"] for event in timed] == [f"timed_iter_{event['iter']}" for event in timed]
    standing = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert standing == {*(event["name"] for event in timed[-2:]), "epoch_3"}
    assert toys.differences(tmp_path) == []


def test_a_run_goes_on_from_a_checkpoint_by_wall_time_to_the_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    carry_out(by_time(whole))
    cfg = by_time(
        killed, keep=1, custom_hooks=[dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=20)]
    )
    assert start_alone(toys.trained, cfg).wait() == [-9]
    carry_out(cfg)
    _, resumed = toys.recorded(killed, "start")
    assert resumed["from_"].endswith(f"timed_iter_{resumed['iter']}")
    assert toys.weights(killed) == toys.weights(whole)
    assert len(list((killed / "checkpoints").glob("timed_iter_*"))) == 1
    assert toys.differences(killed) == []


def elsewhere(work_dir, out_dir, **more):
    saves = dict(checkpoint=dict(type="CheckpointHook", max_keep_ckpts=2, out_dir=str(out_dir)))
    return toys.config(work_dir, default_hooks=saves, **more)


def test_checkpoints_go_to_out_dir_and_are_found_there(tmp_path):
    """Under the last part of work_dir; a stopped run goes on from there, retires there and is as planned."""
    work_dir, out_dir = tmp_path / "runs" / "exp", tmp_path / "big"
    stop = [dict(type="tests.shell.toys:Wishes", stop=10)]
    assert carry_out(elsewhere(work_dir, out_dir, custom_hooks=stop))["iter"] == 11
    assert carry_out(elsewhere(work_dir, out_dir))["checkpoints"] == ["epoch_2", "epoch_3"]
    assert sorted(path.name for path in (out_dir / "exp").iterdir()) == [".lock", "epoch_2", "epoch_3"]
    assert not (work_dir / "checkpoints").exists()
    assert [event["iter"] for event in toys.recorded(work_dir, "start")] == [0, 11]
    assert toys.differences(work_dir) == []


def test_two_work_dirs_that_would_share_a_place_cannot_at_once(tmp_path):
    """Their last parts are the same, so one would delete the other's checkpoints."""
    with (
        work_dir_lock(tmp_path / "big" / "exp", "other"),
        pytest.raises(WorkDirLocked, match=r"big/exp/\.lock"),
    ):
        carry_out(elsewhere(tmp_path / "b" / "exp", tmp_path / "big"))


def test_a_smoke_run_keeps_apart_there_too(tmp_path):
    made = flexcore.plan(elsewhere("runs/exp", "big"), smoke=True)
    assert (made.names.work_dir, made.names.checkpoint_dir) == ("runs/exp/smoke", "big/exp/smoke")
