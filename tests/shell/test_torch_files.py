"""PyTorch's files are read without torch.load, to the bit as torch.load(weights_only=True) reads them."""

import io
import pathlib
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shell import torch_files
from shell.inert import NotInert
from shell.mapped import Mapped

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool,
          torch.complex64, torch.uint16, torch.float8_e4m3fn)  # fmt: skip


@st.composite
def tensors(draw):
    """Of any type, whole or a view: transposed, cut, spread, a parameter, empty, without dimensions."""
    base = (torch.arange(24) % 7).to(draw(st.sampled_from(DTYPES)))
    return draw(st.sampled_from((
        base, base.view(4, 6).t(), base[3:20:4], base[5:6].expand(3, 1), base[2], base[:0], base.view(2, 3, 4)[:, 1],
        torch.nn.Parameter(base, requires_grad=False),
    )))  # fmt: skip


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    SCALARS | tensors() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(-(2**40), 2**40), inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def same(one, other):
    if isinstance(other, torch.Tensor):
        return (
            isinstance(one, torch.Tensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.contiguous()
            .view(-1)
            .view(torch.uint8)
            .equal(other.contiguous().view(-1).view(torch.uint8))
        )
    if isinstance(other, dict):
        return (
            isinstance(one, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in other)
        )
    if isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bytes_of(one) == other and (isinstance(other, bytes) or type(one) is type(other))


def bytes_of(one):
    """Protocol 2 has no bytes: they are written as a call of _codecs.encode, which stays one here."""
    made = getattr(one, "of", None)
    if made is None:
        return one
    return one.arguments[0].encode("latin1") if made.path == "_codecs.encode" else b""


@settings(deadline=None, max_examples=50)
@given(TREES, st.booleans(), st.sampled_from((2, 4)))
def test_trees_are_what_torch_saved(tmp_path_factory, tree, zipped, protocol):
    path = pathlib.Path(tmp_path_factory.getbasetemp(), "tree.pt")
    torch.save(tree, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found = torch_files.read(path)
    assert found.damaged() is None
    assert same(Mapped(found).of(found.tree), tree)


def test_each_byte_that_changes_is_seen_or_means_nothing(tmp_path):
    """An archive's checksums cover its pickle and its tensors; between them there is padding."""
    tree = {"w": torch.arange(3.0), "b": torch.arange(2)}
    torch.save(tree, tmp_path / "good.pt")
    good, bad = (tmp_path / "good.pt").read_bytes(), tmp_path / "bad.pt"
    silent = 0
    for place in range(0, len(good), 3):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        try:
            found = torch_files.read(bad)
            if found.damaged() is None:
                silent += 1
                assert same(Mapped(found).of(found.tree), tree), place
        except NotInert:
            continue
    assert silent < len(good)


def test_each_truncation_is_seen(tmp_path):
    for zipped in (True, False):
        torch.save({"w": torch.arange(3.0)}, tmp_path / "good.pt", _use_new_zipfile_serialization=zipped)
        good = (tmp_path / "good.pt").read_bytes()
        for length in range(0, len(good), 3):
            (tmp_path / "bad.pt").write_bytes(good[:length])
            with pytest.raises(NotInert):
                torch_files.read(tmp_path / "bad.pt")


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        torch.save({"w": torch.ones(2)}, tmp_path / "net.pt")
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    found = torch_files.read(tmp_path / "net.pt")
    assert found.damaged() is None
    assert list(found.tree) == ["w"]


def test_a_program_of_torchscript_is_none(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        for name in ("net/data.pkl", "net/code/net.py", "net/constants.pkl"):
            archive.writestr(name, b"")
    with pytest.raises(NotInert, match=r"^is a TorchScript program$"):
        torch_files.read(tmp_path / "net.pt")


def test_another_byte_order_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "net.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(NotInert, match=r"^is from a machine of another byte order$"):
        torch_files.read(tmp_path / "net.pt")
