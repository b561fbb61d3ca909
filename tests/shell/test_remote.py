"""Weights by URL: fetched once, verified, used by every rank; sent whole or not at all."""

import contextlib
import functools
import http.server
import json
import pathlib
import threading

import fsspec
import pytest
import torch

from shell import remote, weights
from shell.checkpoints import Store
from shell.exporting import ExportRefused, export
from shell.results import CheckpointRefused
from tests.ranks import run_ranks
from tests.shell import toys

STATE = {"0.weight": torch.ones(2, 3), "0.bias": torch.arange(2.0)}


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"), "run").save("one", {"model": STATE}, {})


@contextlib.contextmanager
def served(folder):
    """(the URL of a folder, the paths that were asked for)."""
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("target", ["memory://bucket/net.safetensors", "memory://bucket/hf"])
@pytest.mark.parametrize("most", [1, 10**9])
def test_what_is_exported_to_a_url_is_read_from_it(memory, checkpoint, target, most, tmp_path):
    assert export(checkpoint, target, averages=False, max_shard=most) == 2
    found = remote.fetched(target, str(tmp_path))
    here = remote.local(target, str(tmp_path))
    assert found.size == sum(one.size for one in found.files) == sum(
        path.stat().st_size for path in here.parent.iterdir() if path.name != remote.RECORD
    )  # fmt: skip
    read = weights.read(str(here))
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)


def test_what_has_not_changed_is_fetched_once(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "there" / "net.safetensors", averages=False, max_shard=1)
    url = f"file://{tmp_path}/there/net.safetensors"
    first = remote.fetched(url, str(tmp_path / "w"))
    here = remote.local(url, str(tmp_path / "w"))
    before = here.stat().st_ino
    assert remote.fetched(url, str(tmp_path / "w")) == first
    assert here.stat().st_ino == before
    here.write_bytes(b"damaged here")
    assert remote.fetched(url, str(tmp_path / "w")) == first
    assert weights.read(str(here)).keys() == STATE.keys()
    (tmp_path / "there" / "net.safetensors").write_bytes(b"another there")
    assert remote.fetched(url, str(tmp_path / "w")) != first
    assert here.read_bytes() == b"another there"


def test_an_export_that_fails_leaves_nothing_there(memory, monkeypatch):
    def parts():
        yield b"half"
        raise OSError(5, "Input/output error")

    with pytest.raises(remote.RemoteFailed) as caught:
        remote.send("memory://bucket/hf", {"a": [b"whole"], "b": parts()})
    assert str(caught.value) == (
        "memory://bucket/hf failed: OSError: [Errno 5] Input/output error. Check the URL, the network and the permissions."
    )
    assert memory.find("/") == []


def test_a_place_that_is_taken_is_refused(memory, checkpoint):
    memory.pipe("/bucket/net.safetensors", b"mine")
    with pytest.raises(ExportRefused) as caught:
        export(checkpoint, "memory://bucket/net.safetensors", averages=False, max_shard=1)
    assert str(caught.value) == (
        "memory://bucket/net.safetensors is there already. Name a new file or directory, or remove it."
    )
    assert memory.cat("/bucket/net.safetensors") == b"mine"


def test_a_package_that_is_not_installed_is_named(tmp_path, checkpoint):
    """s3fs and the like are no dependency of ours."""
    with pytest.raises(CheckpointRefused) as caught:
        remote.fetched("s3://bucket/net.pth", str(tmp_path))
    assert str(caught.value) == (
        "s3://bucket/net.pth needs a package that is not installed: Install s3fs to access S3. "
        'pip install "flexcore[remote]" has fsspec and http; other protocols want the package of their own.'
    )
    with pytest.raises(ExportRefused, match=r"^nothing://x needs|^nothing://x cannot be reached: ValueError"):
        export(checkpoint, "nothing://x", averages=False, max_shard=1)


MISLEADING = {
    "a directory without weights": ({"/b/notes.txt": b""}, "memory://b", "/b is a directory without model.safetensors"),
    "nothing there": ({}, "memory://b/net.pth", "memory://b/net.pth failed: FileNotFoundError: "),
    "an index that climbs out": (
        {"/b/model.safetensors.index.json": json.dumps({"weight_map": {"w": "../../out.safetensors"}}).encode()},
        "memory://b", "model.safetensors.index.json names '../../out.safetensors', which is no .safetensors file beside it"),
    "an index that is none": (
        {"/b/model.safetensors.index.json": b"[" * 10**5}, "memory://b", "model.safetensors.index.json cannot be read: "),
}  # fmt: skip


@pytest.mark.parametrize("name", MISLEADING)
def test_what_misleads_is_refused_and_leaves_nothing(memory, name, tmp_path):
    files, url, told = MISLEADING[name]
    for path, data in files.items():
        memory.pipe(path, data)
    with pytest.raises(CheckpointRefused) as caught:
        remote.fetched(url, str(tmp_path / "w"))
    assert str(caught.value).startswith(told)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_record_that_lies_is_not_believed(tmp_path):
    """Of names that lead out of it, too."""
    export(Store(tmp_path / "s", "r").save("one", {"model": STATE}, {}), tmp_path / "n.safetensors", averages=False, max_shard=1)  # fmt: skip
    url = f"file://{tmp_path}/n.safetensors"
    remote.fetched(url, str(tmp_path / "w"))
    record = remote.local(url, str(tmp_path / "w")).parent / remote.RECORD
    told = json.loads(record.read_text())
    for lie in ({**told, "begin": "../../../n.safetensors"}, {**told, "files": 3}, []):
        record.write_text(json.dumps(lie))
        with pytest.raises(CheckpointRefused, match=r"was fetched to .* and it is not there"):
            remote.local(url, str(tmp_path / "w"))
        remote.fetched(url, str(tmp_path / "w"))


def test_ranks_start_from_an_http_server_that_is_asked_once(tmp_path):
    """A server without ranges, as Python's own is; the file goes to the work_dir, and each rank reads it there."""
    (tmp_path / "there").mkdir()
    state = {f"module.{name}": value for name, value in toys.Net().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "there" / "net.pth")
    with served(tmp_path / "there") as (url, asked):
        lacks = toys.config(tmp_path / "l", load_from=f"{url}/none.pth", resume=False)
        has = toys.config(tmp_path / "w", load_from=f"{url}/net.pth", resume=False)
        first, second = run_ranks(2, toys.several, [lacks, has])
    assert [first[1]["reason"], second[1]["reason"]] == ["done", "done"]
    assert (
        len([path for path in asked if path == "/net.pth"]) <= 3
    )  # its size, then its bytes; no other rank asks
    (here,) = (tmp_path / "w" / "fetched").glob("*/net.pth")
    assert here.read_bytes() == (tmp_path / "there" / "net.pth").read_bytes()
    assert toys.differences(tmp_path / "w") == []
    assert first[0]["reason"].startswith(f"CheckpointRefused: {url}/none.pth failed: FileNotFoundError: ")
    assert second[0]["reason"].startswith(f"PeerFailed: rank 0 failed: {url}/none.pth failed: ")
    assert not list(pathlib.Path(tmp_path, "l").glob("**/*.pth"))
