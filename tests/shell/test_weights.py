"""load_from takes files of others as far as they are weights; whatever else they hold is not even read."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from shell import weights
from shell.checkpoints import Store
from shell.exporting import export
from shell.results import CheckpointRefused
from tests.ranks import run_alone
from tests.shell import toys

STATE = {"0.weight": torch.ones(2, 3), "0.bias": torch.arange(2.0)}
WAYS = {
    "a state_dict": STATE,
    "a training checkpoint": {
        "state_dict": STATE,
        "meta": {"epoch": 3, "text": "x"},
        "optimizer": {"state": {}},
    },
    "a wrapped model's": {"model": {f"module.{name}": tensor for name, tensor in STATE.items()}},
}


@pytest.mark.parametrize("made", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_is_read_as_weights(made, zipped, tmp_path):
    file = str(tmp_path / "net.pth")
    torch.save(made, file, _use_new_zipfile_serialization=zipped)
    weights.check(file)
    found = weights.read(file)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


class Harmful:
    def __reduce__(self):
        return os.mkdir, (f"{os.environ['HARM']}/executed",)


def test_what_a_file_would_execute_is_not_even_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path))
    file = tmp_path / "net.pth"
    torch.save({"state_dict": STATE, "hub": Harmful()}, file)
    weights.check(str(file))
    assert weights.read(str(file)).keys() == STATE.keys()
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointRefused) as caught:
        weights.read(str(file))
    assert str(caught.value) == (
        f"{file} is a pickle, and not one of torch's. Name a checkpoint, .safetensors or a state_dict."
    )
    assert not (tmp_path / "executed").exists()


def refusal(path):
    with pytest.raises(CheckpointRefused) as caught:
        weights.check(str(path))
    return str(caught.value).removeprefix(f"{path} ")


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    for name in ("x.safetensors", "x.pth"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 9)
    remedy = "Name a checkpoint, .safetensors or a state_dict."
    assert refusal(tmp_path / "x.pth") == f"is neither an archive nor a pickle. {remedy}"
    assert refusal(tmp_path / "x.safetensors").startswith("is no file of weights: SafetensorError: ")
    for made, told in (
        ({"epoch": 3, "meta": 1}, "a mapping with epoch, meta"),
        (torch.nn.Linear(1, 1), "a torch.nn.modules.linear.Linear"),
        ([1], "a list"),
        ({}, "a dict"),
    ):
        torch.save(made, tmp_path / "y.pth")
        assert (
            refusal(tmp_path / "y.pth") == f"holds {told}, not tensors by name. Save the model's state_dict."
        )


def test_a_run_starts_from_a_published_file_and_evaluates_it(tmp_path):
    """What one run hands on another begins with: no step is needed to show the same metrics."""
    saves = dict(checkpoint=dict(type="CheckpointHook", published_keys="state_dict"))
    first = run_alone(toys.trained, toys.config(tmp_path / "first", default_hooks=saves))
    (file,) = (tmp_path / "first" / "checkpoints").glob("*.safetensors")
    cfg = toys.config(tmp_path / "second", load_from=str(file), resume=False)
    assert run_alone(toys.trained, cfg, "val")["metrics"] == first["metrics"]
    assert run_alone(toys.trained, cfg)["reason"] == "done"
    assert toys.differences(tmp_path / "second") == []


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "net.safetensors")
    cfg = toys.config(tmp_path / "w", load_from=str(tmp_path / "net.safetensors"), resume=False)
    with pytest.raises(CheckpointRefused, match=r"net.safetensors does not fit the model: 0 of the model"):
        run_alone(toys.trained, cfg)


# --- Hugging Face's layout ----------------------------------------------------------------------


def in_shards(folder, most=1, **index):
    """Weights as `flexcore export` lays them out, which is as Hugging Face's libraries do."""
    checkpoint = Store(folder / "store", "run").save("one", {"model": STATE}, {})
    export(checkpoint, folder / "hf", averages=False, max_shard=most)
    if index:
        (folder / "hf" / weights.INDEX).write_text(json.dumps(index))
    return folder / "hf"


@pytest.mark.parametrize("name", ["", weights.INDEX])
@pytest.mark.parametrize("most", [1, 10**9])
def test_a_directory_or_its_index_is_read_shard_by_shard(name, most, tmp_path):
    place = in_shards(tmp_path, most) / (name if most == 1 else weights.WHOLE if name else "")
    assert weights.is_foreign(str(place))
    weights.check(str(place))
    found = weights.read(str(place))
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_checkpoint_of_ours_is_not_foreign(tmp_path):
    path = Store(tmp_path, "run").save("one", {"model": STATE}, {})
    assert not weights.is_foreign(str(path))
    assert not weights.is_foreign(str(tmp_path))


SHARD = "model-00001-of-00002.safetensors"
WRONG = {
    "no table": ({"metadata": {}}, "cannot be read: KeyError: 'weight_map'"),
    "not a mapping": ({"weight_map": [1]}, "cannot be read: AttributeError: 'list' object has no attribute 'items'"),
    "outside": ({"weight_map": {"a": f"../{SHARD}"}}, f"names '../{SHARD}', which is no .safetensors file beside it"),
    "absolute": ({"weight_map": {"a": "/etc/x.safetensors"}}, "names '/etc/x.safetensors', which is no .safetensors file beside it"),
    "a pickle": ({"weight_map": {"a": "pytorch_model.bin"}}, "names 'pytorch_model.bin', which is no .safetensors file beside it"),
    "a number": ({"weight_map": {"a": 3}}, "names 3, which is no .safetensors file beside it"),
    "another revision's": ({"weight_map": {"z": SHARD}}, f"places 'z' in {SHARD}, which lacks it"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_index_that_misleads_is_refused(name, tmp_path):
    index, told = WRONG[name]
    place = in_shards(tmp_path, **index)
    for look in (weights.check, weights.read):
        with pytest.raises(CheckpointRefused) as caught:
            look(str(place))
        assert (
            str(caught.value)
            == f"{place / weights.INDEX} {told}. Fetch the files again, all from one revision."
        )


def test_a_shard_that_is_not_there_is_named(tmp_path):
    place = in_shards(tmp_path)
    (place / SHARD).unlink()
    with pytest.raises(CheckpointRefused, match=SHARD):
        weights.check(str(place))


def test_a_run_starts_from_weights_in_shards(tmp_path):
    """And ends where one from the same weights in a file does."""
    run_alone(toys.trained, toys.config(tmp_path / "first"))
    last = tmp_path / "first" / "checkpoints" / "epoch_3"
    ended = []
    for target, most in (("whole.safetensors", 1), ("shards", 100)):
        export(last, tmp_path / target, averages=False, max_shard=most)
        cfg = toys.config(tmp_path / f"from {target}", load_from=str(tmp_path / target), resume=False)
        run_alone(toys.trained, cfg)
        ended.append(toys.weights(tmp_path / f"from {target}"))
    assert len(list((tmp_path / "shards").iterdir())) > 2
    assert ended[0] == ended[1]
