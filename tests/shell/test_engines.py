"""One job under every engine: the same losses step by step as one process that accumulates, and nothing unplanned."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import importlib.util
import os
import pathlib

import pytest

from shell.files import read
from tests.ranks import run_alone
from tests.shell import toys

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # before deepspeed's first import, which looks for others
HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
CHARGPT = pathlib.Path(__file__).resolve().parents[2] / "examples" / "chargpt.py"
CLIP = dict(max_norm=0.3)
CLOSE = 1e-5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def fsdp(**settings):
    return dict(type="FSDPStrategy", **settings)


def zero(stage):
    return dict(type="DeepSpeedStrategy", zero_optimization=dict(stage=stage))


TWO = {
    "DDP": dict(type="DDPStrategy"),
    "FSDP": fsdp(),
    **({f"ZeRO {stage}": zero(stage) for stage in range(4)} if HAS_DEEPSPEED else {}),
}
FOUR = {"FSDP on four": fsdp(), "HSDP, two by two": fsdp(shard_size=2)}
ONCE = {
    "kept gathered": fsdp(wrap=["Block"], reshard_after_forward=False),
    "by size": fsdp(wrap_min_params=100),
    "whole": fsdp(wrap=[]),
    "recomputed": fsdp(activation_checkpointing=["Block"]),
    "offloaded": fsdp(cpu_offload=True),
}
"""Settings of FSDP's that change how it computes and not what; with one micro-batch a window."""

WAYS = [(ranks, way, window) for ranks, ways in ((2, TWO), (4, FOUR)) for way in ways for window in (1, 2)]
WAYS += [(2, way, 1) for way in ONCE]
EXAMPLE = [way for way in ("DDP", "FSDP", "ZeRO 0") if way in TWO]


def config(work_dir, strategy=None, micro=4, **changes):
    """Twelve steps of 8 samples through two blocks, most of them clipped; 5 wide, so that shares differ in size."""
    work_dir.mkdir(parents=True, exist_ok=True)
    base = dict(
        model=dict(type="tests.shell.test_fsdp:Deep"), strategy=strategy, global_batch_size=8,
        train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=32), batch_size=micro),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.02, weight_decay=0.1), clip_grad=CLIP),
        custom_hooks=[toys.LOSSES], default_hooks=dict(logger=dict(type="LoggerHook", interval=1)),
    )  # fmt: skip
    return toys.config(work_dir, **(base | changes))


SHORT = (
    "model.width=16", "model.depth=1", "model.context=8", "train_dataloader.dataset.context=8", "train_cfg.max_iters=6",
    "val_dataloader=null", "val_evaluator=null", "val_cfg=null", "param_scheduler.0.end=2", "param_scheduler.1.begin=2",
    "default_hooks.checkpoint.save_best=null", "default_hooks.checkpoint.rule=null", "visualizer.vis_backends=[]",
    "log_level=WARNING", 'custom_hooks=[{"type": "tests.shell.toys:Losses"}]',
)  # fmt: skip


def chargpt(work_dir, strategy="SingleDeviceStrategy"):
    """The example, smaller and shorter, changed as the command line changes it."""
    work_dir.mkdir(parents=True)
    return read(str(CHARGPT), [*SHORT, f"work_dir={work_dir}", f"strategy.type={strategy}"]).data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every way in one start of each number of ranks: (number of ranks, config, result) by way and window."""
    root, found = tmp_path_factory.mktemp("engines"), {}
    for world in (2, 4):
        cfgs = {
            (way, window): config(root / way / str(window), (TWO | FOUR | ONCE)[way], 8 // world // window)
            for ranks, way, window in WAYS
            if ranks == world
        }
        if world == 2:
            cfgs |= {("chargpt", way): chargpt(root / "chargpt" / way, TWO[way]["type"]) for way in EXAMPLE}
        results = toys.together(cfgs, world)
        found |= {key: (world, cfg, results[key]) for key, cfg in cfgs.items()}
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process: with accumulation, in one piece, without clipping; and the example."""
    root = tmp_path_factory.mktemp("alone")
    plain = dict(optimizer=dict(type="AdamW", lr=0.02, weight_decay=0.1))
    cfgs = {
        "accumulating": config(root / "accumulating"),
        "in one piece": config(root / "piece", micro=8),
        "unclipped": config(root / "unclipped", optim_wrapper=plain),
        "chargpt": chargpt(root / "chargpt"),
    }
    results = run_alone(toys.several, 0, list(cfgs.values()), timeout=toys.PATIENCE)
    assert [result["reason"] for result in results] == ["done"] * 4
    return cfgs


def norms(cfg):
    return [event["values"]["grad_norm"] for event in toys.recorded(pathlib.Path(cfg["work_dir"]), "log")]


@pytest.mark.parametrize(("ranks", "way", "window"), WAYS)
def test_losses_are_those_of_one_process_at_every_step(trained, alone, ranks, way, window):
    """And so are gradient norms, most of which are clipped; the plan is what happened."""
    world, cfg, result = trained[way, window]
    assert (world, result["reason"]) == (ranks, "done"), result
    expected = toys.losses(alone["accumulating"]["work_dir"], 1)
    assert len(expected) == 12
    assert toys.losses(cfg["work_dir"], ranks) == pytest.approx(expected, abs=CLOSE)
    assert sum(norm > CLIP["max_norm"] for norm in norms(cfg)) > 6
    assert norms(cfg) == pytest.approx(norms(alone["accumulating"]), abs=CLOSE)
    assert toys.differences(pathlib.Path(cfg["work_dir"])) == []


def test_one_process_loses_alike_with_and_without_accumulation(alone):
    whole, parts = (toys.losses(alone[key]["work_dir"], 1) for key in ("in one piece", "accumulating"))
    assert whole == pytest.approx(parts, abs=CLOSE)
    assert parts[-1] < parts[0] * 0.8


def test_clipping_is_what_made_them_equal(alone):
    """Without it the losses are others, so that the comparisons above see it."""
    free, clipped = (toys.losses(alone[key]["work_dir"], 1) for key in ("unclipped", "accumulating"))
    assert free[2:] != pytest.approx(clipped[2:], abs=1e-4)


@pytest.mark.parametrize("way", EXAMPLE)
def test_the_example_trains_under_any_engine_by_one_key(trained, alone, way):
    world, cfg, result = trained["chargpt", way]
    assert result["reason"] == "done", result
    expected = toys.losses(alone["chargpt"]["work_dir"], 1)
    assert len(expected) == 6
    assert toys.losses(cfg["work_dir"], world) == pytest.approx(expected, abs=CLOSE)
    assert toys.differences(pathlib.Path(cfg["work_dir"])) == []
