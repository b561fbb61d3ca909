"""Evaluation in another precision, from a checkpoint, and with every prediction in a file: once, in dataset order."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json

import pytest
import torch
from safetensors.torch import load_file

from shell.predictions import Predictions, Unwritable
from tests.ranks import run_alone, run_ranks
from tests.shell import toys

FEEDS = "tests.shell.feeds"


def probing(work_dir, n=11, **changes):
    """A config with a test group besides; nothing is trained."""
    return toys.config(
        work_dir, resume=False,
        **{"test_dataloader": dict(dataset=dict(type=f"{toys.HERE}:Points", n=n, seed=1), batch_size=2),
           "test_evaluator": dict(hits=dict(type=f"{toys.HERE}:Hits")),
           "test_cfg": dict(predictions="predictions"), **changes},
    )  # fmt: skip


def found(work_dir):
    files = list(work_dir.rglob("predictions*"))
    return {str(file.relative_to(file.parents[0])): file for file in files}


@pytest.mark.parametrize("ranks", [1, 2])
def test_predictions_stand_in_dataset_order_each_once(tmp_path, ranks):
    """11 samples in batches of 2: with two ranks one of them repeats a batch, which is not written."""
    cfg = probing(tmp_path)
    run_alone(toys.trained, cfg, "test") if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg, "test")
    assert list(found(tmp_path)) == ["predictions.safetensors"]
    held = load_file(found(tmp_path)["predictions.safetensors"])
    assert held["index"].tolist() == list(range(11))

    assert held["prediction"].shape == (11, 3)
    run_alone(toys.trained, probing(tmp_path / "one"), "test")
    alone = load_file(found(tmp_path / "one")["predictions.safetensors"])
    assert torch.allclose(held["prediction"], alone["prediction"], rtol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_dump_results_of_what_does_not_stack_is_lines(tmp_path, ranks):
    cfg = probing(
        tmp_path, n=5, test_cfg=dict(), model=dict(type=f"{FEEDS}:Wordy"), loss=None,
        test_evaluator=dict(type="DumpResults", out_file_path="predictions.jsonl"),
    )  # fmt: skip
    run_alone(toys.trained, cfg, "test") if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg, "test")
    lines = [json.loads(line) for line in found(tmp_path)["predictions.jsonl"].read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(5))
    assert all(set(line["prediction"]) == {"label", "word"} for line in lines)


def test_each_of_several_loaders_has_its_file(tmp_path):
    loader = dict(dataset=dict(type=f"{toys.HERE}:Points", n=3), batch_size=2)
    run_alone(toys.trained, probing(tmp_path, test_dataloader=dict(a=loader, b=loader)), "test")
    assert sorted(found(tmp_path)) == ["predictions_a.safetensors", "predictions_b.safetensors"]


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_a_test_under_autocast_predicts_in_that_precision(tmp_path, dtype):
    run_alone(toys.trained, probing(tmp_path, test_cfg=dict(dtype=dtype, predictions="predictions")), "test")
    held = load_file(found(tmp_path)["predictions.safetensors"])["prediction"]
    assert held.dtype == (torch.bfloat16 if dtype else torch.float32)


def test_a_validation_under_bfloat16_leaves_training_alone(tmp_path):
    plain = toys.config(tmp_path / "plain", train_cfg=dict(by_epoch=True, max_epochs=1))
    half = toys.config(
        tmp_path / "half", train_cfg=dict(by_epoch=True, max_epochs=1), val_cfg=dict(dtype="bfloat16")
    )
    run_alone(toys.trained, plain)
    run_alone(toys.trained, half)
    assert toys.weights(tmp_path / "plain") == toys.weights(tmp_path / "half")


def test_a_test_of_a_checkpoint_predicts_with_its_weights(tmp_path):
    trained = toys.config(tmp_path / "train")
    run_alone(toys.trained, trained)
    newest = min((tmp_path / "train/checkpoints").glob("epoch_3"))
    cfg = probing(tmp_path / "test", load_from=str(newest))
    result = run_alone(toys.trained, cfg, "test")
    validated = toys.recorded(tmp_path / "train", "validate")[-1]["metrics"]["hits"]
    assert result["metrics"] == {"hits": validated}


def test_outputs_that_cannot_be_told_apart_are_refused(tmp_path):
    wanted = {
        "3 predictions were made for 2 samples; each sample needs one of its own to be written.": torch.zeros(3),
        "predictions of type float cannot be told apart by sample.": 1.5,
        "outputs hold {'a': 2, 'b': 3} values a batch; each needs one a sample to be written.":
            {"a": torch.zeros(2), "b": torch.zeros(3)},
    }  # fmt: skip
    for text, outputs in wanted.items():
        with pytest.raises(Unwritable) as caught:
            Predictions(tmp_path / "p", None, [[0, 1]]).add(0, outputs)
        assert str(caught.value) == text


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_validation_writes_its_own_file(tmp_path, ranks):
    """DumpResults in val_evaluator: after 9, 18 and 27 iterations (5, 10 and 15 on two ranks), nothing overwritten."""
    dump = dict(type="DumpResults", out_file_path="predictions")
    cfg = toys.config(tmp_path, val_evaluator=dict(hits=dict(type=f"{toys.HERE}:Hits"), dump=dump))
    run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(ranks, toys.trained_rank, cfg)
    ends = [9, 18, 27] if ranks == 1 else [5, 10, 15]
    files = found(tmp_path)
    assert sorted(files) == sorted(f"predictions_iter_{at}.safetensors" for at in ends)
    assert toys.differences(tmp_path) == []
    labels = toys.Points(11, seed=1).labels
    for at, check in zip(ends, toys.recorded(tmp_path, "validate"), strict=True):
        held = load_file(files[f"predictions_iter_{at}.safetensors"])
        assert held["index"].tolist() == list(range(11))
        hits = (held["prediction"].argmax(1) == labels).double().mean()
        assert check["metrics"] == {"hits": pytest.approx(float(hits))}
