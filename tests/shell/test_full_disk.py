"""A disk that is full for a while, or from some point on: training goes on, what stood stands, and the exit code tells.

The kernel refuses every byte a file would grow by (RLIMIT_FSIZE), or a file system of its own has no room.
"""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import subprocess

import pytest

from shell import report
from shell.manifests import scan
from tests.ranks import run_alone
from tests.shell import toys

PAUSE = 1e-4  # minutes
NO_ROOM = {"limit": "File too large", "ballast": "No space left on device"}


def full(work_dir, at, saves=None, slow=0.01, how="limit", keep=-1, **changes):
    hooks = [dict(type="tests.shell.toys:FullDisk", at=at, saves=saves, slow=slow, how=how)]
    saving = dict(type="CheckpointHook", retry_minutes=PAUSE, max_keep_ckpts=keep)
    logging = dict(type="LoggerHook", interval=4)
    return toys.config(
        work_dir, custom_hooks=hooks, default_hooks=dict(checkpoint=saving, logger=logging), **changes
    )


def names(work_dir):
    return sorted(manifest.name for manifest in scan(work_dir / "checkpoints").complete)


def told(work_dir):
    text, code = report.report(work_dir)
    return text.splitlines()[1:], code


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The final weights of an undisturbed run, by its number of ranks."""
    made = {}

    def weights(ranks):
        if ranks not in made:
            work_dir = tmp_path_factory.mktemp("undisturbed")
            toys.run(ranks, toys.config(work_dir))
            made[ranks] = toys.weights(work_dir)
        return made[ranks]

    return weights


@pytest.fixture
def small(tmp_path):
    """A file system of 2 MiB."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize(("ranks", "keep", "epoch"), [(1, -1, 9), (2, 1, 5)])
def test_a_save_that_failed_is_tried_again_and_training_goes_on_to_the_same_bits(
    ranks, keep, epoch, undisturbed, tmp_path
):
    """epoch_1 and the attempt after it fail; the next stands in for it: for good, or until epoch_2 stands."""
    result = toys.run(ranks, full(tmp_path, at=epoch - 2, saves=2, slow=0.03, keep=keep))
    assert (result["reason"], result["code"]) == ("done", 0)
    first, second = toys.recorded(tmp_path, "save_failed")
    again = toys.recorded(tmp_path, "save")[0]
    assert (first["name"], first["iter"], first["reason"]) == ("epoch_1", epoch, NO_ROOM["limit"])
    assert (second["name"], second["failures"]) == (f"retried_iter_{second['iter']}", 1)
    assert (again["name"], again["failures"]) == (f"retried_iter_{again['iter']}", 2)
    assert second["waited"] >= 60 * PAUSE
    assert again["waited"] >= 120 * PAUSE
    assert epoch < second["iter"] < again["iter"] < 2 * epoch
    assert names(tmp_path) == (["epoch_2", "epoch_3", again["name"]] if keep < 0 else ["epoch_3"])
    assert toys.weights(tmp_path) == undisturbed(ranks)
    lines, code = told(tmp_path)
    assert code == 0
    assert lines[-3:] == [
        f"  not saved    epoch_1 at iteration {epoch}: File too large",
        f"  not saved    {second['name']} at iteration {second['iter']}: File too large",
        "  differences  0",
    ]


def test_a_stand_in_is_resumed_to_the_bit(undisturbed, tmp_path):
    cfg = full(tmp_path, at=7, saves=1)
    kill = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=16)
    killed = cfg | dict(custom_hooks=[*cfg["custom_hooks"], kill])
    with pytest.raises(Exception, match="ended with -9"):
        run_alone(toys.trained, killed)
    assert names(tmp_path)[0].startswith("retried_iter_")
    assert toys.run(1, toys.config(tmp_path))["code"] == 0
    assert toys.weights(tmp_path) == undisturbed(1)
    assert toys.differences(tmp_path) == []


@pytest.mark.parametrize("how", ["limit", "ballast"])
def test_a_disk_that_stays_full_leaves_what_stood_and_the_run_ends_with_8(how, request, tmp_path):
    """The last checkpoint is tried a few times more; the record, which had no room either, says what it lacks."""
    work_dir = request.getfixturevalue("small") if how == "ballast" else tmp_path
    result, text = run_alone(toys.told, full(work_dir, at=12, how=how, slow=0.0))
    assert (result["reason"], result["code"], result["checkpoints"]) == ("done", 8, ["epoch_1"])
    assert names(work_dir) == ["epoch_1"]
    assert not list((work_dir / "checkpoints").glob(".tmp-*"))
    assert text.count("its lines wait in memory") in ((1,) if how == "limit" else (0, 1))
    assert f"Checkpoint 'epoch_3' was not saved: {NO_ROOM[how]}" in text
    assert text.count("Checkpoint 'epoch_3' was not saved") == 4
    lines, code = told(work_dir)
    assert (lines[-1], code) == ("  differences  0", 0)
    if how == "limit":  # a ballast leaves the rest of the record's last page
        assert lines[-2] == "  not recorded what followed iteration 9: the disk was full"
    if how == "ballast":
        (work_dir / "ballast").unlink()
    assert run_alone(toys.trained, toys.config(work_dir))["code"] == 0
    lines, code = told(work_dir)
    assert (lines[-1], code) == ("  differences  0", 0)


def test_a_real_file_system_without_room_is_retried_once_it_has_some(small, undisturbed):
    result = toys.run(1, full(small, at=7, saves=2, how="ballast", keep=1))
    assert (result["reason"], result["code"]) == ("done", 0)
    assert {event["reason"] for event in toys.recorded(small, "save_failed")} == {NO_ROOM["ballast"]}
    assert names(small) == ["epoch_3"]
    assert toys.weights(small) == undisturbed(1)
    assert toys.differences(small) == []


def test_where_nothing_can_be_written_the_run_says_so_before_it_starts(small):
    with contextlib.suppress(OSError), (small / "ballast").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    result = run_alone(toys.attempted, toys.config(small))
    told = f"ConfigError: work_dir: {small} has 0 B free, and one checkpoint takes about "
    assert result["reason"].startswith(told)
