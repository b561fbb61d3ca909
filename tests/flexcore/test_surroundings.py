"""Launcher, strategy, seed and starting point against small independent predicates."""

from itertools import product

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts
from flexcore.launchers import infer, present, world_size
from flexcore.starting import newest
from tests.flexcore.base import KNOWN, base, planned
from tests.strategies import checkpoint

NAMES = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MPI_LOCALRANKID",
         "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS")  # fmt: skip


@given(st.sets(st.sampled_from(NAMES)))
def test_the_launcher_is_the_first_whose_signs_are_there(names):
    if "TORCHELASTIC_RUN_ID" in names or {"RANK", "WORLD_SIZE"} <= names:
        expected = "pytorch"
    elif "OMPI_COMM_WORLD_RANK" in names or {"PMI_RANK", "MPI_LOCALRANKID"} <= names:
        expected = "mpi"
    else:
        expected = "slurm" if {"SLURM_STEP_ID", "SLURM_PROCID"} <= names else "none"
    environment = dict.fromkeys(names, "1")
    assert infer(environment) == expected
    assert present(expected, environment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4),
        ("1", 1),
        ("0", None),
        ("-1", None),
        ("x", None),
        ("", None),
        ("9" * 9, 999_999_999),
        ("9" * 10, None),
        ("9" * 20, None),
        ("²", None),
        ("٣", None),
    ],
)
def test_a_world_size_is_a_sensible_number_or_unknown(text, expected):
    assert world_size("pytorch", {"WORLD_SIZE": text}) == expected


@pytest.mark.parametrize(("launcher", "environment", "expected"), [
    ("mpi", {"OMPI_COMM_WORLD_SIZE": "4", "PMI_SIZE": "8"}, 4), ("mpi", {"PMI_SIZE": "8"}, 8),
    ("mpi", {"OMPI_COMM_WORLD_SIZE": "x", "PMI_SIZE": "8"}, 8), ("mpi", {"WORLD_SIZE": "2"}, None),
    ("slurm", {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "4"}, 2), ("none", {"WORLD_SIZE": "2"}, None),
])  # fmt: skip
def test_each_launcher_counts_ranks_by_its_own_variables(launcher, environment, expected):
    assert world_size(launcher, environment) == expected


def test_a_launcher_is_present_by_any_of_its_signs():
    assert present("none", {})
    assert not present("pytorch", {})
    assert not present("pytorch", {"RANK": "0"})
    assert not present("mpi", {"RANK": "0", "WORLD_SIZE": "1"})
    assert present("pytorch", {"RANK": "0", "WORLD_SIZE": "1"})
    assert present("pytorch", {"TORCHELASTIC_RUN_ID": "a"})


@pytest.mark.parametrize(("launcher", "strategy", "world", "seen"), tuple(product(
    [None, "none", "pytorch", "slurm"], [None, "SingleDeviceStrategy", "DDPStrategy"], [None, 1, 4], [None, "pytorch", "slurm"],
)))  # fmt: skip
def test_a_combination_is_accepted_or_refused_as_a_person_would(launcher, strategy, world, seen):
    variables = {
        None: (),
        "pytorch": (("RANK", "0"), ("WORLD_SIZE", "4")),
        "slurm": (("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "0")),
    }
    facts = Facts(environment=variables[seen], world_size=world)
    started = launcher or seen or ("pytorch" if (world or 1) > 1 else "none")
    ranks = world or (1 if started == "none" else 4 if seen == "pytorch" and started == "pytorch" else None)
    kind = strategy or ("SingleDeviceStrategy" if started == "none" else "DDPStrategy")
    expected = set()
    if kind == "DDPStrategy" and started == "none":
        expected.add("FP001")
    if launcher in ("pytorch", "slurm") and launcher != seen:
        expected.add("FP002")
    if kind == "SingleDeviceStrategy" and (ranks or 1) > 1:
        expected.add("FP003")
    config = base(launcher=launcher, strategy=strategy)
    assert {p.code for p in flexcore.lint(config, facts) if p.severity == "error"} == expected
    if not expected:
        plan = flexcore.plan(config, facts)
        assert (plan.environment.launcher, plan.strategy.NAME, plan.environment.world_size) == (
            started,
            kind,
            ranks,
        )


points = st.builds(
    checkpoint, st.integers(0, 9), resumable=st.booleans(), validated=st.booleans(), best=st.booleans()
)  # fmt: skip


@given(st.lists(points, max_size=5))
def test_the_newest_resumable_checkpoint_is_found(found):
    chosen = newest(tuple(found))
    able = [fact for fact in found if fact.resumable]
    assert (chosen is None) == (not able)
    assert all(fact.iter <= chosen.iter for fact in able)
    assert chosen is None or chosen.validated or not any(f.validated for f in able if f.iter == chosen.iter)


@given(
    st.sampled_from([False, True, "r"]),
    st.sampled_from([None, "x"]),
    st.lists(points, max_size=3, unique_by=lambda fact: fact.path),
    st.booleans(),
)
def test_the_starting_point_follows_the_matrix(resume, load_from, found, looked):
    facts = Facts(checkpoints=tuple(found) if looked else None)
    config = base(resume=resume, load_from=load_from)
    able = [fact for fact in facts.checkpoints or () if fact.resumable]
    if resume == "r" and load_from:
        assert [p.code for p in flexcore.lint(config, facts) if p.severity == "error"] == ["FC001"]
        return
    start = flexcore.plan(config, evolve(facts, train_samples=None)).start
    if resume is False:
        expected = (flexcore.LoadWeights, "x") if load_from else (flexcore.Fresh, None)
    elif resume == "r":
        expected = (flexcore.Resume, "r")
    elif able:
        expected = (flexcore.Resume, newest(tuple(able)).path)
    else:
        expected = (flexcore.Resume, "x") if load_from else (flexcore.Fresh, None)
    assert (type(start), getattr(start, "path", None)) == expected


def test_a_checkpoint_named_by_another_spelling_of_its_path_is_known():
    named = evolve(checkpoint(5), path="/abs/iter_5")
    plan = flexcore.plan(base(resume="iter_5"), evolve(KNOWN, named_checkpoint=named))
    assert (plan.start.path, plan.start.iter) == ("iter_5", 5)
    worse = evolve(KNOWN, named_checkpoint=evolve(named, iter=500))
    assert [p.code for p in flexcore.lint(base(resume="iter_5"), worse)] == ["FC005"]


def test_a_run_without_a_seed_goes_on_with_its_checkpoints():
    first = flexcore.plan(base(randomness={}), evolve(KNOWN, entropy=111))
    from flexcore.plan_files import trajectory

    fact = evolve(checkpoint(25), trajectory=trajectory(first))
    second = flexcore.plan(base(randomness={}, resume=True), evolve(KNOWN, entropy=222, checkpoints=(fact,)))
    assert (second.environment.seed, second.environment.seed_given) == (first.environment.seed, False)
    assert second.trajectory_digest == first.trajectory_digest
    assert second.train.order == first.train.order
    codes = [
        p.code
        for p in flexcore.lint(base(randomness={"seed": 3}, resume=True), evolve(KNOWN, checkpoints=(fact,)))
    ]
    assert codes == ["FC005", "FC005"]  # its seed and its order


def test_seeds_fit_numpy_and_deterministic_beats_benchmark():
    env = flexcore.plan(
        base(randomness={"deterministic": True}, env_cfg={"cudnn_benchmark": True}), Facts(entropy=2**63)
    ).environment
    assert (env.seed, env.cudnn_benchmark) == (0, False)


@pytest.mark.parametrize(
    ("device", "backend"), [("cuda", "nccl"), ("cpu", "gloo"), (None, None), ("xpu", "gloo")]
)
def test_the_backend_follows_the_device(device, backend):
    assert planned(Facts(device_type=device)).environment.backend == backend


TEMPLATES = {
    "epoch_{}": True, "e{:03d}.pth": True, "{0}": True, "{:d}": True, "{:>4}": False, "{:c}": False, "x{!r}": False, "{:x}": False,
    "{:,}": False, "{:e}": False, "{}{}": False, "plain": False, "": False, "a/{}": False, ".{}": False, "best_{}": False,
    "{name}": False, "{0.real}": False, "{0[1]}": False, "{": False, "{:{}}": False, "x" * 300 + "{}": False, "{:200d}": False,
    "\n{}": False, "{{{}}}": True, "\ud800{}": False, "a\\{}": False, "{1}": False,
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_name_template_gives_every_number_a_file_name_of_its_own(template):
    config = base(default_hooks={"checkpoint": {"type": "CheckpointHook", "filename_tmpl": template}})
    found = [p.code for p in flexcore.lint(config, KNOWN)]
    assert found == ([] if TEMPLATES[template] else ["FC004"])
    if not found:
        saving = flexcore.plan(config, KNOWN).saving
        names = [saving.name(n) for n in (1, 7, 10, 999, 1000, 2**62)]
        assert len(set(names)) == len(names)
        assert all(name.isprintable() and "/" not in name and not name.endswith(".pth") for name in names)
