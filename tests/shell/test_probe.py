"""What is observed, and what counts as another world than the plan's."""

import re

import pytest
from attrs import evolve

import flexcore
from flexcore.facts import Facts
from flexcore.problems import ConfigError
from flexcore.run_plan import Names
from shell import probe

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "HOME": "/"}
SURROUNDINGS = {
    "plain": ({"HOME": "/"}, (), 1, None),
    "torchrun": (TORCHRUN, (("LOCAL_WORLD_SIZE", "2"), ("RANK", "1"), ("WORLD_SIZE", "4")), 4, 2),
    "mpi": ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3"}, (("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "3")), 3, None),
    "sbatch": ({"SLURM_NTASKS": "8"}, (("SLURM_NTASKS", "8"),), 1, None),
    "odd number": ({"LOCAL_WORLD_SIZE": "²" * 9}, (("LOCAL_WORLD_SIZE", "²" * 9),), 1, None),
    "huge number": ({"LOCAL_WORLD_SIZE": "9" * 5000}, (("LOCAL_WORLD_SIZE", "9" * 5000),), 1, None),
}  # fmt: skip


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_environment_is_told_rank_free(name):
    environ, seen, world, local = SURROUNDINGS[name]
    facts = probe.environment(environ=environ)
    assert (facts.environment, facts.world_size, facts.local_world_size) == (seen, world, local)
    assert re.fullmatch(r"\d{8}_\d{6}", facts.started_at)
    assert 0 <= facts.entropy < 2**64
    assert probe.environment(environ=environ).entropy != facts.entropy


def test_what_is_known_stays():
    known = Facts(environment=(), world_size=8, entropy=3, started_at="20200101_000000", device_type="cuda")
    found = probe.environment(known, TORCHRUN)
    assert (found.environment, found.world_size, found.entropy, found.started_at) == (
        (),
        8,
        3,
        "20200101_000000",
    )
    assert probe.device(known).device_type == "cuda"


def test_the_device_is_told_with_versions():
    facts = probe.device(Facts(device_type="cpu"))
    assert (facts.supports_bf16, facts.supports_fp16) == (True, False)
    assert dict(facts.versions).keys() >= {"python", "torch", "numpy", "safetensors"}


CONFIG = flexcore.parse({})


def names(work_dir, out_dir=None):
    return Names(experiment_name="x", work_dir=str(work_dir), timestamp=None, run_id=None, out_dir=out_dir)


def test_an_absent_work_dir_holds_nothing(tmp_path):
    facts = probe.checkpoints(Facts(), CONFIG, names(tmp_path / "not" / "yet"))
    assert facts.checkpoints == ()
    assert facts.named_checkpoint is None
    assert facts.free_disk > 0
    assert list(tmp_path.iterdir()) == []


def test_another_place_for_checkpoints_is_the_one_that_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        probe.checkpoints(Facts(), CONFIG, names(tmp_path, str(tmp_path / "file")))
    assert str(caught.value).startswith(
        f"default_hooks.checkpoint.out_dir: {tmp_path / 'file'} cannot be looked into"
    )


def test_a_named_checkpoint_that_is_none_is_not_there(tmp_path):
    config = evolve(CONFIG, load_from=str(tmp_path))
    assert probe.checkpoints(Facts(), config, names(tmp_path)).named_checkpoint is None


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_file_in_the_way_is_told(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        probe.checkpoints(Facts(), CONFIG, names(tmp_path / "file" / below))
    assert str(caught.value) == (
        f"work_dir: {tmp_path / 'file' / below} cannot be looked into: file is a file. "
        "Name a directory that can be read and written. [FC010]"
    )


PLANNED = Facts(
    world_size=2, device_type="cpu", train_samples=10, val_samples=(3, 4), entropy=1, started_at="a"
)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (PLANNED, []),
        (evolve(PLANNED, entropy=2, started_at="b", checkpoints=(), versions=(), free_disk=1), []),
        (evolve(PLANNED, world_size=4), [("world_size", 2, 4)]),
        (evolve(PLANNED, train_samples=None), [("train_samples", 10, None)]),
        (
            evolve(PLANNED, device_type="cuda", val_samples=(3,)),
            [("device_type", "cpu", "cuda"), ("val_samples", (3, 4), (3,))],
        ),
        (evolve(PLANNED, test_samples=(1,), train_batches=4), []),
    ],
)
def test_only_known_facts_a_run_may_not_differ_in_are_differences(found, told):
    assert probe.differences(PLANNED, found) == told
