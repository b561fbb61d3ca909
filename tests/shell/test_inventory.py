"""Checkpoints as lines of text: whole ones, best ones, damaged ones, and none."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pathlib
import sys

import pytest
import torch

from flexcore.storage import readable
from shell import cli, inventory
from shell.checkpoints import Store

FIELDS = dict(epoch=1, iter=9, plan_digest="0123456789abcdef", strategy="DDPStrategy", world_size=2)


def saved(root, **checkpoints):
    store = Store(root, "run")
    for name, more in checkpoints.items():
        store.save(name, {"model": {"weight": torch.ones(more.pop("numbers", 500))}}, fields(more))


def fields(more):
    """None: the field is left out."""
    return {key: value for key, value in (FIELDS | more).items() if value is not None}


def damage(root, name):
    file = root / name / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_checkpoints_stand_in_a_table_by_iteration(tmp_path):
    saved(tmp_path / "checkpoints", epoch_10=dict(epoch=10, iter=90), epoch_2=dict(epoch=2, iter=18, best=True, numbers=3 * 2**20),
          best=dict(resumable=False, best=True, epoch=None, world_size=1))  # fmt: skip
    text, code = inventory.listed(tmp_path)
    assert (text.splitlines(), code) == ([
        "name      epoch  iter  size      verified  plan      strategy     ranks",
        "best      ?      9     2.02 KiB  yes       01234567  DDPStrategy  1      best, weights only",
        "epoch_2   2      18    12 MiB    yes       01234567  DDPStrategy  2      best",
        "epoch_10  10     90    2.02 KiB  yes       01234567  DDPStrategy  2",
    ], 0)  # fmt: skip


def test_damage_is_found_by_hashing_and_told_below_the_table(tmp_path):
    saved(tmp_path, one=dict(), two=dict(iter=10))
    damage(tmp_path, "two")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "manifest.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    text, code = inventory.listed(tmp_path)
    table, told = text.splitlines()[:4], text.splitlines()[4:]
    assert [line.split()[0] for line in table] == ["name", "one", "two", "three"]
    assert [("damaged" in line) for line in table] == [False, False, True, True]
    assert [line.split(" has ")[0] for line in told] == [
        "two: file 'model.safetensors'",
        "three: manifest.json does not match the SHA-256 in its first line",
    ]
    assert code == 1
    quick, _ = inventory.listed(tmp_path, quick=True)
    assert [line.split()[5] for line in quick.splitlines()[1:3]] == ["sizes", "sizes"]


def test_verify_names_what_changed_in_each_place(tmp_path):
    saved(tmp_path / "a", one=dict())
    saved(tmp_path / "b" / "checkpoints", one=dict())
    one = tmp_path / "a" / "one"
    assert inventory.verified([one, tmp_path / "b"]) == (
        f"{one}: as it was saved\n{tmp_path / 'b' / 'checkpoints' / 'one'}: as it was saved",
        0,
    )
    damage(tmp_path / "a", "one")
    text, code = inventory.verified([one, tmp_path / "nowhere"])
    assert text.startswith(f"{one}: file 'model.safetensors' has SHA-256 ")
    assert text.endswith(f"its bytes changed\n{tmp_path / 'nowhere'}: no checkpoint")
    assert code == 2
    assert inventory.verified([one])[1] == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (5 * 2**40, "5 TiB"), (2**60, "1048576 TiB")],
)  # fmt: skip
def test_sizes_are_readable(size, expected):
    assert readable(size) == expected


@pytest.mark.parametrize(("words", "code", "out", "err"), [
    (["checkpoints", "."], 2, "", "flexcore: .: no checkpoint. Give the work_dir of `flexcore run`, or where it saves.\n"),
    (["verify", "gone"], 2, "", "gone: no checkpoint\n"),
])  # fmt: skip
def test_where_nothing_stands_the_command_says_so(words, code, out, err, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == code
    assert capsys.readouterr() == (out, err)


def test_the_command_prints_the_table(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "checkpoints", one=dict())
    monkeypatch.setattr(sys, "path", [*sys.path])
    for words in (["checkpoints", str(tmp_path)], ["verify", str(tmp_path)]):
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        assert left.value.code == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[-1], err) == (
        f"{pathlib.Path(tmp_path, 'checkpoints', 'one')}: as it was saved",
        "",
    )
