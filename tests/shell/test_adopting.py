"""A training checkpoint that mmengine wrote goes on here, to the weights that mmengine itself came to."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import os
import pathlib

import pytest
import torch

import flexcore
from flexcore import Facts
from flexcore.problems import shown
from shell import mmengine_files, probe, torch_files
from shell.checkpoints import Store
from shell.hooks.ema import saved_averages
from shell.mapped import Mapped
from shell.results import CheckpointRefused
from tests.ranks import run_alone
from tests.shell import toys, twins

MADE = pathlib.Path(os.environ.get("FLEXCORE_TWINS", pathlib.Path(__file__).parent / "mmengine")).absolute()
"""What mmengine wrote; `make nightly` has it written anew."""
ENDS = json.loads((MADE / "ends.json").read_text())
LAST = {"Runner": "epoch_4", "FlexibleRunner": "epoch_4", "iterations": "iter_12"}
AT = {"Runner": (2, 6), "FlexibleRunner": (2, 6), "iterations": (0, 8)}


def close(found, expected):
    assert found.keys() <= expected.keys()
    for name, tensor in found.items():
        there = torch.tensor(expected[name], dtype=tensor.dtype)
        torch.testing.assert_close(
            tensor, there, rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """(what each run says, where it wrote) of every training, each from mmengine's checkpoint on; and of those refused."""
    root = tmp_path_factory.mktemp("continued")
    cfgs = {
        name: twins.ours(name, str(root / name), resume=str(MADE / f"{name}.pth")) for name in twins.TRAININGS
    }
    flexible, sgd = str(MADE / "FlexibleRunner.pth"), str(MADE / "iterations.pth")
    refused = {
        "another optimizer": twins.ours("iterations", str(root / "r1"), resume=flexible),
        "another model": twins.ours("Runner", str(root / "r2"), resume=flexible, model=dict(type="tests.shell.twins:Twin", width=5)),
        "another clock": twins.ours("Runner", str(root / "r3"), resume=flexible, global_batch_size=4),
        "without averages": twins.ours("Runner", str(root / "r4"), resume=flexible, custom_hooks=[]),
        "weights": twins.ours("Runner", str(root / "r5"), load_from=sgd),
    }  # fmt: skip
    told = run_alone(toys.several, 0, [*cfgs.values(), *refused.values()])
    return dict(zip([*cfgs, *refused], told, strict=True)), root


@pytest.mark.parametrize("name", twins.TRAININGS)
def test_it_goes_on_to_the_weights_mmengine_came_to(name, continued):
    results, root = continued
    work_dir = root / name
    assert (results[name]["reason"], results[name]["iter"]) == ("done", 12)
    start = toys.recorded(work_dir, "start")[0]
    assert (start["epoch"], start["iter"], start["validated"]) == (*AT[name], False)
    loaded = Store(work_dir / "checkpoints", "x").load(work_dir / "checkpoints" / LAST[name])
    trained = ENDS[name]["ema_state_dict"] or ENDS[name]["state_dict"]
    trained = {key.removeprefix("module."): value for key, value in trained.items()}
    close(loaded.tensors("model"), trained)
    if ENDS[name]["ema_state_dict"]:
        averages = saved_averages(loaded.manifest)
        assert averages["steps"] == 12
        close(averages["averaged"], ENDS[name]["state_dict"])
    hook = loaded.manifest.fields["state"]["hooks"]["CheckpointHook"]
    assert hook["best"]["twin/least"][0] == pytest.approx(ENDS[name]["best"], rel=1e-5)
    assert toys.differences(work_dir) == []


def test_what_is_left_behind_is_told(continued):
    _, root = continued
    log = next((root / "r4").glob("*/run.log")).read_text()
    for told in (
        "RNG: mmengine keeps none; it is derived from (seed, iteration, rank)",
        "schedules: their values follow from the iteration; mmengine's param_schedulers and message_hub are not read",
        "ema_state_dict: no EMAHook runs, so its averages are left behind; the weights that trained go on",
    ):
        assert told in log


def test_what_does_not_fit_is_refused_by_name(continued):
    results, _ = continued
    flexible = MADE / "FlexibleRunner.pth"
    assert results["another optimizer"]["reason"] == (
        f"CheckpointRefused: {flexible} does not fit the optimizer: What its groups set is betas; "
        "this optimizer has momentum, nesterov: take the one it was trained with."
    )
    assert results["another model"]["reason"] == (
        f"CheckpointRefused: {flexible} does not fit the model: 3 of the model's 9 names fit (9 there): 6 of another shape\n"
        "  shape  backbone.0.weight        [4, 4] there  [5, 4] here\n"
        "  shape  backbone.1.weight        [4] there     [5] here\n"
        "  shape  backbone.1.bias          [4] there     [5] here\n"
        "  shape  backbone.1.running_mean  [4] there     [5] here\n"
        "  shape  backbone.1.running_var   [4] there     [5] here\n"
        "  shape  head.weight              [1, 4] there  [1, 5] here"
    )
    assert results["another clock"]["reason"] == (
        f"ConfigError: resume: {shown(str(flexible))} is mmengine's, which counts iterations in micro-batches; with "
        "global_batch_size they are global batches. Drop global_batch_size, or take its weights alone with load_from and "
        "resume=False. [FC005]"
    )


def test_its_weights_alone_start_another_run(continued):
    """Of another optimizer, even: nothing but weights is read."""
    results, _ = continued
    assert (results["weights"]["reason"], results["weights"]["iter"]) == ("done", 12)


def test_a_plan_knows_where_it_stands(tmp_path):
    """FlexibleRunner's epoch is one too many where it saved after a validation; the iterations tell."""
    cfg = twins.ours("FlexibleRunner", str(tmp_path), resume=str(MADE / "FlexibleRunner.pth"))
    facts = probe.checkpoints(Facts(train_samples=12), flexcore.parse(cfg), flexcore.plan(cfg).names)
    assert (facts.named_checkpoint.epoch, facts.named_checkpoint.iter) == (3, 6)
    made = flexcore.plan(cfg, facts)
    assert (made.start.epoch, made.start.iter, made.start.writer) == (2, 6, "mmengine")
    assert [notice.code for notice in made.notices if notice.code.startswith("FC")] == ["FC015"]
    assert (
        f"by resuming mmengine's {MADE}/FlexibleRunner.pth at epoch 2, iteration 6: resume names it"
        in str(made)
    )


def test_files_that_are_none_of_mmengines_are_not_resumed(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(2)}}, tmp_path / "w.pth")
    (tmp_path / "x.pth").write_bytes(b"x")
    assert mmengine_files.fact(str(tmp_path / "w.pth")) is None
    assert mmengine_files.fact(str(tmp_path / "x.pth")) is None
    with pytest.raises(CheckpointRefused) as caught:
        mmengine_files.opened(str(tmp_path / "w.pth"))
    assert str(caught.value) == (
        f"{tmp_path / 'w.pth'} holds no training state: neither flexcore's nor mmengine's meta. "
        "Take its weights: load_from, resume=False."
    )
    with pytest.raises(CheckpointRefused) as caught:
        mmengine_files.opened(str(tmp_path / "x.pth"))
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'} is neither an archive nor a pickle. Name a checkpoint of flexcore's or mmengine's."
    )


def doubled(levels):
    """A tuple of two of a tuple of two of ..., which takes no memory and may not be spelt out."""
    made = ()
    for _ in range(levels):
        made = (made, made)
    return made


def own(tree):
    """With tensors that share no memory."""
    if isinstance(tree, dict):
        return {key: own(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [own(item) for item in tree]
    return tree.clone() if isinstance(tree, torch.Tensor) else tree


def nested(levels):
    made = []
    for _ in range(levels):
        made = [made]
    return made


FORGED = {
    "nothing": (lambda t: t.pop("optimizer"), "holds weights only: "),
    "a list": (lambda t: t.update(optimizer=[1]), "holds weights only: "),
    "parameters that are no numbers": (lambda t: t["optimizer"]["param_groups"][0].update(params=["w"]), "holds no state for the"),
    "too few parameters": (lambda t: t["optimizer"]["param_groups"][0]["params"].pop(), "does not fit the optimizer: momentum_buffer of 'backbone.1.weight' is of shape [4, 4]; the parameter is [4]"),
    "state that is a list": (lambda t: t["optimizer"]["state"].update({1: [1]}), "does not fit the optimizer: The state of 'backbone.0.weight' is a list"),
    "state of another shape": (
        lambda t: t["optimizer"]["state"][1].update(momentum_buffer=torch.ones(9)),
        "does not fit the optimizer: momentum_buffer of 'backbone.0.weight' is of shape [9]; the parameter is [4, 4]"),
    "state of 2^40 parts": (lambda t: t["optimizer"]["state"][1].update(momentum_buffer=doubled(40)), "does not fit the optimizer: mom"),
    "state of 100 levels": (lambda t: t["optimizer"].update(more=nested(100)), "has state of more than 64 levels"),
    "weights that are words": (lambda t: t["state_dict"].update(x="y"), "holds a mapping with "),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["settings of 2^40 parts", "averages of NaN steps", "a scaler without a scale"]
)
def test_what_means_nothing_is_left_behind(name, forged):
    assert forged[name]["reason"] == "done"


@pytest.mark.parametrize("name", FORGED)
def test_a_checkpoint_that_was_tampered_with_is_refused(name, forged, tmp_path):
    reason = forged[name]["reason"]
    assert reason.startswith(("CheckpointRefused: ", "ConfigError: resume: "))
    assert f"/{name}" in reason
    assert FORGED[name][1] in reason


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    root = tmp_path_factory.mktemp("forged")
    harmless = {
        "settings of 2^40 parts": lambda t: t["optimizer"]["param_groups"][0].update(dampening=doubled(40)),
        "averages of NaN steps": lambda t: t.update(ema_state_dict={"steps": torch.tensor(float("nan"))}),
        "a scaler without a scale": lambda t: t["optimizer"].update(loss_scaler={"scale": "much"}),
    }
    cfgs = {}
    for name, change in {**{key: one for key, (one, _) in FORGED.items()}, **harmless}.items():
        opened = torch_files.read(MADE / "iterations.pth")
        tree = own(Mapped(opened).of({key: opened.tree[key] for key in ("meta", "state_dict", "optimizer")}))
        change(tree)
        torch.save(tree, root / f"{name}.pth")
        cfgs[name] = twins.ours("iterations", str(root / name), resume=str(root / f"{name}.pth"))
    return dict(zip(cfgs, run_alone(toys.several, 0, list(cfgs.values())), strict=True))
