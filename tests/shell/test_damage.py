"""A checkpoint with any byte changed, or cut short anywhere, is told and set aside, and the one before it started from."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import io
import os
import pathlib

import pytest
from attrs import frozen

from flexcore.planning import plan as make_plan
from flexcore.run_plan import Plan
from shell import manifests, probe, settling
from shell.processes import Group
from tests.ranks import run_alone
from tests.shell import faulting, toys

KINDS = ("flipped", "cut")


@frozen
class Trained:
    """A run of two epochs and the plan of one that goes on, up to where checkpoints are looked at."""

    root: pathlib.Path
    plan: Plan

    def files(self) -> list[pathlib.Path]:
        return sorted((self.root / "epoch_2").iterdir())

    def started(self) -> tuple[str, str]:
        """(name of the checkpoint it goes on from, what it said)."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            start = settling.started(self.plan, Group()).start
        return pathlib.Path(start.path).name, said.getvalue()


def config(work_dir: pathlib.Path, epochs: int) -> dict:
    model = dict(type="tests.shell.toys:Net", width=1)
    return toys.config(work_dir, model=model, train_cfg=dict(by_epoch=True, max_epochs=epochs))


@contextlib.contextmanager
def two_epochs():
    with faulting.scratch() as work_dir:
        assert run_alone(toys.trained, config(work_dir, 2))["reason"] == "done"
        facts = probe.device(probe.environment())
        first = settling.planned(config(work_dir, 3), facts, "train")
        facts = probe.checkpoints(facts, first.config, first.names)
        trained = Trained(work_dir / "checkpoints", make_plan(first.config, facts, mode="train"))
        assert trained.started() == ("epoch_2", "")
        yield trained


@pytest.fixture(scope="module")
def trained():
    with two_epochs() as made:
        yield made


def falls_back(trained: Trained, file: pathlib.Path, kind: str, position: int) -> None:
    """Damage the newest checkpoint there; the start says so and is from the one before. Then it is as it was again."""
    good = file.read_bytes()
    flipped = good[:position] + bytes([good[position] ^ (1 << position % 8)]) + good[position + 1 :]
    file.write_bytes(flipped if kind == "flipped" else good[:position])
    name, said = trained.started()
    assert name == "epoch_1"
    assert said.startswith(f"flexcore: {trained.root}/epoch_2 is damaged (")
    assert said.endswith("); set aside as epoch_2.damaged-1, falling back\n")
    assert sorted(os.listdir(trained.root)) == ["epoch_1", "epoch_2.damaged-1"]
    (trained.root / "epoch_2.damaged-1").rename(trained.root / "epoch_2")
    file.write_bytes(good)


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_falls_back_from_damage_anywhere(kind, trained):
    """The ends of each file and places spread over it; every byte in `make torture`."""
    for file in trained.files():
        size = file.stat().st_size
        for position in {0, size - 1, *range(7, size, size // 12)}:
            falls_back(trained, file, kind, position)
    assert trained.started() == ("epoch_2", "")


@pytest.mark.parametrize("missing", ["model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_without_one_of_its_files_is_set_aside(missing, trained):
    file = trained.root / "epoch_2" / missing
    good = file.read_bytes()
    file.unlink()
    said = f"flexcore: {trained.root}/epoch_2 is damaged (file '{missing}' is missing); set aside as epoch_2.damaged-1, falling back\n"
    assert trained.started() == ("epoch_1", said)
    (trained.root / "epoch_2.damaged-1").rename(trained.root / "epoch_2")
    file.write_bytes(good)


def test_what_is_no_checkpoint_of_this_place_is_told_and_left_where_it_is(trained):
    """A copy under a name of the user's own, a link, and a directory of something else."""
    root = trained.root
    (root / "epoch_1").rename(root / "best_copy")
    (root / "link").symlink_to("epoch_2")
    (root / "notes").mkdir()
    reasons = {
        "best_copy": "its manifest names 'epoch_1', not 'best_copy': it was copied or renamed",
        "link": "is a symbolic link; a checkpoint is a directory",
        "notes": "holds no manifest.json",
    }
    said = [f"flexcore: {root}/{name}: {reason}; it is left out\n" for name, reason in reasons.items()]
    assert trained.started() == ("epoch_2", "".join(said))
    assert sorted(os.listdir(root)) == sorted([*reasons, "epoch_2"])
    (root / "best_copy").rename(root / "epoch_1")
    (root / "link").unlink()
    (root / "notes").rmdir()


def test_no_length_but_its_own_is_taken(tmp_path):
    """Each file of a checkpoint cut to every length, and longer by a byte."""
    path = faulting.saved(tmp_path, 1)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for data in [good + b"\0", *(good[:length] for length in range(len(good)))]:
            file.write_bytes(data)
            assert isinstance(manifests.read(path), manifests.Damaged)
        file.write_bytes(good)
    assert faulting.standing(tmp_path) == (faulting.A1,)
