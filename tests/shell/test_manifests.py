"""The store is read from names, sizes and sealed manifests, and anything that lies is told apart."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from shell.manifests import (
    BadName,
    FileRecord,
    Manifest,
    check_name,
    read,
    scan,
    seal,
    set_aside,
    verify,
)


def make(root, directory, *, name=None, files=None, fields=None):
    """A checkpoint without torch: any bytes do, since no tensor is opened."""
    path = pathlib.Path(root, directory)
    path.mkdir(parents=True)
    files = {"model.safetensors": b"weights"} if files is None else files
    for file, data in files.items():
        (path / file).write_bytes(data)
    records = [FileRecord(file, hashlib.sha256(data).hexdigest(), len(data)) for file, data in files.items()]
    (path / "manifest.json").write_bytes(seal(name or directory, records, fields or {}))
    return path


def reseal(path, **changes):
    """Rewrite a manifest as a forger or a bug would, with a seal that fits."""
    document = json.loads((path / "manifest.json").read_bytes())
    document = {**document, **changes}
    del document["manifest_sha256"]
    body = json.dumps(document)[1:].encode()
    digest = hashlib.sha256(body).hexdigest()
    (path / "manifest.json").write_bytes(b'{"manifest_sha256": "%s",\n' % digest.encode() + body)


def reason(path):
    (damaged,) = scan(path.parent).damaged
    assert scan(path.parent).complete == ()
    assert damaged.path == str(path)
    return damaged.reason


def test_scan_orders_by_iteration_then_name(tmp_path):
    """iter is compared as a number, ties by name, and a checkpoint without one comes first."""
    for name, fields in [("b", {"iter": 10}), ("a", {"iter": 10}), ("c", {"iter": 9}), ("d", {})]:
        make(tmp_path, name, fields=fields)
    assert [found.name for found in scan(tmp_path).complete] == ["d", "c", "a", "b"]
    assert scan(tmp_path).damaged == ()


def test_scan_of_nothing_finds_nothing(tmp_path):
    assert scan(tmp_path / "missing") == scan(tmp_path)


def test_fields_come_back_as_given(tmp_path):
    fields = {"epoch": 3, "iter": 40, "state": {"best": [0.1, None, float("inf")]}, "note": "\ud800 ü"}
    path = make(tmp_path, "x", fields=fields)
    (found,) = scan(tmp_path).complete
    assert found == read(path)
    assert (found.path, found.name, found.fields) == (str(path), "x", fields)
    assert [record.name for record in found.files] == ["model.safetensors"]


def test_a_manifest_is_standard_json_with_a_line_for_each_field(tmp_path):
    text = (make(tmp_path, "x", fields={"epoch": 3}) / "manifest.json").read_text()
    assert set(json.loads(text)) == {"manifest_sha256", "format_version", "name", "files", "epoch"}
    assert [line.split(":")[0] for line in text.splitlines()[1:]] == [
        '"format_version"',
        '"name"',
        '"files"',
        '"epoch"',
        "}",
    ]


def test_temporary_set_aside_hidden_and_stray_entries_are_ignored(tmp_path):
    for entry in (".tmp-a-run", "a.damaged-1", ".cache"):
        make(tmp_path, entry, name="a")
    (tmp_path / "notes.txt").write_text("mine")
    assert scan(tmp_path) == scan(tmp_path / "missing")


def test_the_one_before_counts_only_while_its_name_is_free(tmp_path):
    """Between the two renames of a save there is no `a`: the moved one stands for it."""
    old = make(tmp_path, ".old-a-1", name="a", fields={"iter": 1})
    assert [found.path for found in scan(tmp_path).complete] == [str(old)]
    new = make(tmp_path, "a", fields={"iter": 2})
    assert [found.path for found in scan(tmp_path).complete] == [str(new)]
    (new / "model.safetensors").unlink()
    assert [found.path for found in scan(tmp_path).complete] == [str(old)]
    assert [found.path for found in scan(tmp_path).damaged] == [str(new)]


def test_a_name_with_dashes_is_not_mistaken_for_another(tmp_path):
    make(tmp_path, ".old-a-b-1", name="a-b")
    make(tmp_path, "a")
    assert [found.name for found in scan(tmp_path).complete] == ["a", "a-b"]


def test_damage_is_named(tmp_path):
    path = make(tmp_path, "x", files={"model.safetensors": b"12345"})
    manifest = (path / "manifest.json").read_bytes()
    (path / "model.safetensors").write_bytes(b"123")
    assert reason(path) == "file 'model.safetensors' has 3 bytes, not 5"
    (path / "model.safetensors").unlink()
    assert reason(path) == "file 'model.safetensors' is missing"
    (path / "manifest.json").write_bytes(manifest[:-1])
    assert reason(path) == "manifest.json does not match the SHA-256 in its first line"
    (path / "manifest.json").unlink()
    assert reason(path) == "holds no manifest.json"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "y"}, "its manifest names 'y', not 'x': it was copied or renamed"),
        ({"name": 3}, "its manifest's name 3 is int, not text"),
        ({"format_version": 2}, "format_version is 2; this flexcore reads 1"),
        ({"format_version": True}, "format_version is True; this flexcore reads 1"),
        ({"files": []}, "manifest.json has no table of files"),
        (
            {"files": {"a.safetensors": {"size": 1}}},
            "file 'a.safetensors' has no SHA-256 and size in manifest.json",
        ),
        ({"files": {"run.py": {}}}, "file name 'run.py' does not end in .safetensors"),
    ],
)
def test_a_sealed_lie_is_refused(tmp_path, changes, expected):
    path = make(tmp_path, "x")
    reseal(path, **changes)
    assert reason(path) == expected


@pytest.mark.parametrize(
    "name", ["/etc/x.safetensors", "../x.safetensors", "..", "a\\b.safetensors", "", "a\0.safetensors"]
)
def test_no_file_name_leads_out_of_the_directory(tmp_path, name):
    path = make(tmp_path, "x")
    reseal(path, files={name: {"sha256": "0" * 64, "size": 1}})
    assert reason(path).startswith(f"file name {name!r} ")


def test_symbolic_links_and_pipes_are_refused(tmp_path):
    """A link could change under us; opening a pipe would hang."""
    path = make(tmp_path / "s", "x")
    good = (path / "manifest.json").read_bytes()
    target = tmp_path / "elsewhere"
    (path / "model.safetensors").rename(target)
    (path / "model.safetensors").symlink_to(target)
    assert reason(path) == "file 'model.safetensors' is not a regular file"
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")
    assert reason(path) == "cannot be read: not a regular file"
    (path / "manifest.json").unlink()
    target.write_bytes(good)
    (path / "manifest.json").symlink_to(target)
    assert reason(path) == "cannot be read: Too many levels of symbolic links"
    link = tmp_path / "links" / "x"
    link.parent.mkdir()
    link.symlink_to(make(tmp_path / "t", "x"))
    assert reason(link) == "is a symbolic link; a checkpoint is a directory"


def test_garbage_with_a_fitting_seal_is_damage_not_a_crash(tmp_path):
    path = make(tmp_path, "x")
    for body in (b"", b"]", b'"a": ' + b"[" * 100_000, b'"a": ' + b"9" * 5000 + b"}", b"\xff"):
        digest = hashlib.sha256(body).hexdigest().encode()
        (path / "manifest.json").write_bytes(b'{"manifest_sha256": "%s",\n' % digest + body)
        assert reason(path).startswith("manifest.json is not JSON: ")


def test_a_manifest_too_large_to_read_is_refused(tmp_path):
    path = make(tmp_path, "x")
    os.truncate(path / "manifest.json", 256 * 2**20 + 1)  # sparse: takes no disk
    assert reason(path) == "manifest.json is larger than 268435456 bytes"


def test_verify_names_each_file_whose_bytes_changed(tmp_path):
    path = make(tmp_path, "x", files={"a.safetensors": b"aa", "b.safetensors": b"bb", "c.safetensors": b""})
    found = read(path)
    assert isinstance(found, Manifest)
    assert verify(found) == ()
    (path / "a.safetensors").write_bytes(b"xx")
    (path / "b.safetensors").unlink()
    assert verify(found) == (
        "file 'a.safetensors' has SHA-256 5dde896887f6..., not 961b6dd3ede3...: its bytes changed",
        "file 'b.safetensors' cannot be read: No such file or directory",
    )


def test_set_aside_takes_the_first_free_number_and_keeps_everything(tmp_path):
    first = set_aside(make(tmp_path, "x"))
    second = set_aside(make(tmp_path, "x"))
    assert [first.name, second.name] == ["x.damaged-1", "x.damaged-2"]
    assert (second / "model.safetensors").read_bytes() == b"weights"
    assert scan(tmp_path) == scan(tmp_path / "missing")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\0b", "\ud800", "x.damaged-2", None]
)
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(BadName):
        check_name("Checkpoint", name)


def test_a_bad_name_says_what_to_use():
    with pytest.raises(BadName) as caught:
        check_name("Checkpoint", "../x")
    assert str(caught.value) == (
        "Checkpoint name '../x' is empty or begins with a dot. Use one plain name, such as 'epoch_3'."
    )


def test_reading_and_locking_need_no_torch():
    code = "import sys, shell.manifests, shell.locking; assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
