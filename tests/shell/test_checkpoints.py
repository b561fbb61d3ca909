"""A checkpoint is found whole or not at all, replaced and removed by name, and never read once a byte has changed."""

import os
import pickle
import shutil
import types

import pytest
import torch

from shell.checkpoints import DamagedCheckpoint, Store
from shell.manifests import BadName, scan, set_aside
from shell.state_tensors import Unsavable


def state(number, size=64):
    return {"model": {"w": torch.full((size,), float(number))}, "rng": {"cpu": torch.tensor([number])}}


def saved(root, number, name="a", run_id="run"):
    return Store(root, run_id).save(name, state(number), {"iter": number})


def whole(root):
    """The iterations of all complete checkpoints, each verified and compared with what was saved."""
    found = scan(root)
    assert found.damaged == ()
    for manifest in found.complete:
        loaded = Store(root, "reader").load(manifest.path)
        expected = state(manifest.fields["iter"])
        for stem in expected:
            actual = loaded.tensors(stem)
            assert actual.keys() == expected[stem].keys()
            assert all(torch.equal(actual[key], expected[stem][key]) for key in actual)
    return [manifest.fields["iter"] for manifest in found.complete]


# Saving and loading


def test_fields_come_back(tmp_path):
    fields = {"epoch": 1, "iter": 2, "state": {"x": [1.5, None, {"$tuple": []}], "nan": float("inf")}}
    path = Store(tmp_path, "run").save("a", {}, fields)
    assert Store(tmp_path, "run").load(path).manifest.fields == fields


def test_a_name_saved_again_is_replaced_and_nothing_else_is_left(tmp_path):
    for number in (1, 2, 3):
        path = saved(tmp_path, number)
    assert path == tmp_path / "a"
    assert whole(tmp_path) == [3]
    assert os.listdir(tmp_path) == ["a"]


def test_an_unknown_stem_is_a_key_error_naming_those_there(tmp_path):
    loaded = Store(tmp_path, "run").load(saved(tmp_path, 1))
    with pytest.raises(KeyError, match="has no 'ema'; it has model, rng"):
        loaded.tensors("ema")


def test_a_renamed_copy_loads_when_asked_for_by_path(tmp_path):
    copy = shutil.copytree(saved(tmp_path / "root", 1), tmp_path / "best")
    assert Store(tmp_path, "run").load(str(copy)).manifest.name == "a"


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a.damaged-1"])
def test_bad_names_are_refused_before_anything_is_written(tmp_path, name):
    store = Store(tmp_path / "root", "run")
    for attempt in (lambda: store.save(name, {}, {}), lambda: store.remove(name)):
        with pytest.raises(BadName):
            attempt()
    for attempt in (lambda: store.save("a", {name: {}}, {}), lambda: Store(tmp_path, name)):
        with pytest.raises(BadName):
            attempt()
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("tensors", "fields", "message"),
    [
        (
            {"m": {"w": torch.zeros(1, dtype=torch.complex128)}},
            {},
            "Tensor 'w' of file 'm' is torch.complex128; a file holds ",
        ),
        (
            {"m": {"w": torch.zeros(1).to_sparse()}},
            {},
            "is torch.sparse_coo on cpu; a file holds dense tensors with data.",
        ),
        (
            {"m": {"w": torch.zeros(1, device="meta")}},
            {},
            "is torch.strided on meta; a file holds dense tensors with data.",
        ),
        (
            {"m": {"w": [1.0]}},
            {},
            "Tensor 'w' of file 'm' is a list; a file holds plain tensors: gather or convert it.",
        ),
        ({}, {"files": 1}, "Field 'files' is reserved; the manifest writes it itself: use another name."),
        ({}, {"a": [{1: 2}]}, "A key of fields.a[0] is 1; JSON keys are text: use state_tensors.split."),
        ({}, {"a": types.MappingProxyType({})}, "fields.a is a mappingproxy; a manifest holds JSON: "),
        ({}, {"a": {"b": {3}}}, "fields.a.b is a set; a manifest holds JSON: use state_tensors.split."),
        ({}, {"a": 1 << 20_000}, "fields.a is an integer of 20001 bits; JSON holds less: use split."),
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, tensors, fields, message
):
    with pytest.raises(Unsavable) as caught:
        Store(tmp_path / "root", "run").save("a", tensors, fields)
    assert message in str(caught.value)
    assert not (tmp_path / "root").exists()


# Damage


def test_no_flipped_byte_is_ever_loaded(tmp_path):
    """Every byte of every file, the manifest too: another epoch number is as wrong as another weight."""
    store = Store(tmp_path, "run")
    path = store.save(
        "a", {"m": {"w": torch.tensor([1.0])}, "r": {"s": torch.tensor([2], dtype=torch.uint8)}}, {"iter": 1}
    )
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for position in range(len(good)):
            for mask in (0x01, 0x20, 0xFF):
                file.write_bytes(good[:position] + bytes([good[position] ^ mask]) + good[position + 1 :])
                with pytest.raises(DamagedCheckpoint):
                    store.load(path)
        file.write_bytes(good)
    assert store.load(path).tensors("m")["w"].item() == 1.0


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_found(tmp_path):
    saved(tmp_path, 1, name="a")
    path = saved(tmp_path, 2, name="b")
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(DamagedCheckpoint) as caught:
        Store(tmp_path, "run").load(path)
    assert str(caught.value).startswith(
        f"Checkpoint {path} is damaged and was not loaded: file 'model.safetensors' has SHA-256 "
    )
    assert str(caught.value).endswith(": its bytes changed. Set it aside and resume from the one before.")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    set_aside(path)
    assert whole(tmp_path) == [1]


def test_nothing_where_a_checkpoint_should_be_is_damage(tmp_path):
    with pytest.raises(DamagedCheckpoint, match=r"holds no manifest\.json"):
        Store(tmp_path, "run").load(tmp_path / "missing")


def test_a_file_gone_after_verification_is_damage(tmp_path):
    loaded = Store(tmp_path, "run").load(saved(tmp_path, 1))
    Store(tmp_path, "run").remove("a")
    with pytest.raises(DamagedCheckpoint, match=r"file 'model\.safetensors' cannot be read"):
        loaded.tensors("model")


def test_a_name_taken_by_a_damaged_checkpoint_can_be_saved_again(tmp_path):
    (saved(tmp_path, 1) / "manifest.json").write_text("{")
    saved(tmp_path, 2)
    assert whole(tmp_path) == [2]
    assert os.listdir(tmp_path) == ["a"]


# Removing and sweeping


def test_remove_takes_the_name_and_the_one_before_it(tmp_path):
    shutil.copytree(saved(tmp_path, 1), tmp_path / ".old-a-1")
    saved(tmp_path, 2, name="a-b")
    Store(tmp_path, "run").remove("a")
    Store(tmp_path, "run").remove("never there")
    Store(tmp_path / "no root", "run").remove("a")
    assert os.listdir(tmp_path) == ["a-b"]


def test_sweep_clears_temporaries_and_restores_what_was_moved_aside(tmp_path):
    saved(tmp_path, 1, name="a").rename(tmp_path / ".old-a-1")
    shutil.copytree(saved(tmp_path, 2, name="b"), tmp_path / ".old-b-1")
    (tmp_path / ".tmp-c-dead").mkdir()
    (tmp_path / ".tmp-d-dead").write_text("")
    (tmp_path / ".mine").mkdir()
    assert Store(tmp_path, "run").sweep() == (".old-b-1", ".tmp-c-dead", ".tmp-d-dead")
    assert sorted(os.listdir(tmp_path)) == [".mine", "a", "b"]
    assert whole(tmp_path) == [1, 2]
    assert Store(tmp_path / "no root", "run").sweep() == ()


def test_sweep_keeps_the_one_before_a_damaged_one(tmp_path):
    shutil.copytree(saved(tmp_path, 1), tmp_path / ".old-a-1")
    (tmp_path / "a" / "model.safetensors").unlink()
    assert Store(tmp_path, "run").sweep() == ()
    assert [found.fields["iter"] for found in scan(tmp_path).complete] == [1]
