"""Files made to harm: none executes anything, hangs, or takes memory; each is refused with its name, or read as what it holds.

A payload that ran would make the directory that HARM names; nothing else may come to stand outside of what was made.
"""

import io
import json
import os
import pathlib
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable

import pytest
import torch

from shell import inert, inventory, manifests, mmengine_files, torch_files, weights
from shell.checkpoints import DamagedCheckpoint, Store
from shell.exporting import export
from shell.inert import NotInert
from shell.mapped import Mapped
from shell.results import CheckpointRefused
from shell.state_tensors import StateMismatch, join

STATE = {"w": torch.arange(4.0)}
MOST_MEMORY = 400 * 2**20
MOST_SECONDS = 20  # of a machine that does other things; none takes one alone


class Payload:
    """What runs if it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


@pytest.fixture(autouse=True)
def harmless(tmp_path, monkeypatch):
    harm = tmp_path / "executed"
    monkeypatch.setenv("HARM", str(harm))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    yield
    assert not harm.exists()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY
    assert time.perf_counter() - began < MOST_SECONDS


# --- PyTorch's files ---------------------------------------------------------------------------


def zipped(pickled: bytes, records: dict[str, bytes] | None = None) -> bytes:
    """An archive as torch writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        for name, data in {"net/data/0": bytes(16), **(records or {})}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def saved(tree, **settings) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer, **settings)
    return buffer.getvalue()


def op(*parts: object) -> bytes:
    """A pickle of protocol 2 of raw instructions."""
    return (
        b"\x80\x02"
        + b"".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
        + b"."
    )


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
"""Pushes the record "0" as a storage of four elements."""
MKDIR = b"cposix\nmkdir\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(function: bytes = MKDIR) -> bytes:
    return function + text(os.environ["HARM"]) + b"\x85R"


def tensor(size: str, stride: str, offset: str = "K\x00") -> bytes:
    """{"w": a view of STORAGE}, sizes and strides as instructions."""
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + offset.encode("latin1")
    made += b"(" + size.encode("latin1") + b"t(" + stride.encode("latin1") + b"t\x89}tR"
    return op(b"}", text("w"), made, b"s")


def with_entry(change: Callable[[zipfile.ZipInfo], None], name: str = "net/data/0") -> bytes:
    """A good archive, one entry of which tells what `change` makes it tell."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        with zipfile.ZipFile(io.BytesIO(saved(STATE))) as good:
            for one in good.infolist():
                archive.writestr(one.filename.replace("archive/", "net/"), good.read(one))
        change(archive.getinfo(name))
    return buffer.getvalue()


def set_to(**fields):
    return lambda info: [setattr(info, key, value) for key, value in fields.items()]


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for pickled in (pickle.dumps({}), op(call())):
            archive.writestr("net/data.pkl", pickled)
    return buffer.getvalue()


def deflated() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(2**28))
    return buffer.getvalue()


def laughs() -> bytes:
    """A tuple of two of a tuple of two of ...: forty levels, of which nothing may be spelt out."""
    return op(b"}", text("w"), b")", b"2\x86" * 40, b"s")


def as_keys() -> bytes:
    return op(b"}", b")", b"2\x86" * 40, b"K\x01s")


def old_with(place: int, payload: bytes) -> bytes:
    """A file of torch before 1.6 with one of its five pickles replaced."""
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2),
             pickle.dumps({}, 2), pickle.dumps([], 2)]  # fmt: skip
    parts[place] = payload
    return b"".join(parts)


# By what it does: its bytes, and how the refusal begins; None: it is read, as inert data.
FILES: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "a bare pickle that calls": (lambda: pickle.dumps(Payload()), "is a pickle, and not one of torch's"),
    "a bare pickle of protocol 0": (lambda: pickle.dumps(Payload(), 0), "is neither an archive nor a pickle"),
    "a payload as the tree": (lambda: saved(Payload()), "holds a posix.mkdir, not tensors by name"),
    "a payload as the tree, in protocol 4": (lambda: saved(Payload(), pickle_protocol=4), "holds a posix.mkdir, not"),
    "a payload as the tree, in the old format": (lambda: saved(Payload(), _use_new_zipfile_serialization=False), "holds a"),
    "a payload in the state_dict": (lambda: saved({"state_dict": {**STATE, "x": Payload()}}), "holds a mapping with w, x"),
    "a payload beside the state_dict": (lambda: saved({"state_dict": STATE, "hub": Payload()}), None),
    "a payload in meta": (lambda: saved({"state_dict": STATE, "meta": {"iter": Payload()}}), None),
    "a payload for hyper-parameters": (lambda: saved({"state_dict": STATE, "hyper_parameters": [Payload()] * 9}), None),
    "a payload as a key": (lambda: zipped(op(b"}", call(), b"K\x01s")), "uses as a key what is neither text nor a number"),
    "a payload as a storage": (
        lambda: zipped(op(b"ctorch._utils\n_rebuild_tensor_v2\n(", call(), b"K\x00))\x89}tR")), "builds a tensor of what is no"),
    "a payload as a persistent id": (lambda: zipped(op(call(), b"Q")), "refers to what is no storage"),
    "a payload as a storage's kind": (
        lambda: zipped(op(b"(", text("storage"), call(), text("0"), text("cpu"), b"K\x04tQ")), "refers to what is no storage"),
    "a persistent id of protocol 0": (lambda: zipped(b"Pmkdir\n."), "uses PERSID, which data has no use for"),
    "INST": (lambda: zipped(op(b"(", text(os.environ["HARM"]), b"iposix\nmkdir\n")), "holds a posix.mkdir, not"),
    "OBJ": (lambda: zipped(op(b"(", MKDIR, text(os.environ["HARM"]), b"o")), "holds a posix.mkdir, not"),
    "NEWOBJ": (lambda: zipped(op(MKDIR, text(os.environ["HARM"]), b"\x85\x81")), "holds a posix.mkdir, not"),
    "NEWOBJ_EX": (lambda: zipped(op(MKDIR, text(os.environ["HARM"]), b"\x85}\x92")), "holds a posix.mkdir, not"),
    "STACK_GLOBAL": (
        lambda: zipped(op(text("posix"), text("mkdir"), b"\x93", text(os.environ["HARM"]), b"\x85R")), "holds a posix.mkdir"),
    "the extension registry": (lambda: zipped(op(b"\x82\x01")), "uses EXT1, which data has no use for"),
    "out-of-band buffers": (lambda: zipped(op(b"\x97")), "uses NEXT_BUFFER, which data has no use for"),
    "eval by getattr": (
        lambda: zipped(op(b"c__builtin__\ngetattr\nc__builtin__\n__dict__\n", text("eval"), b"\x86R")), "holds a __builtin__.getattr"),
    "a pickle within, through torch's own loader": (
        lambda: zipped(op(b"ctorch.storage\n_load_from_bytes\nC", bytes([4]), b"null\x85R")), "holds a torch.storage._load_from"),
    "new code for torch's function": (
        lambda: zipped(op(b"ctorch._utils\n_rebuild_tensor_v2\n}", text("__code__"), call(), b"sb")), "holds a Named"),
    "state for a dict": (lambda: zipped(op(b"}}", text("__class__"), MKDIR, b"sb")), "holds a dict, not tensors by name"),
    "an import for its side effects": (lambda: zipped(op(b"cantigravity\nfly\n)R")), "holds a antigravity.fly, not"),
    "a tuple that unfolds to 2^40": (lambda: zipped(laughs()), "holds a mapping with w, not tensors by name"),
    "a key that unfolds to 2^40": (lambda: zipped(as_keys()), "uses as a key what is neither text nor a number"),
    "a hundred thousand levels": (lambda: zipped(op(b"(" * 10**5, b"l" * 10**5)), "holds a list, not tensors by name"),
    "a list that holds itself": (lambda: zipped(op(b"]q\x00h\x00a")), "holds a list, not tensors by name"),
    "one long list taken a thousand times": (
        lambda: zipped(op(b"](", b"N" * 10**5, b"eq\x000", b"c__builtin__\nset\nh\x00\x85R0" * 1000, b"N")), "holds a NoneType"),
    "text of 2^60 bytes": (lambda: zipped(op(b"\x8d", struct.pack("<Q", 2**60), b"x")), "is no whole pickle: "),
    "bytes of 2^60 bytes in the old format": (
        lambda: old_with(3, b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x"), "is no whole pickle: "),
    "an integer of 10^5 digits": (lambda: zipped(b"L" + b"9" * 10**5 + b"L\n."), "is no whole pickle: "),
    "integers that collide": (lambda: zipped(op(b"}\x8a\x09", (2**64 - 8).to_bytes(9, "little"), b"Ns")), "uses an integer of more"),
    "a stack that is empty": (lambda: zipped(op(b"R")), "is no whole pickle: "),
    "a memo that was never filled": (lambda: zipped(op(b"h\x07")), "is no whole pickle: "),
    "no end": (lambda: zipped(b"\x80\x02}"), "is no whole pickle: "),
    "a tensor beyond its storage": (lambda: zipped(tensor("K\x05", "K\x01")), "builds a tensor of [5] that reaches beyond its 4"),
    "a tensor before its storage": (lambda: zipped(tensor("K\x01", "K\x01", "J\xff\xff\xff\xff")), "builds a tensor of what are no"),
    "a tensor of 2^60 elements in four": (
        lambda: zipped(tensor("\x8a\x08" + "\x00" * 7 + "\x10", "K\x00")), None),
    "a storage the file lacks": (lambda: zipped(tensor("K\x04", "K\x01").replace(text("0"), text("7"))), "has 0 bytes in storage '7'"),
    "a storage elsewhere": (lambda: zipped(tensor("K\x04", "K\x01").replace(text("0"), text("../../etc/passwd"))), "has 0 bytes in storage"),
    "a kind of storage that is none": (lambda: zipped(tensor("K\x04", "K\x01").replace(b"FloatStorage", b"os.system")), "has tensors of"),
    "two records of one name": (twice, "has two records called 'net/data.pkl'"),
    "two trees": (lambda: zipped(op(b"}"), {"other/data.pkl": op(b"}")}), "has 2 records called data.pkl"),
    "a zip bomb": (deflated, "has a compressed record, 'net/data.pkl'"),
    "an encrypted record": (lambda: with_entry(set_to(flag_bits=1)), "has an encrypted record, 'net/data/0'"),
    "a record larger than the file": (
        lambda: with_entry(set_to(file_size=2**40, compress_size=2**40)), "ends within its record 'net/data/0'"),
    "a record that lies elsewhere": (lambda: with_entry(set_to(header_offset=2**40)), "has no record 'net/data/0' where"),
    "a symbolic link for a record": (lambda: with_entry(set_to(external_attr=0o120777 << 16)), None),
    "a record called ../../x": (lambda: zipped(pickle.dumps({}, 2), {"../../x": b"x", "/etc/x": b"x"}), "holds a dict, not"),
    "a pickle before the archive": (lambda: pickle.dumps(Payload()) + saved({"state_dict": STATE}), None),
    "a TorchScript program": (lambda: zipped(op(b"}"), {"net/constants.pkl": op(call()), "net/code/x.py": b"1/0"}), "is a TorchScript"),
    "a payload for the machine of the old format": (lambda: old_with(2, pickle.dumps(Payload(), 2)), "is from a machine of another"),
    "a payload for the version of the old format": (lambda: old_with(1, pickle.dumps(Payload(), 2)), "holds a dict, not"),
    "a payload for the keys of the old format": (lambda: old_with(4, pickle.dumps([Payload()], 2)), "lists storages that nothing"),
    "an empty file": (lambda: b"", "is neither an archive nor a pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_pytorchs_does_nothing(name, tmp_path):
    made, expected = FILES[name]
    path = tmp_path / "net.pth"
    path.write_bytes(made())
    for way in (weights.check, weights.read):
        if expected is None:
            way(str(path))
            continue
        with pytest.raises(CheckpointRefused) as caught:
            way(str(path))
        assert str(caught.value).startswith(f"{path} {expected}")
    assert mmengine_files.fact(str(path)) is None
    with pytest.raises(CheckpointRefused) as caught:
        mmengine_files.opened(str(path))
    assert str(path) in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.pth"]


def test_what_a_hostile_file_holds_besides_is_kept_as_words(tmp_path):
    (tmp_path / "net.pth").write_bytes(saved({"state_dict": STATE, "hub": Payload()}))
    found = torch_files.read(tmp_path / "net.pth")
    assert found.tree["hub"].of.path == "posix.mkdir"
    assert found.tree["hub"].arguments == (os.environ["HARM"],)
    with pytest.raises(NotInert, match=r"^has tensors of os\.system, which is unknown$"):
        Mapped(found).tensor(inert.Tensor(inert.Storage("os.system", "0", 1), 0, (1,), (1,)))


# --- safetensors and Hugging Face's index --------------------------------------------------------


def safe(header: object, data: bytes = bytes(16)) -> bytes:
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFE: dict[str, Callable[[], bytes]] = {
    "a header of 2^63 bytes": lambda: (2**63).to_bytes(8, "little") + b"{}",
    "a header of 200 MB that is not there": lambda: (2 * 10**8).to_bytes(8, "little") + b"{}",
    "tensors that overlap": lambda: safe({"a": entry(0, 16, [4]), "b": entry(8, 16, [2])}),
    "a hole between tensors": lambda: safe({"a": entry(0, 4, [1]), "b": entry(8, 16, [2])}),
    "a tensor beyond the file": lambda: safe({"a": entry(0, 64, [16])}),
    "a tensor that ends before it begins": lambda: safe({"a": entry(8, 0, [2])}),
    "a shape that is not its bytes": lambda: safe({"a": entry(0, 16, [3])}),
    "a shape that overflows": lambda: safe({"a": entry(0, 16, [2**62, 4])}),
    "a negative shape": lambda: safe({"a": entry(0, 16, [-4])}),
    "a dtype that is none": lambda: safe({"a": entry(0, 16, [4], "os.system")}),
    "two tensors of one name": lambda: safe(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}}', bytes(32)),
    "a header of a hundred thousand levels": lambda: safe(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "a header that is no mapping": lambda: safe([1, 2]),
    "bytes after the tensors": lambda: safe({"a": entry(0, 16, [4])}, bytes(32)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_a_safetensors_file_that_lies_is_refused(name, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(SAFE[name]())
    with pytest.raises(CheckpointRefused) as caught:
        weights.read(str(path))
    assert str(caught.value).startswith(f"{path} is no file of weights: SafetensorError: ")


def index(folder: pathlib.Path, file: str, raw: bytes | None = None) -> None:
    told = json.dumps({"weight_map": {"w": file}}).encode() if raw is None else raw
    (folder / weights.INDEX).write_bytes(told)


def fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


INDEXES: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    "a shard above": (lambda f: index(f, "../net.safetensors"), "names '../net.safetensors', which is no"),
    "a shard at the root": (lambda f: index(f, "/etc/passwd.safetensors"), "names '/etc/passwd.safetensors', which"),
    "a shard with a NUL": (lambda f: index(f, "a\0.safetensors"), "names 'a\\x00.safetensors', which is no"),
    "a shard that is a pickle": (lambda f: index(f, "net.pth"), "names 'net.pth', which is no"),
    "a shard that is a number": (lambda f: index(f, "", b'{"weight_map": {"w": 3}}'), "names 3, which is no"),
    "an index of a hundred thousand levels": (lambda f: index(f, "", b"[" * 10**5), "cannot be read: RecursionError"),
    "an index of a huge number": (lambda f: index(f, "", b'{"weight_map": ' + b"9" * 10**5 + b"}"), "cannot be read: ValueError"),
    "a shard that is a pipe": (
        lambda f: (index(f, "x.safetensors"), fifo(f / "x.safetensors")), "is no file of weights: OSError: "),
    "a shard that is a device": (
        lambda f: (index(f, "x.safetensors"), (f / "x.safetensors").symlink_to("/dev/zero")), "is no file of weights: OSError: "),
}  # fmt: skip


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_leads_nowhere_else(name, tmp_path):
    make, expected = INDEXES[name]
    make(tmp_path)
    for way in (weights.check, weights.read):
        with pytest.raises(CheckpointRefused) as caught:
            way(str(tmp_path / weights.INDEX))
        assert expected in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_pipes_and_devices_in_place_of_files_are_none(tmp_path):
    fifo(tmp_path / "net.pth")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("net.pth", "zero.safetensors"):
        assert not weights.is_foreign(str(tmp_path / name))
        assert isinstance(manifests.read(tmp_path / name), manifests.Damaged)


# --- manifests -----------------------------------------------------------------------------------


def forged(path: pathlib.Path, change: Callable[[dict], object]) -> None:
    """Sealed anew after the change: a seal tells damage, and anyone can make one."""
    file = path / manifests.MANIFEST
    told = json.loads(file.read_bytes())
    told.pop("manifest_sha256")
    changed = change(told)
    told = told if changed is None else changed
    files = told.pop("files", {})
    name, version = told.pop("name", None), told.pop("format_version", None)
    lines = [
        f'"format_version": {json.dumps(version)}',
        f'"name": {json.dumps(name)}',
        f'"files": {json.dumps(files)}',
    ]
    lines += [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in told.items()]
    body = (",\n".join(lines) + "\n}\n").encode()
    seal = manifests.hashlib.sha256(body).hexdigest()
    file.write_bytes(b'{"manifest_sha256": "%s",\n' % seal.encode() + body)


def renamed_file(new: object) -> Callable[[dict], object]:
    return lambda told: told["files"].update({new: told["files"].pop("model.safetensors")})


def replaced(path: pathlib.Path, make: Callable[[pathlib.Path], object]) -> None:
    tensors = path / "model.safetensors"
    tensors.rename(path.parent.parent / "elsewhere.safetensors")
    make(tensors)


MANIFESTS: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    "a file above": (lambda p: forged(p, renamed_file("../x.safetensors")), "file name '../x.safetensors' is empty or begins"),
    "a file at the root": (lambda p: forged(p, renamed_file("/etc/x.safetensors")), "file name '/etc/x.safetensors' holds a path"),
    "a file within": (lambda p: forged(p, renamed_file("a/x.safetensors")), "file name 'a/x.safetensors' holds a path separator"),
    "a file with a NUL": (lambda p: forged(p, renamed_file("a\0.safetensors")), "file name 'a\\x00.safetensors' holds a path"),
    "a file with a line break": (lambda p: forged(p, renamed_file("a\n.safetensors")), "file name 'a\\n.safetensors' holds a path"),
    "a pickle for a file": (lambda p: forged(p, renamed_file("model.pth")), "file name 'model.pth' does not end in .safetensors"),
    "another size": (lambda p: forged(p, lambda t: t["files"]["model.safetensors"].update(size=3)), "bytes, not 3"),
    "a size of 10^400": (lambda p: forged(p, lambda t: t["files"]["model.safetensors"].update(size=10**400)), "bytes, not 1000"),
    "a size that is true": (lambda p: forged(p, lambda t: t["files"]["model.safetensors"].update(size=True)), "has no SHA-256 and size"),
    "another hash": (lambda p: forged(p, lambda t: t["files"]["model.safetensors"].update(sha256="0" * 64)), "its bytes changed"),
    "a hash that is none": (lambda p: forged(p, lambda t: t["files"]["model.safetensors"].update(sha256="x")), "has no SHA-256"),
    "files that are a list": (lambda p: forged(p, lambda t: t.update(files=[1])), "has no table of files"),
    "a name above": (lambda p: forged(p, lambda t: t.update(name="../one")), "its manifest's name '../one' is empty or begins"),
    "a name of another": (lambda p: forged(p, lambda t: t.update(name="two")), "its manifest names 'two', not 'one'"),
    "a newer format": (lambda p: forged(p, lambda t: t.update(format_version=2)), "format_version is 2; this flexcore reads 1"),
    "an iteration that is NaN": (lambda p: forged(p, lambda t: t.update(iter=float("nan"))), "its manifest's iter nan is no count"),
    "an iteration of 10^400": (lambda p: forged(p, lambda t: t.update(iter=10**400)), "is no count"),
    "an iteration below 0": (lambda p: forged(p, lambda t: t.update(iter=-1)), "its manifest's iter -1 is no count"),
    "an epoch that is a mapping": (lambda p: forged(p, lambda t: t.update(epoch={"$ne": 1})), "its manifest's epoch {'$ne': 1} is no count"),
    "a trajectory that is a number": (lambda p: forged(p, lambda t: t.update(trajectory=5)), "its manifest's trajectory 5 is no list of pairs"),
    "a retired checkpoint above": (lambda p: forged(p, lambda t: t.update(retire=["../../x"])), "its manifest retires ['../../x'], which"),
    "a hundred thousand levels": (
        lambda p: (p / manifests.MANIFEST).write_bytes(sealed(b'"x": ' + b"[" * 10**5)), "manifest.json is not JSON: "),
    "no mapping": (lambda p: (p / manifests.MANIFEST).write_bytes(b"[]"), "does not match the SHA-256 in its first line"),
    "a manifest that is a pipe": (
        lambda p: ((p / manifests.MANIFEST).unlink(), fifo(p / manifests.MANIFEST)), "cannot be read: not a regular file"),
    "a manifest that is a link": (
        lambda p: ((p / manifests.MANIFEST).rename(p / "m"), (p / manifests.MANIFEST).symlink_to("m")), "cannot be read: "),
    "tensors that are a link": (
        lambda p: replaced(p, lambda f: f.symlink_to(p.parent.parent / "elsewhere.safetensors")), "is not a regular file"),
    "tensors that are a pipe": (lambda p: replaced(p, fifo), "is not a regular file"),
    "tensors that are a directory": (lambda p: replaced(p, pathlib.Path.mkdir), "is not a regular file"),
}  # fmt: skip


def sealed(rest: bytes) -> bytes:
    return b'{"manifest_sha256": "%s",\n' % manifests.hashlib.sha256(rest).hexdigest().encode() + rest


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_lies_is_told_and_nothing_is_loaded(name, tmp_path):
    store = Store(tmp_path / "checkpoints", "run")
    path = store.save("one", {"model": STATE}, {"iter": 3, "epoch": 1})
    make, expected = MANIFESTS[name]
    make(path)
    text, code = inventory.verified([tmp_path])
    assert code == 1
    assert expected in text
    text, code = inventory.listed(tmp_path)
    assert code == 1
    assert expected in text
    if name == "a name of another":  # a checkpoint that was copied elsewhere is a checkpoint
        return
    with pytest.raises(DamagedCheckpoint) as caught:
        store.load(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(DamagedCheckpoint):
        export(path, tmp_path / "out.safetensors", averages=False, max_shard=10**9)
    assert not (tmp_path / "out.safetensors").exists()


def test_state_that_would_be_read_as_addresses_is_refused():
    """numpy takes bytes for an array of objects, which they would then be addresses of."""
    for made in ({"$scalar": "AAAAAAAAAAA=", "dtype": "|O"}, {"$array": "k", "dtype": "|O", "shape": [1]}):
        with pytest.raises(StateMismatch) as caught:
            join(made, {"k": torch.zeros(8, dtype=torch.uint8)})
        assert str(caught.value) == "A numpy value is of dtype |O; it must hold numbers, times or text."


@pytest.mark.parametrize(
    ("state", "odd"),
    [(None, "hooks, rng, replay, optimizer"), ([], "hooks, rng, replay, optimizer"), ({"hooks": 3}, "hooks, rng, replay, optimizer"),
     ({"hooks": {}, "rng": [], "replay": [], "optimizer": {}}, "what each rank had"),
     ({"hooks": {}, "rng": [1], "replay": [], "optimizer": {}, "scaler": None}, "what each rank had")],
)  # fmt: skip
def test_state_of_another_form_is_refused(state, odd, tmp_path):
    import shell.execute  # noqa: F401 - which loads what saving needs in an order that works
    from shell import saving

    path = Store(tmp_path, "run").save("one", {"model": STATE}, {"state": state})
    with pytest.raises(CheckpointRefused) as caught:
        saving._state(Store(tmp_path, "run").load(path))
    assert str(caught.value) == f"{path} holds no state to resume: {odd}. Resume another checkpoint."


@pytest.mark.parametrize(
    "made",
    [{"$float": "zz"}, {"$int": []}, {"$dict": [[1]]}, {"$dict": [[[], 1]]}, {"$tuple": 3}, {"$scalar": "AA==", "dtype": "f8"},
     {"$scalar": "", "dtype": "os.system"}, {"$array": "k", "dtype": "f8", "shape": [2**62]}, {"$array": "k", "dtype": "u1", "shape": "x"}],
    ids=str,
)  # fmt: skip
def test_marks_that_are_not_as_they_are_written_are_refused(made):
    with pytest.raises(StateMismatch) as caught:
        join(made, {"k": torch.zeros(8, dtype=torch.uint8)})
    assert str(caught.value).startswith(
        f"Mark {next(iter(made))!r} is not as it is written; it cannot be read back ("
    )


# --- where we write ----------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["one", ".tmp-one-run", ".old-one-1"])
def test_a_link_in_the_store_leads_nowhere(link, tmp_path):
    """What a link points to stays as it is, whatever name of the store's own it has taken."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / link).symlink_to(outside)
    store = Store(tmp_path / "checkpoints", "run")
    store.sweep()
    path = store.save("one", {"model": STATE}, {"iter": 1})
    assert not path.is_symlink()
    assert store.load(path).tensors("model")["w"].equal(STATE["w"])
    assert [one.name for one in outside.iterdir()] == ["mine"]
    assert (outside / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["../one", "/one", "a/b", "..", ".one", "", "a\0b", "a\nb", "a\\b", "one.damaged-1"]
)
def test_a_name_that_leads_out_names_no_checkpoint(name, tmp_path):
    with pytest.raises(manifests.BadName):
        Store(tmp_path / "checkpoints", "run").save(name, {"model": STATE}, {})
    assert list(tmp_path.rglob("*")) == []


def test_there_are_fifty_and_more():
    assert len(FILES) + len(SAFE) + len(INDEXES) + len(MANIFESTS) >= 100
