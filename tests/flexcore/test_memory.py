"""strategy="auto": what fits, what the model states take, and what is still to be known."""

import pytest
import torch
from attrs import evolve

import flexcore
from flexcore import Facts
from flexcore.converting import parse_partly
from flexcore.facts import ParameterFact
from flexcore.memory import STATES, model_states
from tests.flexcore.base import KNOWN, base, planned

WEIGHTS = (ParameterFact(name="w", shape=(3, 5)), ParameterFact(name="tied", shape=(3, 5), alias="w"),
           ParameterFact(name="frozen", shape=(7,), requires_grad=False))  # fmt: skip


def taken(parameters=WEIGHTS, **optimizer):
    config = parse_partly(base(optim_wrapper={"optimizer": {"lr": 0.1, **optimizer}}))[0]
    return model_states(config, Facts(parameters=parameters))


@pytest.mark.parametrize(
    ("optimizer", "values"),
    [
        ({"type": "SGD"}, 0), ({"type": "SGD", "momentum": 0.9}, 1), ({"type": "SGD", "momentum": 0}, 0),
        ({"type": "AdamW"}, 2), ({"type": "Adam", "amsgrad": True}, 3), ({"type": "pkg:Own"}, 2),
    ],
)  # fmt: skip
def test_model_states_count_each_tensor_once(optimizer, values):
    assert taken(**optimizer) == (15 + 7) * 4 + 15 * (4 + 4 * values)
    assert taken(parameters=None, **optimizer) is None


@pytest.mark.parametrize("name", [name for name in STATES if hasattr(torch.optim, name)])
@pytest.mark.parametrize("more", [{}, {"momentum": 0.9}, {"amsgrad": True}])
def test_the_table_is_what_torch_keeps(name, more):
    """Counted in a step of the real optimizer; scalars such as the step count are left out."""
    weight = torch.nn.Parameter(torch.ones(64, 64))
    try:
        optimizer = getattr(torch.optim, name)([weight], lr=0.01, **more)
    except TypeError:
        return  # it has no such setting
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = sum(value.numel() for value in optimizer.state[weight].values() if torch.is_tensor(value))
    assert taken((ParameterFact(name="w", shape=(64, 64)),), type=name, **more) == 4 * 4096 * (
        2 + round(kept / 4096)
    )


def test_each_optimizer_keeps_states_of_its_own_parameters():
    """Adam keeps two values for each of one.weight's 6, SGD none for two.weight's 100."""
    facts = evolve(
        KNOWN,
        parameters=(
            ParameterFact(name="one.weight", shape=(2, 3)),
            ParameterFact(name="two.weight", shape=(100,)),
        ),
    )
    wrappers = {
        "one": {"optimizer": {"type": "Adam", "lr": 0.1}},
        "two": {"optimizer": {"type": "SGD", "lr": 0.1}},
    }
    config, problems, _ = parse_partly(base(optim_wrapper=wrappers))
    assert problems == []
    assert model_states(config, facts) == 106 * 4 + 106 * 4 + 6 * 2 * 4


def test_auto_is_a_single_device_alone_and_ddp_among_ranks():
    two = evolve(KNOWN, environment=(("RANK", "0"), ("WORLD_SIZE", "2")), world_size=2)
    assert planned(KNOWN, strategy="auto").strategy.NAME == "SingleDeviceStrategy"
    made = planned(two, strategy="auto")
    assert made.strategy.NAME == "DDPStrategy"
    assert flexcore.Plan.from_json(made.to_json()) == made


ALONE = '"auto" chose SingleDeviceStrategy: no launcher started ranks'
RANKS = '"auto" chose DDPStrategy: launcher pytorch started 2 ranks'


@pytest.mark.parametrize(
    ("facts", "settings", "expected"),
    [
        ({}, {}, f"{ALONE}; memory is not counted on a CPU."),
        (
            {},
            {"static_graph": True},
            f"{ALONE}; memory is not counted on a CPU; the settings of DDP wait for ranks.",
        ),
        (
            {"device_type": "cuda"},
            {},
            f"{ALONE}; whether its model states fit is unknown until parameters and device_memory are there.",
        ),
        (
            {"world_size": 2, "device_type": "cuda", "parameters": WEIGHTS, "device_memory": 2**30},
            {"find_unused_parameters": True},
            f"{RANKS}; model states of 1.38e-07 GiB fit devices of 1 GiB.",
        ),
    ],
)
def test_auto_tells_what_it_chose_by_which_fact_and_what_is_missing(facts, settings, expected):
    made = planned(evolve(KNOWN, **facts), strategy={"type": "auto", **settings})
    (notice,) = [notice for notice in made.notices if notice.path == ("strategy",)]
    assert str(notice) == f"strategy: {expected} Name the strategy to fix it. [FP009]"
    assert flexcore.parse({"strategy": {"type": "auto"}}) == flexcore.parse({"strategy": "auto"})


BIG = (ParameterFact(name="w", shape=(2**26,)),)  # with its gradient and no momentum: 512 MiB


@pytest.mark.parametrize(
    ("memory", "expected"),
    [(2**29, "DDPStrategy"), (2**29 - 1, "FSDPStrategy"), (2**28, "FSDPStrategy"), (None, "DDPStrategy")],
)
def test_auto_shares_what_does_not_fit_whole(memory, expected):
    """And tells so; what does not fit in shares either is refused."""
    facts = evolve(KNOWN, world_size=2, device_type="cuda", parameters=BIG, device_memory=memory)
    made = planned(facts, strategy="auto")
    assert made.strategy.NAME == expected
    (notice,) = [notice for notice in made.notices if notice.path == ("strategy",) and notice.code == "FP009"]
    told = "model states of 0.5 GiB need 2 shares on devices of" in notice.message
    assert told == (expected == "FSDPStrategy")


def test_auto_refuses_what_does_not_fit_in_shares():
    facts = evolve(KNOWN, world_size=2, device_type="cuda", parameters=BIG, device_memory=2**28 - 1)
    with pytest.raises(flexcore.ConfigError) as error:
        planned(facts, strategy="auto")
    assert str(error.value) == (
        'strategy: "auto" finds model states of 0.5 GiB (parameters, gradients, optimizer), in 2 shares for devices of 0.25 GiB. '
        "Use a smaller model or optimizer state, larger devices, or more ranks. [FP007]"
    )


def test_auto_hands_its_settings_to_ddp():
    settings = {
        "find_unused_parameters": True,
        "bucket_cap_mb": 3,
        "static_graph": True,
        "broadcast_buffers": True,
    }
    made = planned(evolve(KNOWN, world_size=2), strategy={"type": "auto", **settings})
    assert made.strategy == flexcore.parse({"strategy": {"type": "DDPStrategy", **settings}}).strategy


def test_auto_waits_for_parameters_and_memory_on_a_gpu():
    def waits(**facts):
        made = planned(evolve(KNOWN, **facts), strategy="auto")
        return [unknown.fact for unknown in made.unresolved if unknown.field == "strategy"]

    assert waits() == []
    assert waits(device_type="cuda") == ["parameters", "device_memory"]
    assert waits(device_type="cuda", parameters=WEIGHTS) == ["device_memory"]
    assert waits(device_type="cuda", parameters=WEIGHTS, device_memory=2**20) == []
    assert waits(device_memory=2**20) == ["parameters"]
