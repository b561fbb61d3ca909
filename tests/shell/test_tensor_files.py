"""Tensors of every kind come back from a checkpoint's files to the bit, mapped from the file."""

import os
import shutil

import safetensors.torch
import torch

from shell.checkpoints import Store
from shell.tensor_files import DTYPES
from tests.shell import toys
from tests.shell.test_checkpoints import saved


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and safetensors.torch.save({"": a}) == safetensors.torch.save({"": b})
    )


def test_every_kind_of_tensor_comes_back_to_the_bit(tmp_path):
    base = torch.randn(4, 6)
    kinds = {str(dtype): torch.arange(-3, 5).to(dtype).reshape(2, 4) for dtype in DTYPES}
    odd = {
        "transposed": base.t(),
        "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(3),
        "view": base[1:3],
        "whole": base,
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negative": torch.tensor([1 + 2j]).conj().imag,
        "parameter": torch.nn.Parameter(base[0]),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    names = {
        name: torch.tensor([index])
        for index, name in enumerate(["", "__metadata__", "a/b", "é\n\0", "\ud800", "%json:x"])
    }
    tensors = {"kinds": kinds, "odd": odd, "names": names, "none": {}}
    path = Store(tmp_path / "deep" / "root", "run").save("a", tensors, {})
    loaded = Store(tmp_path, "run").load(path)
    assert loaded.stems == ("kinds", "odd", "names", "none")
    for stem, part in tensors.items():
        actual = loaded.tensors(stem)
        assert actual.keys() == part.keys()
        for key, tensor in part.items():
            assert same_bits(
                actual[key], tensor.detach().resolve_conj().resolve_neg().clone().contiguous()
            ), key


def test_the_files_are_plain_safetensors(tmp_path):
    path = saved(tmp_path, 3)
    assert torch.equal(safetensors.torch.load_file(path / "model.safetensors")["w"], torch.full((64,), 3.0))
    assert sorted(os.listdir(path)) == ["manifest.json", "model.safetensors", "rng.safetensors"]


def test_loaded_tensors_take_no_memory_and_outlive_their_checkpoint(tmp_path):
    """They are the file itself, mapped: what copies from them holds one at a time, and retention may delete it."""
    path = Store(tmp_path, "run").save("big", {"model": {"w": torch.arange(2**22)}}, {"iter": 1})  # 32 MiB
    before = toys.anonymous()
    tensor = Store(tmp_path, "run").load(path).tensors("model")["w"]
    shutil.rmtree(path)
    assert int(tensor.sum()) == 2**21 * (2**22 - 1)
    assert toys.anonymous() - before < 8 * 2**20
