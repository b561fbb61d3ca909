"""A checkpoint is found whole or not at all, whatever the moment of a kill, and never read once a byte has changed."""

import contextlib
import errno
import json
import os
import pathlib
import pickle
import random
import resource
import shutil
import signal
import sys
import time
import types

import pytest
import safetensors.torch
import torch

from shell.checkpoints import DamagedCheckpoint, RemoveFailed, SaveFailed, Store, Unsavable
from shell.manifests import BadName, scan, set_aside
from shell.state_tensors import DTYPES


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


def in_child(work):
    """The wait status of a forked process that does `work`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = work() or 0
        os._exit(code)
    return os.waitpid(pid, 0)[1]


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and safetensors.torch.save({"": a}) == safetensors.torch.save({"": b})
    )


# Saving and loading


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


def test_loaded_tensors_own_their_memory(tmp_path):
    """They stay as they are when retention deletes the checkpoint or something writes to its file."""
    path = saved(tmp_path, 3)
    tensor = Store(tmp_path, "run").load(path).tensors("model")["w"]
    (path / "model.safetensors").write_bytes(bytes(1000))
    assert torch.equal(tensor, torch.full((64,), 3.0))


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


# Kills and failures

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir"}

OPERATIONS = {
    "replace": (lambda root: saved(root, 2), lambda root: saved(root, 1), ([1], [2])),
    "replace a moved one": (
        lambda root: saved(root, 2),
        lambda root: saved(root, 1).rename(root / ".old-a-1"),
        ([1], [2]),
    ),
    "add": (lambda root: saved(root, 2, name="b"), lambda root: saved(root, 1), ([1], [1, 2])),
    "remove": (lambda root: Store(root, "run").remove("a"), lambda root: saved(root, 1), ([1], [])),
    "sweep": (
        lambda root: Store(root, "run").sweep(),
        lambda root: shutil.copytree(saved(root, 2), root / ".old-a-1").joinpath("../.tmp-x").mkdir(),
        ([2],),
    ),
    "sweep a moved one": (
        lambda root: Store(root, "run").sweep(),
        lambda root: saved(root, 1).rename(root / ".old-a-1"),
        ([1],),
    ),
}


def at_event(root, number, act):
    """From now on `act` at the `number`th file operation under `root`: the interpreter audits each one before doing it."""
    seen = 0

    def has_acted():
        return seen >= number

    def hook(event, arguments):
        nonlocal seen
        if event in FILE_EVENTS and str(root) in str(arguments[0]):
            seen += 1
            if seen == number:
                act()

    sys.addaudithook(hook)
    return has_acted


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_any_file_operation_leaves_the_old_or_the_new(tmp_path, operation):
    act, prepare, outcomes = OPERATIONS[operation]
    seen = []
    for number in range(1, 100):
        root = tmp_path / str(number)
        prepare(root)

        def work(root=root, number=number):
            at_event(root, number, kill)
            act(root)

        status = in_child(work)
        seen.append(whole(root))
        assert seen[-1] in outcomes
        Store(root, "next").sweep()
        assert whole(root) == seen[-1]
        assert [entry for entry in os.listdir(root) if entry.startswith(".")] == []
        if status == 0:
            break
        assert status == signal.SIGKILL
        saved(root, 7)
        assert 7 in whole(root)
    assert number > 3
    assert seen[-1] == outcomes[-1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_failure_of_any_file_operation_leaves_the_old_or_the_new(tmp_path, operation):
    act, prepare, outcomes = OPERATIONS[operation]
    for number in range(1, 100):
        root = tmp_path / str(number)
        prepare(root)
        said = tmp_path / f"said-{number}"

        def work(root=root, number=number, said=said):
            has_failed = at_event(root, number, fail)
            try:
                act(root)
                said.write_text("done")
            except (SaveFailed, RemoveFailed) as error:
                said.write_text(str(error))
            return 0 if has_failed() else 99

        status = os.waitstatus_to_exitcode(in_child(work))
        assert status in (0, 99) or operation.startswith("sweep")
        left = whole(root)
        assert left in outcomes
        if "replace" in operation or operation == "add":
            assert (said.read_text() == "done") <= (left == outcomes[-1])
            assert said.read_text() == "done" or "was not saved: No space left on device" in said.read_text()
        Store(root, "next").sweep()
        assert whole(root) == left
        saved(root, 7)
        assert 7 in whole(root)
        if status == 99:
            break
    assert number > 3


def test_a_file_too_large_for_the_disk_fails_cleanly(tmp_path):
    """A real short write: the kernel refuses bytes past a limit on file size."""
    saved(tmp_path, 1)

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(SaveFailed) as caught:
            Store(tmp_path, "run").save("a", state(2, size=100_000), {"iter": 2})
        assert caught.value.name == "a"
        assert str(caught.value) == (
            "Checkpoint 'a' was not saved: File too large. Earlier checkpoints are intact. "
            "Make the place writable, with room for one more checkpoint, and save again."
        )

    assert in_child(work) == 0
    assert os.listdir(tmp_path) == ["a"]
    assert whole(tmp_path) == [1]


def test_an_interrupt_while_saving_leaves_no_temporary(tmp_path):
    class Interrupting(dict):
        seen = 0

        def items(self):
            self.seen += 1
            if self.seen == 2:  # the first look is before anything is written
                assert (tmp_path / ".tmp-a-run" / "m.safetensors").exists()
                raise KeyboardInterrupt
            return super().items()

    saved(tmp_path, 1)
    store = Store(tmp_path, "run")
    with pytest.raises(KeyboardInterrupt):
        store.save("a", {"m": {"w": torch.zeros(1)}, "n": Interrupting()}, {})
    assert os.listdir(tmp_path) == ["a"]
    assert whole(tmp_path) == [1]


def keep_saving(root, pipe, first, naming):
    store = Store(root, f"run{first}")
    store.sweep()
    for number in range(first, first + 10_000):
        store.save(naming(number), state(number), {"iter": number})
        store.remove(naming(number - 2)) if naming(number) != naming(number - 2) else None
        os.write(pipe, number.to_bytes(8, "little"))


@pytest.mark.parametrize(
    "naming", [lambda _: "last", lambda number: f"iter_{number}"], ids=["same name", "new names"]
)
def test_random_kills_never_lose_the_latest_finished_save(tmp_path, naming):
    delays = random.Random(0)
    last = 0
    for _ in range(10):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                keep_saving(tmp_path, writing, last + 1, naming)
            os._exit(1)
        os.close(writing)
        first = os.read(reading, 8)
        time.sleep(delays.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        with os.fdopen(reading, "rb") as pipe:
            finished = (first + pipe.read())[-8:]
        finished = int.from_bytes(finished, "little")
        last = max(whole(tmp_path))
        assert finished <= last <= finished + 1
    Store(tmp_path, "next").sweep()
    assert [entry for entry in os.listdir(tmp_path) if entry.startswith(".")] == []
    assert (
        json.loads(pathlib.Path(scan(tmp_path).complete[-1].path, "manifest.json").read_bytes())["iter"]
        == last
    )
