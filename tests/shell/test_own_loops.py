"""Loops of the user's own: driven through the run's verbs, recorded, saved and resumed as the built-in ones are."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import signal

import pytest

from flexcore.problems import ConfigError
from shell.report import report
from tests.ranks import run_alone, run_ranks, start_alone
from tests.shell import toys

LOOPS = "tests.shell.loop_toys"


def own(work_dir, loop="Simple", **changes):
    cfg = dict(type=f"{LOOPS}:{loop}", **changes.pop("args", dict(max_epochs=3)))
    return toys.config(work_dir, train_cfg=cfg, **changes)


def carry_out(cfg, ranks=1):
    return run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)[0]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_simplest_loop_is_the_built_in_one(ranks, accumulate, tmp_path):
    """Same batches, LR, windows, validations and saves, so the same weights to the bit."""
    optimizer = dict(optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=accumulate)
    carry_out(own(tmp_path / "own", optim_wrapper=optimizer), ranks)
    carry_out(toys.config(tmp_path / "built in", optim_wrapper=optimizer), ranks)
    assert toys.weights(tmp_path / "own") == toys.weights(tmp_path / "built in")
    assert toys.steps(tmp_path / "own") == toys.steps(tmp_path / "built in")
    for kind in ("validate", "save"):
        ours, theirs = ([{k: v for k, v in e.items() if k != "seconds"} for e in toys.recorded(tmp_path / name, kind)]
                        for name in ("own", "built in"))  # fmt: skip
        names = ["iter", "name", "epoch"] if kind == "save" else ["iter", "epoch", "metrics", "samples"]
        if accumulate == 1:
            assert [[e[n] for n in names] for e in ours] == [[e[n] for n in names] for e in theirs]
    assert toys.differences(tmp_path / "own") == []


def test_the_report_says_what_was_not_planned(tmp_path):
    """Steps and LR are compared; what the loop decides is not, and that is told."""
    carry_out(own(tmp_path))
    text, code = report(tmp_path)
    assert (text.splitlines()[1:], code) == (
        ["  compared     27 iterations, 3 validations, 3 saves, 1 start",
         "  not planned  samples, validations, saves, end: the loop's own", "  differences  0"], 0,
    )  # fmt: skip


@pytest.mark.parametrize(("loop", "args"), [
    ("Simple", dict(max_epochs=3)), ("Teaching", dict(max_epochs=3)), ("Picky", dict(max_iters=14)),
])  # fmt: skip
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_resumes_to_the_bit(loop, args, ranks, tmp_path):
    """The loop's own state, the teacher's weights among it, and the place in the dataloader are in the checkpoint."""
    hooks = dict(checkpoint=dict(type="CheckpointHook", interval=4, by_epoch=False, max_keep_ckpts=3))
    killed = [dict(type=f"{toys.HERE}:KillIn", stage="before_train_iter", nth=10)]
    whole = own(tmp_path / "whole", loop, args=args, default_hooks=hooks)
    carry_out(whole, ranks)
    cut = own(tmp_path / "cut", loop, args=args, default_hooks=hooks, custom_hooks=killed)
    if ranks == 1:
        assert start_alone(toys.exits, cut).wait() == [-signal.SIGKILL]
    else:
        with pytest.raises(Exception):
            carry_out(cut, ranks)
    carry_out(cut, ranks)
    assert toys.weights(tmp_path / "cut") == toys.weights(tmp_path / "whole")
    assert toys.differences(tmp_path / "cut") == []
    if loop == "Teaching":
        assert (tmp_path / "cut/teacher").read_text() == (tmp_path / "whole/teacher").read_text()


def refused(cfg):
    with pytest.raises(ConfigError) as caught:
        carry_out(cfg)
    return [str(problem) for problem in caught.value.problems]


def test_a_loop_without_state_is_not_resumed(tmp_path):
    """Told before anything is written, with what would make it resumable; fresh it runs."""
    cfg = own(tmp_path, "Forgetful")
    carry_out(cfg)
    before = sorted(tmp_path.rglob("*"))
    assert refused(cfg) == [
        (
            f"train_cfg.type: {LOOPS}:Forgetful has no state_dict and no load_state_dict, so "
            f"{tmp_path}/checkpoints/epoch_3 cannot be resumed. Define both ({{}} where the run and its dataloader hold "
            "all its state), or set resume=False. [FC013]"
        )
    ]
    assert sorted(tmp_path.rglob("*")) == before


WRONG = {
    "Runless": ({}, f"train_cfg.type: {LOOPS}:Runless has no run(). Name a class with run. [FK013]"),
    "Simpel": ({}, f'train_cfg.type: "{LOOPS}" has no "Simpel". Did you mean "Simple"? [FK013]'),
    "Simple": (
        {"max_epoch": 3},
        (
            f"train_cfg: {LOOPS}:Simple cannot be called so: missing a required argument: 'max_epochs'. "
            'Did you mean "max_epochs"? [FK013]'
        ),
    ),
}


@pytest.mark.parametrize("loop", WRONG)
def test_what_cannot_be_a_loop_is_told_before_any_effect(loop, tmp_path):
    args, text = WRONG[loop]
    assert refused(own(tmp_path / "run", loop, args=args)) == [text]
    assert not (tmp_path / "run").exists()


def test_a_loop_that_swallows_exceptions_is_stopped_all_the_same(tmp_path):
    """A stop that a hook asks for ends the loop at the window's end, and the state is saved."""
    cfg = own(
        tmp_path, "Endless", args=dict(max_epochs=1), custom_hooks=[dict(type=f"{toys.HERE}:Wishes", stop=6)]
    )
    result = carry_out(cfg)
    assert (result["reason"], result["iter"], result["checkpoints"]) == ("requested", 7, ["stopped_iter_7"])


def test_a_smoke_run_takes_one_step_of_an_own_loop(tmp_path):
    from shell.execute import run

    result = run(own(tmp_path), smoke=True)
    assert (result.reason, result.iter, list(result.metrics)) == ("done", 1, ["hits"])


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_own_validation_is_recorded_and_decides_what_is_best(ranks, tmp_path):
    """The same values as the built-in loop's, once each sample; the best checkpoint follows from them."""
    hooks = dict(checkpoint=dict(type="CheckpointHook", save_best="hits", rule="greater"))
    val = dict(type=f"{LOOPS}:Validating")
    mine = toys.config(tmp_path / "own", val_cfg=val, default_hooks=hooks)
    carry_out(mine, ranks)
    carry_out(toys.config(tmp_path / "built in", default_hooks=hooks), ranks)
    assert toys.weights(tmp_path / "own") == toys.weights(tmp_path / "built in")
    ours, theirs = (toys.recorded(tmp_path / name, "validate") for name in ("own", "built in"))
    assert [e["metrics"]["hits"] for e in ours] == [e["metrics"]["hits"] for e in theirs]
    assert [e["samples"] for e in ours] == [[11]] * 3
    assert [e["metrics"]["batches"] for e in ours] == [3.0 if ranks == 1 else 2.0] * 3
    assert toys.differences(tmp_path / "own") == []
    best = {p.name for p in (tmp_path / "built in/checkpoints").iterdir()}
    assert {p.name for p in (tmp_path / "own/checkpoints").iterdir()} == best


def test_an_own_test_over_a_rank_without_samples(tmp_path):
    """One sample on two ranks; torchmetrics that keep predictions learn their kinds from a batch that does not count."""
    cfg = toys.config(
        tmp_path, resume=False, test_cfg=dict(type=f"{LOOPS}:Validating", shift=1.0),
        test_dataloader=dict(dataset=dict(type=f"{toys.HERE}:Points", n=1), batch_size=4),
        test_evaluator=dict(hits=dict(type=f"{toys.HERE}:Hits")),
    )  # fmt: skip
    results = run_ranks(2, toys.trained_rank, cfg, "test")
    assert [r["metrics"]["hits"] for r in results] in ([0.0, 0.0], [1.0, 1.0])
    assert toys.recorded(tmp_path, "test")[0]["samples"] == [1]


def test_an_own_validation_that_returns_no_metrics_is_told(tmp_path):
    assert refused(toys.config(tmp_path, val_cfg=dict(type=f"{LOOPS}:Mumbling"))) == [
        (
            "val_cfg: Mumbling.run() returned int, not a mapping of names to numbers. "
            "Return evaluator.evaluate(), or a mapping of your own. [FK011]"
        )
    ]


def test_a_validation_the_config_lacks_is_told(tmp_path):
    none = dict.fromkeys(("val_dataloader", "val_evaluator", "val_cfg"))
    assert refused(own(tmp_path, **none)) == [
        (
            "val_cfg: is missing, and the loop asks for a validation. Add val_dataloader, val_cfg and val_evaluator, or "
            "ask run.plan.validation first. [FK021]"
        )
    ]
