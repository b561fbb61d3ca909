"""What a model is fed: preprocessors in their place, batch samplers with their sampler, datasets that only iterate."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import ast

import pytest

from flexcore.problems import ConfigError
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

FEEDS = "tests.shell.feeds"
PICKS = dict(type=f"{FEEDS}:Seen")


def short(work_dir, **changes):
    """One epoch of nine iterations, no validation unless asked for."""
    return toys.config(
        work_dir, **{"train_cfg": dict(by_epoch=True, max_epochs=1), "val_dataloader": None,
                     "val_evaluator": None, "val_cfg": None, "default_hooks": None, **changes},
    )  # fmt: skip


def validated(work_dir, **changes):
    return toys.config(
        work_dir, **{"train_cfg": dict(by_epoch=True, max_epochs=1), "default_hooks": None, **changes}
    )


def final(work_dir):
    return toys.weights(work_dir)


def seen(work_dir, rank=0):
    return ast.literal_eval((work_dir / f"seen.{rank}").read_text())


# --- data_preprocessor ---------------------------------------------------------------------------


def test_a_preprocessor_outside_the_model_comes_before_each_call(tmp_path):
    """A module, a function of a batch and a dataset that does it itself train to the same bits."""
    made = {
        "module": dict(type=f"{FEEDS}:Scale", by=3.0),
        "told": dict(type=f"{FEEDS}:Told", by=3.0),
        "function": dict(type=f"{FEEDS}:scaling", by=3.0),
        "none": None,
    }
    metrics = {}
    for name, component in made.items():
        metrics[name] = run_alone(toys.trained, validated(tmp_path / name, data_preprocessor=component))[
            "metrics"
        ]
    assert final(tmp_path / "module") == final(tmp_path / "told") == final(tmp_path / "function")
    assert final(tmp_path / "module") != final(tmp_path / "none")
    assert metrics["module"] == metrics["told"] == metrics["function"]


@pytest.mark.parametrize("model", ["Stepping", "Late", "Moded"])
def test_a_model_that_has_the_place_is_given_it(tmp_path, model):
    """By its constructor or its free attribute; once a batch, told whether it trains."""
    cfg = validated(
        tmp_path, model=dict(type=f"{FEEDS}:{model}"), loss=None, data_preprocessor=dict(type=f"{FEEDS}:Told"),
        val_evaluator=dict(type=f"{FEEDS}:Size"), custom_hooks=[dict(type=f"{FEEDS}:Calls")],
    )  # fmt: skip
    assert run_alone(toys.trained, cfg)["metrics"] == {"size": 11.0}
    assert ast.literal_eval((tmp_path / "calls").read_text()) == {True: 9, False: 3}


def test_a_model_that_steps_itself_and_knows_none_is_fed_prepared_batches(tmp_path):
    cfg = validated(
        tmp_path, model=dict(type=f"{FEEDS}:Bare"), loss=None, data_preprocessor=dict(type=f"{FEEDS}:Told"),
        val_evaluator=dict(type=f"{FEEDS}:Size"),
    )  # fmt: skip
    assert run_alone(toys.trained, cfg)["metrics"] == {"size": 11.0}


def told(cfg):
    from shell.execute import run

    with pytest.raises(ConfigError) as caught:
        run(cfg)
    return str(caught.value)


def test_a_preprocessor_that_would_learn_nothing_is_refused(tmp_path):
    assert told(short(tmp_path, data_preprocessor=dict(type=f"{FEEDS}:Learned"))) == (
        "data_preprocessor: Learned has parameters that train, and stands outside the model: they never would. "
        "Make them buffers, or put it into the model. [FK013]"
    )


def test_a_preprocessor_that_cannot_be_found_or_called_is_told_before_any_effect(tmp_path):
    assert told(short(tmp_path / "a", data_preprocessor=dict(type=f"{FEEDS}:Scail"))) == (
        'data_preprocessor.type: "tests.shell.feeds" has no "Scail". Did you mean "Scale"? [FK013]'
    )
    assert told(short(tmp_path / "a", data_preprocessor=dict(type=f"{FEEDS}:Lengthless"))) == (
        "data_preprocessor: Lengthless cannot be called with a batch. Name a Module, or a class with __call__. [FK013]"
    )
    assert not (tmp_path / "a").exists()


def test_a_preprocessor_on_two_ranks(tmp_path):
    cfg = validated(tmp_path, data_preprocessor=dict(type=f"{FEEDS}:Scale"))
    first, second = run_ranks(2, toys.trained_rank, cfg)
    assert first["metrics"] == second["metrics"]
    assert toys.differences(tmp_path) == []


# --- batch_sampler -------------------------------------------------------------------------------


def batched(**more):
    return dict(
        dataset=dict(type=f"{toys.HERE}:Points", n=34), batch_sampler=dict(type=f"{FEEDS}:InPairs"), **more
    )


def test_a_batch_sampler_gets_the_sampler_and_the_size(tmp_path):
    """34 samples in batches of 4, 4, 2, ...: ten and a rest of four."""
    cfg = short(tmp_path, train_dataloader=batched(batch_size=4), custom_hooks=[PICKS])
    result = run_alone(toys.trained, cfg)
    assert result["iter"] == 10
    sizes = [samples for _, _, samples in toys.steps(tmp_path)]
    assert sizes == [4, 4, 2, 4, 4, 2, 4, 4, 2, 4]
    points = toys.Points(34).inputs[:, 0]
    assert sorted(seen(tmp_path)) == sorted(round(float(x), 5) for x in points)
    assert seen(tmp_path) != [round(float(x), 5) for x in points]


def test_epochs_of_a_batch_sampler_are_shuffled_anew_and_a_resume_replays_them(tmp_path):
    loop = dict(by_epoch=True, max_epochs=3)
    loader = batched(batch_size=4, sampler=dict(type="DefaultSampler", shuffle=True))
    hooks = [dict(type=f"{toys.HERE}:Losses")]
    whole = short(tmp_path / "whole", train_cfg=loop, train_dataloader=loader, custom_hooks=[*hooks, PICKS])
    run_alone(toys.trained, whole)
    order = seen(tmp_path / "whole")
    assert sorted(order[:34]) == sorted(order[34:68]) == sorted(order[68:])
    assert order[:34] != order[34:68] != order[68:]
    cut = [*hooks, dict(type=f"{toys.HERE}:Wishes", stop=13)]
    parted = short(tmp_path / "parted", train_cfg=loop, train_dataloader=loader, custom_hooks=cut)
    assert run_alone(toys.trained, parted)["iter"] == 14
    assert (
        run_alone(toys.trained, parted | dict(custom_hooks=[*hooks, dict(type=f"{toys.HERE}:Wishes")]))[
            "iter"
        ]
        == 30
    )
    assert final(tmp_path / "whole") == final(tmp_path / "parted")
    assert (tmp_path / "whole/losses.0").read_text() == (tmp_path / "parted/losses.0").read_text()


def test_torchs_own_batch_sampler_takes_drop_last_and_its_size(tmp_path):
    loader = batched(drop_last=True)
    loader["batch_sampler"] = dict(type="torch.utils.data:BatchSampler", batch_size=5)
    assert run_alone(toys.trained, short(tmp_path, train_dataloader=loader))["iter"] == 6


def test_a_batch_sampler_on_two_ranks_deals_each_sample_to_one(tmp_path):
    cfg = short(tmp_path, train_dataloader=batched(batch_size=4), custom_hooks=[PICKS])
    assert [r["iter"] for r in run_ranks(2, toys.trained_rank, cfg)] == [5, 5]
    both = seen(tmp_path) + seen(tmp_path, 1)
    assert sorted(both) == sorted(round(float(x), 5) for x in toys.Points(34).inputs[:, 0])


def test_an_evaluation_with_a_batch_sampler_counts_each_sample_once(tmp_path):
    loader = dict(dataset=dict(type=f"{toys.HERE}:Points", n=11, seed=1), batch_size=4,
                  batch_sampler=dict(type=f"{FEEDS}:InPairs"))  # fmt: skip
    plain, own = validated(tmp_path / "plain"), validated(tmp_path / "own", val_dataloader=loader)
    expected = run_ranks(2, toys.trained_rank, plain)[0]["metrics"]
    assert run_ranks(2, toys.trained_rank, own)[0]["metrics"] == expected


def test_what_a_batch_sampler_cannot_take_is_told(tmp_path):
    assert told(short(tmp_path, train_dataloader=batched(batch_size=4, drop_last=True))) == (
        "train_dataloader.batch_sampler: tests.shell.feeds:InPairs cannot be called so: "
        "got an unexpected keyword argument 'drop_last'. It takes sampler, batch_size. [FK013]"
    )


# --- datasets that only iterate ------------------------------------------------------------------


def stream(batch_size=4, workers=0, **kwargs):
    more = dict(num_workers=workers, persistent_workers=True) if workers else {}
    return dict(dataset=dict(type=f"{FEEDS}:Stream", **kwargs), batch_size=batch_size, **more)


ITERS = dict(by_epoch=False, max_iters=12, val_interval=100)


def test_an_endless_stream_feeds_an_iteration_loop(tmp_path):
    cfg = short(tmp_path, train_dataloader=stream(), train_cfg=ITERS, custom_hooks=[PICKS])
    assert run_alone(toys.trained, cfg)["iter"] == 12
    assert seen(tmp_path) == list(range(48))
    assert toys.differences(tmp_path) == []


def test_a_stream_that_ends_is_read_again(tmp_path):
    cfg = short(tmp_path, train_dataloader=stream(n=10), train_cfg=ITERS, custom_hooks=[PICKS])
    run_alone(toys.trained, cfg)
    assert seen(tmp_path) == ([*range(10)] * 4)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("n", [None, 20])
def test_a_stream_is_resumed_by_reading_to_where_it_stood(tmp_path, workers, n):
    loader, hooks = stream(n=n, noise=0.1, workers=workers), [dict(type=f"{toys.HERE}:Losses")]
    whole = short(tmp_path / "whole", train_dataloader=loader, train_cfg=ITERS, custom_hooks=hooks)
    run_alone(toys.trained, whole)
    cut = [*hooks, dict(type=f"{toys.HERE}:Wishes", stop=6)]
    parted = short(tmp_path / "parted", train_dataloader=loader, train_cfg=ITERS, custom_hooks=cut)
    assert run_alone(toys.trained, parted)["iter"] == 7
    assert run_alone(toys.trained, parted | dict(custom_hooks=hooks))["iter"] == 12
    assert (tmp_path / "whole/losses.0").read_text() == (tmp_path / "parted/losses.0").read_text()
    assert final(tmp_path / "whole") == final(tmp_path / "parted")


def test_epochs_of_a_stream_have_the_length_that_is_given_or_told(tmp_path):
    loop = dict(by_epoch=True, max_epochs=2)
    given = short(
        tmp_path / "a",
        train_cfg=loop,
        train_dataloader=stream() | dict(num_batch_per_epoch=3),
        custom_hooks=[PICKS],
    )
    assert run_alone(toys.trained, given)["iter"] == 6
    assert seen(tmp_path / "a") == [*range(12)] * 2
    counted = short(tmp_path / "b", train_cfg=loop, train_dataloader=stream(n=10, counted=True))
    assert run_alone(toys.trained, counted)["iter"] == 6
    assert told(short(tmp_path / "c", train_dataloader=stream())) == (
        "train_dataloader.num_batch_per_epoch: is missing, and the dataset has no length: its epochs have no end to plan. "
        "Set it to micro-batches per rank and epoch, or train by iterations: by_epoch=False. [FK012]"
    )


def test_a_stream_on_two_ranks_shards_itself(tmp_path):
    cfg = short(tmp_path, train_dataloader=stream(shard=True), train_cfg=ITERS, custom_hooks=[PICKS])
    run_ranks(2, toys.trained_rank, cfg)
    assert (seen(tmp_path), seen(tmp_path, 1)) == (list(range(0, 96, 2)), list(range(1, 96, 2)))


class Looked:
    """Notes how many validation batches each rank ran."""

    def before_train(self, run):
        self.ran = 0

    def after_val_iter(self, run, **_):
        self.ran += 1

    def after_train(self, run):
        (run.work_dir / f"ran.{run.rank}").write_text(str(self.ran))


LOOKED = dict(type="tests.shell.test_feeding:Looked")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_evaluated_to_its_end_each_time(workers, tmp_path):
    """Nine samples in batches of four: each validation begins it anew and ends where it ends."""
    val, loop = stream(n=9) | dict(num_workers=workers), dict(by_epoch=True, max_epochs=2)
    run_alone(toys.trained, validated(tmp_path, val_dataloader=val, train_cfg=loop, custom_hooks=[LOOKED]))
    checks = toys.recorded(tmp_path, "validate")
    assert [check["samples"] for check in checks] == [[9], [9]]
    assert toys.recorded(tmp_path, "validate")[0]["metrics"].keys() == {"hits"}
    assert toys.differences(tmp_path) == []
    assert (tmp_path / "ran.0").read_text() == "6"


def test_two_ranks_run_as_many_batches_of_a_stream(tmp_path):
    """Five and four samples in batches of two: the rank that runs out repeats one, which counts nothing."""
    val = stream(n=9, shard=True) | dict(batch_size=2)
    cfg = validated(tmp_path, val_dataloader=val, custom_hooks=[LOOKED])
    run_ranks(2, toys.trained_rank, cfg)
    checks = toys.recorded(tmp_path, "validate")
    assert [check["samples"] for check in checks] == [[9]] * len(checks)
    assert [(tmp_path / f"ran.{rank}").read_text() for rank in (0, 1)] == [str(3 * len(checks))] * 2


def test_a_rank_that_gets_nothing_of_a_stream_is_told(tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_ranks(2, toys.trained_rank, validated(tmp_path, val_dataloader=stream(n=1, shard=True)))
    assert str(caught.value) == (
        "val_dataloader: only iterates, and rank 1 got nothing of it. Let it yield samples on each rank. [FD003]"
    )


def test_a_sampler_beside_a_stream_is_told(tmp_path):
    val = stream(n=4) | dict(sampler=dict(type="DefaultSampler", shuffle=False))
    assert told(validated(tmp_path, val_dataloader=val)) == (
        "val_dataloader.sampler: is given, and the dataset only iterates, in an order of its own. Remove it. [FK019]"
    )


def test_auto_runs_as_ddp_on_two_ranks(tmp_path):
    cfg = short(tmp_path, strategy="auto")
    assert [r["iter"] for r in run_ranks(2, toys.trained_rank, cfg)] == [5, 5]
    assert toys.recorded(tmp_path, "start")[0]["world_size"] == 2


def test_values_that_the_mean_pattern_leaves_out_are_shown_as_they_were_last(tmp_path):
    """Losses are written step by step; the log line of iteration 8 shows their mean, or the eighth."""
    shown = {}
    for pattern in ("loss", "time"):
        cfg = short(
            tmp_path / pattern, log_processor=dict(mean_pattern=pattern, window_size=4),
            default_hooks=dict(logger=dict(type="LoggerHook", interval=4)),
            custom_hooks=[dict(type=f"{toys.HERE}:Losses")],
        )  # fmt: skip
        run_alone(toys.trained, cfg)
        shown[pattern] = toys.recorded(tmp_path / pattern, "log")[1]["values"]["loss"]
    losses = [float(line) for line in (tmp_path / "loss/losses.0").read_text().splitlines()]
    assert shown == {"loss": pytest.approx(sum(losses[4:8]) / 4), "time": pytest.approx(losses[7])}
