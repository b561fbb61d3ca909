"""What a run records is what its plan said, found twice: by `flexcore report`, and by a naive loop written here."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import math

import pytest
from attrs import frozen

from shell.report import report
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

LR = 0.01


@frozen(kw_only=True)
class Case:
    """A run of `n` samples as a config asks for it; `total` in epochs or iterations."""

    n: int = 34
    batch: int = 4
    ranks: int = 1
    accumulate: int = 1
    tail: str = "carry"
    total_batch: int | None = None
    by_epoch: bool = True
    total: int = 3
    val_begin: int = 1
    val_every: int = 1
    save_every: int = 1
    save_by_epoch: bool | None = None
    save_last: bool = True
    drop_last: bool = False

    def config(self, work_dir):
        loop = {"max_epochs" if self.by_epoch else "max_iters": self.total}
        optimizer = dict(optimizer=dict(type="AdamW", lr=LR), accumulation_tail=self.tail)
        if self.total_batch is None:
            optimizer["accumulative_counts"] = self.accumulate
        return toys.config(
            work_dir, global_batch_size=self.total_batch, optim_wrapper=optimizer,
            train_dataloader=dict(
                dataset=dict(type="tests.shell.toys:Points", n=self.n), batch_size=self.batch,
                drop_last=self.drop_last,
            ),
            train_cfg=dict(by_epoch=self.by_epoch, val_begin=self.val_begin, val_interval=self.val_every, **loop),
            default_hooks=dict(checkpoint=dict(
                type="CheckpointHook", interval=self.save_every, by_epoch=self.save_by_epoch,
                save_last=self.save_last,
            )),
            custom_hooks=[dict(type="tests.shell.toys:Updates")],
        )  # fmt: skip


def expected(case):
    """Samples of rank 0 a step, LRs, and the iterations of updates, validations and saves, by plain counting."""
    sizes = epoch_sizes(case)
    length = len(sizes)
    by_epoch_saves = case.by_epoch if case.save_by_epoch is None else case.save_by_epoch
    window = case.accumulate if case.total_batch is None else 1
    last = case.total * length if case.by_epoch else case.total
    if case.tail == "drop" and not case.by_epoch:
        last = last // window * window
    samples, lrs, updates, checks, saves = [], [], [], [], []
    pending, gathered = None, 0
    for done in range(1, last + 1):
        samples.append(sizes[(done - 1) % length])
        lrs.append(LR * (1 + math.cos(math.pi * (done - 1) / last)) / 2)
        gathered += 1
        epoch, ends_epoch = done // length, done % length == 0
        due = ends_epoch and epoch % case.save_every == 0 if by_epoch_saves else done % case.save_every == 0
        if due or (case.save_last and done == last):
            pending = epoch if by_epoch_saves else done
        if gathered == window or done == last or (case.tail == "step" and case.by_epoch and ends_epoch):
            gathered = 0
            updates.append(done)
            if pending is not None:
                saves.append((done, f"epoch_{pending}" if by_epoch_saves else f"iter_{done}"))
                pending = None
        units = epoch if case.by_epoch else done
        at_unit = ends_epoch or not case.by_epoch
        if at_unit and units >= case.val_begin and (units % case.val_every == 0 or done == last):
            checks.append(done)
    return samples, lrs, updates, checks, saves


def epoch_sizes(case):
    """Samples of rank 0 in each iteration of an epoch."""
    if case.total_batch is not None:
        steps = case.n // case.total_batch if case.drop_last else math.ceil(case.n / case.total_batch)
        return [case.total_batch // case.ranks] * steps
    left = math.ceil(case.n / case.ranks)
    sizes = [case.batch] * (left // case.batch) + [left % case.batch] * (left % case.batch > 0)
    if case.drop_last:
        sizes = [case.batch] * (left // case.batch)
    if case.tail == "drop" and case.by_epoch:
        sizes = sizes[: len(sizes) // case.accumulate * case.accumulate]
    return sizes


CASES = {
    "plain": Case(),
    "drop_last": Case(drop_last=True, save_every=2, save_last=False),
    "carry": Case(accumulate=4),
    "carry, saves by iteration": Case(accumulate=4, save_by_epoch=False, save_every=5),
    "step": Case(accumulate=4, tail="step"),
    "step, saves by iteration": Case(accumulate=3, tail="step", n=29, save_by_epoch=False, save_every=4),
    "drop": Case(accumulate=4, tail="drop"),
    "sparse events": Case(total=7, val_begin=3, val_every=2, save_every=3),
    "iterations": Case(by_epoch=False, total=31, val_every=7, save_every=6),
    "iterations, carry": Case(by_epoch=False, total=23, accumulate=3, val_every=5, save_every=4),
    "iterations, drop": Case(by_epoch=False, total=23, accumulate=3, tail="drop", val_every=5, save_every=4),
    "global batch": Case(total_batch=12),
    "global batch, dropped rest": Case(total_batch=12, drop_last=True, by_epoch=False, total=9, val_every=4),
    "2 ranks": Case(ranks=2, n=35),
    "2 ranks, carry": Case(ranks=2, accumulate=3, n=35),
    "2 ranks, step": Case(ranks=2, accumulate=3, tail="step"),
    "2 ranks, iterations, drop": Case(ranks=2, accumulate=3, tail="drop", by_epoch=False, total=17, val_every=6),
    "2 ranks, global batch": Case(ranks=2, total_batch=16, n=35),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_does_what_counting_by_hand_says_and_the_report_agrees(case, tmp_path):
    """Every step's samples and LR, every update, validation and save, at its iteration and under its name."""
    carry_out(case.config(tmp_path), case.ranks)
    samples, lrs, updates, checks, saves = expected(case)
    steps = toys.steps(tmp_path)
    assert [size for _, _, size in steps] == samples
    assert [lr for _, lr, _ in steps] == pytest.approx(lrs, rel=1e-12, abs=1e-15)
    assert [i for i, _, _ in steps] == list(range(len(samples)))
    assert json.loads((tmp_path / "updates").read_text()) == updates
    assert [event["iter"] for event in toys.recorded(tmp_path, "validate")] == checks
    assert [(event["iter"], event["name"]) for event in toys.recorded(tmp_path, "save")] == saves
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {name for _, name in saves}
    assert toys.differences(tmp_path) == []


def carry_out(cfg, ranks=1):
    return run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_digits_with_best_checkpoints_and_two_validation_loaders(ranks, tmp_path):
    """1,437 images in batches of 100, accumulated by 3: nothing divides; the best score decides what is kept."""
    loader = dict(dataset=dict(type="examples.digits_model:Digits", split="val"), batch_size=128)
    cfg = toys.config(
        tmp_path, model=dict(type="tests.shell.toys:Pixels"),
        train_dataloader=dict(dataset=dict(type="examples.digits_model:Digits", split="train"), batch_size=100),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.5), accumulative_counts=3),
        train_cfg=dict(by_epoch=False, max_iters=41, val_interval=7),
        val_dataloader=dict(near=loader, far=dict(dataset=dict(type="examples.digits_model:Digits", split="train"), batch_size=600)),
        default_hooks=dict(checkpoint=dict(
            type="CheckpointHook", interval=10, max_keep_ckpts=2, save_best=["near/hits", "far/hits"],
            rule=["greater", "less"],
        )),
    )  # fmt: skip
    carry_out(cfg, ranks)
    checks = toys.recorded(tmp_path, "validate")
    assert [check["iter"] for check in checks] == [7, 14, 21, 28, 35, 41]
    assert [check["samples"] for check in checks] == [[360, 1437]] * 6
    near = [check["metrics"]["near/hits"] for check in checks]
    far = [check["metrics"]["far/hits"] for check in checks]
    assert near[-1] > 0.5 > near[0]
    standing = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    best_near, best_far = checks[near.index(max(near))]["iter"], checks[far.index(min(far))]["iter"]
    assert standing == {
        "iter_30",
        "iter_41",
        f"best_near_hits_iter_{best_near}",
        f"best_far_hits_iter_{best_far}",
    }
    assert toys.differences(tmp_path) == []


def with_lr(events):
    steps = next(event for event in events if event["event"] == "steps")
    steps["lr"][2] *= 2


def with_samples(events):
    next(event for event in events if event["event"] == "steps")["samples"][1] = 5


def without(kind, nth=0):
    def alter(events):
        events.remove([event for event in events if event["event"] == kind][nth])

    return alter


def moved(kind, at):
    def alter(events):
        next(event for event in events if event["event"] == kind)["iter"] = at

    return alter


def twice(kind):
    def alter(events):
        found = next(event for event in events if event["event"] == kind)
        events.insert(events.index(found), dict(found))

    return alter


def better_metric(events):
    [event for event in events if event["event"] == "validate"][1]["metrics"]["hits"] = 2.0


def moved_best(events):
    [event for event in events if event.get("best")][-1]["iter"] += 1


MUTANTS = {
    "an LR": (with_lr, ["lr at iteration 1: planned 0.009966191788709715, was 0.01993238357741943"]),
    "a batch": (with_samples, ["samples at iteration 0: planned 4, was 5"]),
    "no save": (without("save"), ["save at iteration 9: planned (9, 'epoch_1'), was nothing"]),
    "no validation": (without("validate", 1), ["validation at iteration 18: planned 18, was nothing"]),
    "an early save": (moved("save", 8), [
        "save at iteration 9: planned (9, 'epoch_1'), was nothing",
        "save at iteration 8: planned nothing, was (8, 'epoch_1')",
    ]),
    "a second validation": (twice("validate"), ["validation at iteration 9: planned once, was 9 2 times"]),
    "a second save": (twice("save"), ["save at iteration 9: planned once, was (9, 'epoch_1') 2 times"]),
    "no best save": (without("save", 1), [
        "best hits at iteration 9: planned a save, as 0.5454545454545454 is the best so far, was nothing",
    ]),
    "a better metric": (better_metric, [
        "best hits at iteration 18: planned a save, as 2.0 is the best so far, was nothing",
    ]),
    "a best save elsewhere": (moved_best, [
        "best hits at iteration 9: planned a save, as 0.5454545454545454 is the best so far, was nothing",
        "best at iteration 10: planned nothing, was a save as best_hits_epoch_1",
    ]),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("finished")
    carry_out(
        toys.config(
            work_dir,
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="hits", rule="greater")),
        )
    )
    return work_dir


@pytest.mark.parametrize(("alter", "found"), MUTANTS.values(), ids=MUTANTS)
def test_the_report_names_exactly_what_was_altered(alter, found, finished):
    """One recorded event changed is one difference told, and the exit code is 1."""
    file = next(finished.glob("*/events.jsonl"))
    kept = file.read_text()
    try:
        events = [json.loads(line) for line in kept.splitlines()]
        alter(events)
        file.write_text("".join(json.dumps(event) + "\n" for event in events))
        assert toys.differences(finished) == found
        assert report(finished)[1] == 1
    finally:
        file.write_text(kept)
    text, code = report(finished)
    lines = [
        f"Plan versus actual: {finished}, finished",
        "  compared     27 iterations, 3 validations, 3 saves, 1 start",
        "  differences  0",
    ]
    assert (text.splitlines(), code) == (lines, 0)


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_digits_go_as_planned(ranks, accumulate, by_epoch, tmp_path):
    """1,437 images, 1 or 2 ranks, with and without accumulation, in both loops: nothing divides, nothing differs."""
    length = (
        dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=17, val_interval=5)
    )
    cfg = toys.config(
        tmp_path, model=dict(type="tests.shell.toys:Pixels"),
        train_dataloader=dict(dataset=dict(type="examples.digits_model:Digits", split="train"), batch_size=100),
        val_dataloader=dict(dataset=dict(type="examples.digits_model:Digits", split="val"), batch_size=128),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.5), accumulative_counts=accumulate),
        train_cfg=length,
    )  # fmt: skip
    carry_out(cfg, ranks)
    assert len(toys.steps(tmp_path)) == (17 if not by_epoch else 2 * -(-1437 // (100 * ranks)))
    assert toys.differences(tmp_path) == []
