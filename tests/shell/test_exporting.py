"""Weights leave as safetensors that other programs read: whole, in shards, or averaged; or nothing is written."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import argparse
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, safe_open

from shell import cli, words
from shell.checkpoints import DamagedCheckpoint, Store
from shell.exporting import ExportRefused, export
from shell.results import CheckpointRefused
from tests.ranks import run_alone
from tests.shell import toys

WEIGHTS = {"a": torch.arange(10.0), "b": torch.arange(4), "c": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture
def checkpoint(tmp_path):
    return Store(tmp_path / "store", "run").save("one", {"model": WEIGHTS}, dict(epoch=1, iter=9))


def alike(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_one_file_holds_the_weights_as_they_were(tmp_path):
    store = Store(tmp_path / "store", "run")
    path = store.save("one", {"model": WEIGHTS}, {})
    target = tmp_path / "new" / "model.safetensors"
    assert export(path, target, averages=False, max_shard=1) == 3
    assert alike(load_file(target), WEIGHTS)
    with safe_open(target, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [file.name for file in target.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("most", "shards"), [(1, 3), (36, 2), (40, 2), (71, 2), (72, 2), (76, 1), (10**9, 1)]
)
def test_a_directory_is_laid_out_as_hugging_face_reads_it(most, shards, checkpoint, tmp_path):
    """Every tensor in exactly one shard, the index naming it, and no shard larger than asked for unless one tensor is."""
    target = tmp_path / "hf"
    export(checkpoint, target, averages=False, max_shard=most)
    files = sorted(file.name for file in target.glob("*.safetensors"))
    if shards == 1:
        assert sorted(file.name for file in target.iterdir()) == files == ["model.safetensors"]
        return
    assert files == [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 40 + 32 + 4}
    held = {name: set(load_file(target / name)) for name in files}
    assert sum(map(len, held.values())) == len(WEIGHTS)
    assert {
        name: {key for key, at in index["weight_map"].items() if at == name} for name in files
    }.keys() == held.keys()
    for name in files:
        sizes = [t.numel() * t.element_size() for t in load_file(target / name).values()]
        assert sum(sizes) <= most or len(sizes) == 1


def test_averages_take_the_place_of_what_they_average(tmp_path):
    run_alone(toys.trained, toys.config(tmp_path / "run", custom_hooks=[dict(type="EMAHook", momentum=0.5)]))
    last = tmp_path / "run" / "checkpoints" / "epoch_3"
    for averages in (True, False):
        export(last, tmp_path / f"{averages}.safetensors", averages=averages, max_shard=1)
    averaged, plain = (load_file(tmp_path / f"{averages}.safetensors") for averages in (True, False))
    assert alike(plain, load_file(last / "model.safetensors"))
    hooks = load_file(last / "hooks.safetensors")
    assert alike(averaged, {name: hooks[f"state.EMAHook.averaged.{name}"] for name in plain})
    assert not alike(averaged, plain)


def test_what_is_damaged_or_lacks_averages_is_not_exported(checkpoint, tmp_path):
    with pytest.raises(CheckpointRefused, match=r"one holds no averaged weights\. Leave --averages out\."):
        export(checkpoint, tmp_path / "hf", averages=True, max_shard=1)
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DamagedCheckpoint, match="its bytes changed"):
        export(checkpoint, tmp_path / "hf", averages=False, max_shard=1)
    with pytest.raises(DamagedCheckpoint, match=r"holds no manifest\.json"):
        export(tmp_path, tmp_path / "hf", averages=False, max_shard=1)
    assert [found.name for found in tmp_path.iterdir()] == ["store"]


def test_nothing_is_overwritten_and_nothing_half_written_stays(checkpoint, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(
        ExportRefused, match=r"taken is there already\. Name a new file or directory, or remove it\."
    ):
        export(checkpoint, taken, averages=False, max_shard=1)
    with pytest.raises(ExportRefused, match=r"hf cannot be written: File exists\."):
        export(checkpoint, taken / "hf", averages=False, max_shard=1)
    assert taken.read_text() == "mine"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["store", "taken"]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ([], 0, "3 tensors in out.safetensors\n"),
        (["--averages"], 4, "flexcore: store/one holds no averaged weights. Leave --averages out.\n"),
    ],
)
def test_the_command_says_what_it_did(more, code, said, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        cli.main(["export", "store/one", "out.safetensors", *more])
    assert left.value.code == code
    assert "".join(capsys.readouterr()) == said
    (tmp_path / "out.safetensors").unlink(missing_ok=True)
    (tmp_path / "out.safetensors").touch()
    with pytest.raises(SystemExit) as left:
        cli.main(["export", "store/one", "out.safetensors"])
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("5GB", 5 * 10**9), ("300B", 300), ("7", 7), ("12MB", 12 * 10**6), ("1KB", 1000), ("2TB", 2 * 10**12)]
)  # fmt: skip
def test_sizes_are_read_as_they_are_written_elsewhere(text, expected):
    assert words.size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0GB", "5G", "5 GB", "-1", "1.5GB", "GB", "٥GB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a size like 5GB, got"):
        words.size(text)
