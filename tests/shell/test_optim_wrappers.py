"""Several optimizers: as one would train by hand, the same on every number of ranks, exact over a kill, and told."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json

import pytest
import torch

import flexcore
from flexcore.problems import ConfigError
from shell import manifests
from shell.execute import run
from shell.report import read_segments
from tests.ranks import RankFailed, run_alone, run_ranks
from tests.shell import toys
from tests.shell.gans import Gan, gan_config, weights_of
from tests.shell.toys import Points

KILL = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=13)


def by_hand(cfg, *, critic, every):
    """Plain PyTorch over the planned samples, with torch's own schedulers; the weights after each iteration."""
    plan = flexcore.plan(
        {**cfg, "resume": False}, flexcore.Facts(train_samples=34, world_size=1, train_step=True)
    )
    torch.manual_seed(7)
    model, data = Gan(), Points(34)
    g = torch.optim.Adam(model.generator.parameters(), lr=0.02)
    d = torch.optim.SGD(model.discriminator.parameters(), lr=0.1, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(g, T_max=27)
    stepped = torch.optim.lr_scheduler.StepLR(d, step_size=1, gamma=0.5)
    found = []
    for epoch in range(3):
        indices = list(flexcore.sample_indices(plan, epoch=epoch))
        for at in range(9):
            points = torch.stack([data[i][0] for i in indices[4 * at : 4 * at + 4]])
            for _ in range(critic):
                d.zero_grad()
                model.losses(points)[0].backward()
                torch.nn.utils.clip_grad_norm_(model.discriminator.parameters(), 0.5)
                d.step()
            if (len(found) + 1) % every == 0:
                g.zero_grad()
                model.losses(points)[1].backward()
                g.step()
            found.append([x for p in model.parameters() for x in p.detach().flatten().tolist()])
            falling.step()
        stepped.step()
    return found


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("critic", "every"), [(1, 1), (2, 3)])
def test_it_trains_as_one_would_by_hand(critic, every, tmp_path):
    """Each optimizer on its own parameters, by its own schedule, clipped on its own, as often as the model says."""
    cfg = gan_config(tmp_path, dict(critic=critic, every=every))
    run_alone(toys.trained, cfg)
    expected = by_hand(cfg, critic=critic, every=every)
    actual = weights_of(tmp_path)
    assert len(actual) == 27
    for here, there in zip(actual, expected, strict=True):
        assert here == pytest.approx(there, abs=1e-6)


@pytest.mark.parametrize(
    ("critic", "every", "accumulation"), [(1, 1, 1), (2, 3, 1), (1, 1, 2)], ids=["turns", "critic", "windows"]
)
def test_two_ranks_train_as_one(critic, every, accumulation, tmp_path):
    """The whole batch of 8 (or 16) on one rank, or half of it on each of two: 1e-6 at every step."""
    for ranks in (1, 2):
        cfg = gan_config(
            tmp_path / str(ranks), dict(critic=critic, every=every), global_batch_size=8 * accumulation
        )
        loader = dict(dataset=dict(type="tests.shell.toys:Points", n=34), batch_size=8 // ranks)
        cfg["train_dataloader"] = loader
        if ranks == 1:
            run_alone(toys.trained, cfg)
        else:
            run_ranks(2, toys.trained_rank, cfg)
            assert weights_of(tmp_path / "2", 0) == weights_of(tmp_path / "2", 1)
        assert toys.differences(tmp_path / str(ranks)) == []
    alone, shared = weights_of(tmp_path / "1"), weights_of(tmp_path / "2")
    assert len(alone) == len(shared) == {1: 15, 2: 9}[accumulation]
    for here, there in zip(alone, shared, strict=True):
        assert here == pytest.approx(there, abs=1e-6)
    assert alone[0] != alone[-1]


def test_what_no_rank_uses_is_left_alone(tmp_path):
    """Without a gradient an optimizer neither decays nor moves a parameter, on one rank or two."""
    decaying = dict(optimizer=dict(type="AdamW", lr=0.1, weight_decay=0.5))
    cfg = gan_config(tmp_path, optim_wrapper=dict(generator=decaying, discriminator=decaying))
    run_ranks(2, toys.trained_rank, cfg | dict(model=dict(type="tests.shell.gans:Idle")))
    first, last = weights_of(tmp_path)[0], weights_of(tmp_path)[-1]
    idle = [i for i, value in enumerate(last) if value == 1.0]
    assert len(idle) == 3
    assert all(
        here != there for i, (here, there) in enumerate(zip(first, last, strict=True)) if i not in idle
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_goes_on_to_the_bit(ranks, tmp_path):
    """Both optimizers' state, both schedules and what the generator's loss left behind in the discriminator."""
    for name, hooks in (("whole", []), ("killed", [KILL])):
        own = [dict(type="tests.shell.gans:Weights"), *hooks]
        cfg = gan_config(tmp_path / name, dict(critic=2, every=2), custom_hooks=own)
        for _ in range(1 + len(hooks)):
            try:
                run_alone(toys.trained, cfg) if ranks == 1 else run_ranks(2, toys.trained_rank, cfg)
            except RankFailed:
                assert hooks
    assert weights_of(tmp_path / "killed")[-1] == weights_of(tmp_path / "whole")[-1]
    assert toys.weights(tmp_path / "killed") == toys.weights(tmp_path / "whole")
    assert toys.differences(tmp_path / "killed") == []


def test_both_rates_are_recorded_and_compared(tmp_path):
    toys.trained(gan_config(tmp_path))
    (segment,) = read_segments(tmp_path)
    rates = [[flexcore.value_at(segment.plan, iteration=i, optimizer=name).value for i in range(27)]
             for name in ("generator", "discriminator")]  # fmt: skip
    assert [step[1] for step in segment.steps] == list(zip(*rates, strict=True))
    assert toys.differences(tmp_path) == []
    first = toys.recorded(tmp_path, "log")[0]["values"]
    assert {"generator.lr", "discriminator.lr", "discriminator.grad_norm"} <= first.keys()
    (file,) = tmp_path.glob("*/events.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    column = next(line for line in lines if line["event"] == "steps")["lr"]["discriminator"]
    column[1] = 0.3
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert toys.differences(tmp_path) == [
        f"discriminator.lr at iteration {i}: planned 0.1, was 0.3" for i in range(column[2])
    ]


def test_a_model_may_step_by_hand(tmp_path):
    toys.trained(gan_config(tmp_path / "a"))
    toys.trained(gan_config(tmp_path / "b", model=None) | dict(model=dict(type="tests.shell.gans:ByHand")))
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")


def test_each_optimizer_has_a_loss_scaler_of_its_own(tmp_path):
    """Saved and put back by name: what is left of a growth interval counts on."""
    wrapper = dict(
        generator=dict(type="AmpOptimWrapper", dtype="float16", optimizer=dict(type="SGD", lr=0.01),
                       loss_scale=dict(init_scale=8.0, growth_interval=5)),
        discriminator=dict(type="AmpOptimWrapper", dtype="float16", optimizer=dict(type="SGD", lr=0.01),
                           loss_scale=dict(init_scale=4.0, growth_interval=1000)),
    )  # fmt: skip
    ended = {}
    for name, epochs in (("whole", (3,)), ("parts", (2, 3))):
        for last in epochs:
            cfg = gan_config(tmp_path / name, dict(critic=2), optim_wrapper=wrapper, param_scheduler=None)
            cfg["train_cfg"] = dict(by_epoch=True, max_epochs=last)
            run(cfg, facts=flexcore.Facts(supports_fp16=True))
        fields = manifests.scan(tmp_path / name / "checkpoints").complete[-1].fields
        ended[name] = fields["state"]["scaler"]["several"]
    assert ended["parts"] == ended["whole"]
    assert ended["whole"]["generator"]["scale"] == 8.0 * 2**5
    assert ended["whole"]["discriminator"]["scale"] == 4.0


def test_a_guard_leaves_out_the_update_of_one_optimizer(tmp_path):
    guard = dict(type="NaNGuardHook", action="skip")
    toys.trained(gan_config(tmp_path, dict(spoil=5), custom_hooks=[guard]))
    (event,) = toys.recorded(tmp_path, "nonfinite")
    assert (event["optimizer"], event["iter"], event["what"]) == ("discriminator", 6, ["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model=dict(type="tests.shell.toys:Net"), loss=dict(type="torch.nn:CrossEntropyLoss")),
         ("model: has no train_step, and the config has several optimizers: nothing says which is updated when. "
         "Give it train_step(data, optim_wrapper), or use one optimizer. [FO004]\n"
         "optim_wrapper.generator: is not a submodule of the model with parameters. Submodules: 0, 3. [FO003]\n"
         "optim_wrapper.discriminator: is not a submodule of the model with parameters. Submodules: 0, 3. [FO003]\n"
         "optim_wrapper: no optimizer trains 0.weight, 0.bias, 3.weight, 3.bias. Add an optimizer for that "
         "submodule, or freeze it. [FO001]")),
    ],
)  # fmt: skip
def test_what_the_model_shows_is_refused_before_any_effect(changes, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        toys.trained(gan_config(tmp_path / "run") | changes)
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


ACCUMULATING = dict(
    generator=dict(optimizer=dict(type="SGD", lr=0.01), accumulative_counts=2),
    discriminator=dict(optimizer=dict(type="SGD", lr=0.01), accumulative_counts=2),
)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("Owing", {},
         ("model: left gradients of generator without a step at the end of an accumulation window. "
         "Step in the same iteration, or accumulate by accumulative_counts. [FO008]")),
        ("Unnamed", {},
         ("model: calls optim_wrapper.update_params, and there are several optimizers: generator, discriminator. "
         'Say which: optim_wrapper["generator"].update_params. [FO004]')),
        ("Twice", dict(optim_wrapper=ACCUMULATING, param_scheduler=None),
         ("model: updates discriminator more than once in an iteration, and accumulation takes 2 iterations to an "
         "update. Leave accumulative_counts out, or call update_params once. [FO008]")),
    ],
)  # fmt: skip
def test_what_a_train_step_gets_wrong_is_told(model, changes, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        toys.trained(gan_config(tmp_path, **changes) | dict(model=dict(type=f"tests.shell.gans:{model}")))
    assert str(caught.value) == message


def test_several_optimizers_read_as_a_mapping(tmp_path):
    """What models and hooks of FlexibleRunner ask of an OptimWrapperDict."""
    toys.trained(gan_config(tmp_path, custom_hooks=[dict(type="tests.shell.gans:Asking")]))
    told = json.loads((tmp_path / "told").read_text())
    assert told == {
        "keys": ["generator", "discriminator"], "len": 2, "has": [True, False],
        "lr": {"generator.lr": [0.02], "discriminator.lr": [0.1]},
        "momentum": {"generator.momentum": [0.9], "discriminator.momentum": [0.9]},
        "groups": {"generator": 1, "discriminator": 1}, "should": True,
    }  # fmt: skip
