"""ZeRO 0 to 3 train what DDP trains, in any precision; killed runs end alike."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json
import os
import pathlib
import signal

import pytest
import torch
from torch import nn

from flexcore.deepspeed_keys import KEYS, REFUSED, RESOLVED, Kind
from tests.ranks import start_ranks
from tests.shell import toys

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # before its first import, which looks for others
pytest.importorskip("deepspeed", reason="the strategy's engine is not installed")

STAGES = (0, 1, 2, 3)
UPDATES = dict(type="tests.shell.toys:Updates")
CLIP = dict(max_norm=0.3)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def zero(stage, **more):
    return dict(type="DeepSpeedStrategy", zero_optimization=dict(stage=stage), **more)


def optim(clip=CLIP, **more):
    return dict(optimizer=dict(type="AdamW", lr=0.02, weight_decay=0.1), clip_grad=clip, **more)


def config(work_dir, strategy=None, batch=4, n=32, **changes):
    """Sixteen or so small steps with clipping active, without dropout; each step's loss is written down."""
    work_dir.mkdir(parents=True, exist_ok=True)
    base = dict(
        strategy=strategy, train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=n), batch_size=batch),
        optim_wrapper=optim(), custom_hooks=[toys.LOSSES], default_hooks=dict(logger=dict(type="LoggerHook", interval=1)),
    )  # fmt: skip
    return toys.config(work_dir, **(base | changes))


def losses(cfg, ranks=2):
    return toys.losses(cfg["work_dir"], ranks)


# --- short windows ---------------------------------------------------------------------------------

WAYS = {"DDP": dict(type="DDPStrategy"), **{f"ZeRO {stage}": zero(stage) for stage in STAGES}}
TAILS = ("carry", "step", "drop")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The short last windows of every tail, in one start."""
    root = tmp_path_factory.mktemp("equal")
    cfgs = {
        (way, tail): config(
            root / way / tail, WAYS[way], n=34, optim_wrapper=optim(accumulative_counts=3, accumulation_tail=tail),
            custom_hooks=[toys.LOSSES, *([] if way == "ZeRO 3" else [UPDATES])],
        )
        for way in ("DDP", "ZeRO 1", "ZeRO 2", "ZeRO 3") for tail in TAILS
    }  # fmt: skip
    return cfgs, toys.together(cfgs)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("way", ["ZeRO 1", "ZeRO 2", "ZeRO 3"])
def test_short_windows_close_and_divide_as_under_ddp(trained, way, tail):
    """Five iterations an epoch, three to an update: windows cross, end or fall short at epochs' ends."""
    cfg, ddp = trained[0][way, tail], trained[0]["DDP", tail]
    assert losses(cfg) == pytest.approx(losses(ddp), abs=1e-5)
    assert toys.differences(pathlib.Path(cfg["work_dir"])) == []
    if way != "ZeRO 3":
        made = [json.loads(pathlib.Path(one["work_dir"], "updates").read_text()) for one in (cfg, ddp)]
        assert made[0] == made[1]


# --- killed and resumed ---------------------------------------------------------------------------


def shaken(work_dir, stage, hook=None):
    """Dropout, noise in every sample, a short last batch, windows of two, a checkpoint every third iteration."""
    data = dict(type="tests.shell.toys:Points", n=34, noise=0.5)
    return config(
        work_dir, zero(stage), train_dataloader=dict(dataset=data, batch_size=4),
        model=dict(type="tests.shell.toys:Net", dropout=0.3), optim_wrapper=optim(accumulative_counts=2),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3)),
        custom_hooks=[toys.LOSSES, *([hook] if hook else [])],
    )  # fmt: skip


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """(whole, killed and gone on) work_dirs by stage: stages 2 and 3 by kill -9, 0 and 1 by a stop in the same process."""
    root, kill = (
        tmp_path_factory.mktemp("resumed"),
        dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=8),
    )
    stop = dict(type="tests.shell.toys:Wishes", stop=6)
    for stage in (2, 3):
        with start_ranks(2, toys.several, [shaken(root / f"part {stage}", stage, kill)]) as running:
            running.processes[0].join(toys.PATIENCE)
            running.kill(signal.SIGKILL)
            running.wait()
            assert (root / f"part {stage}" / "killed").exists()  # by whichever rank came first
    cfgs = {f"stop {stage}": shaken(root / f"part {stage}", stage, stop) for stage in (0, 1)}
    for stage in STAGES:
        cfgs |= {f"{name} {stage}": shaken(root / f"{name} {stage}", stage) for name in ("whole", "part")}
    results = toys.together(cfgs)
    assert {name: result["reason"] for name, result in results.items()} == {
        name: "requested" if name.startswith("stop") else "done" for name in cfgs
    }
    return {stage: (root / f"whole {stage}", root / f"part {stage}") for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_was_ended_goes_on_to_the_same_bits(resumed, stage):
    whole, part = resumed[stage]
    assert toys.weights(part) == toys.weights(whole)
    assert toys.differences(part) == toys.differences(whole) == []
    assert len(toys.recorded(part, "start")) == 2
    last = [(folder / "losses.0").read_text().splitlines()[-5:] for folder in (whole, part)]
    assert last[0] == last[1]


# --- models, precision and settings ---------------------------------------------------------------


class Steps(toys.Net):
    """Contract 1: it steps itself, through its own forward."""

    def train_step(self, data, optim_wrapper):
        inputs, target = (torch.stack(part) for part in data)
        with optim_wrapper.optim_context(self):
            loss = nn.functional.cross_entropy(self(inputs), target)
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    def val_step(self, data):
        return self(torch.stack(data[0]))


class Moded(toys.Net):
    """Contract 2: told by mode."""

    def forward(self, inputs, target, mode="tensor"):
        out = super().forward(torch.stack(inputs))
        return {"loss": nn.functional.cross_entropy(out, torch.stack(target))} if mode == "loss" else out


class Own(toys.Net):
    """Contract 4: returns its loss."""

    def forward(self, inputs, target):
        out = super().forward(inputs)
        return {"loss": nn.functional.cross_entropy(out, target), "logits": out}


class Mixed(nn.Module):
    """Parts that are frozen, shared, odd in size, buffered."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(toys.FEATURES, 7)
        self.norm = nn.BatchNorm1d(7)
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.outer = nn.Linear(7, toys.CLASSES)
        self.again = self.outer

    def forward(self, inputs):
        return self.again(self.frozen(self.norm(self.inner(inputs)).relu()))


class Twice(nn.Module):
    """Under ZeRO 3 it computes its inner part again in backward, by DeepSpeed's own activation checkpointing."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(toys.FEATURES, 8), nn.Linear(8, toys.CLASSES)

    def forward(self, inputs):
        def middle(x):
            return torch.relu(self.inner(x))

        if not self.training or not hasattr(self.inner.weight, "ds_id"):  # as ZeRO 3 marks them
            return self.outer(middle(inputs))
        import deepspeed

        return self.outer(deepspeed.checkpointing.checkpoint(middle, inputs.clone().requires_grad_()))


HALVES = {
    1: dict(stage=1), 2: dict(stage=2), 3: dict(stage=3),
    "1, fp32 accumulation": dict(stage=1, config=dict(data_types=dict(grad_accum_dtype="fp32"))),
}  # fmt: skip
HERE = "tests.shell.test_deepspeed"
MODELS = {"steps": "Steps", "moded": "Moded", "own": "Own", "mixed": "Mixed", "twice": "Twice"}
NO_VALIDATION = dict(val_dataloader=None, val_evaluator=None, val_cfg=None)


def modelled(work_dir, name, strategy, **more):
    lists = dict(collate_fn=None) if name in ("steps", "moded") else {}
    return config(
        work_dir, strategy, model=dict(type=f"{HERE}:{MODELS[name]}"),
        loss=dict(type="torch.nn:CrossEntropyLoss") if name in ("mixed", "twice") else None,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        **{**({} if name in ("mixed", "twice") else NO_VALIDATION), **lists, **more},
    )  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Every kind of model and setting, under DDP where it has a counterpart, in one start."""
    root = tmp_path_factory.mktemp("kinds")
    cfgs = {
        (name, way): modelled(root / name / way, name, WAYS[way])
        for name in MODELS for way in toys.sampled(("DDP", "ZeRO 0", "ZeRO 2", "ZeRO 3"), without=[1])
    }  # fmt: skip
    cfgs["twice", "ZeRO 3"]["strategy"] = zero(3, activation_checkpointing=dict(profile=False))
    sgd = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9))
    nadam = dict(optimizer=dict(type="NAdam", lr=0.01), clip_grad=CLIP, paramwise_cfg=dict(bias_lr_mult=0.5))
    amp = dict(**optim(), type="AmpOptimWrapper", dtype="bfloat16")
    offload = dict(stage=2, offload_optimizer=dict(device="cpu", pin_memory=False))
    for way in toys.sampled(("DDP", "ZeRO 1", "ZeRO 2", "ZeRO 3"), without=[1]):
        cfgs |= {
            ("sgd", way): config(root / "sgd" / way, WAYS[way], optim_wrapper=sgd),
            ("nadam", way): config(root / "nadam" / way, WAYS[way], optim_wrapper=nadam),
            ("amp", way): config(root / "amp" / way, WAYS[way], optim_wrapper=amp),
        }
    for way in ("DDP", "ZeRO 2"):
        hooks = [toys.LOSSES, dict(type="EMAHook"), dict(type="NaNGuardHook")]
        cfgs["ema", way] = config(root / "ema" / way, WAYS[way], custom_hooks=hooks)
    cfgs["offload", "ZeRO 2"] = config(
        root / "offload", dict(type="DeepSpeedStrategy", zero_optimization=offload)
    )
    for stage, settings in HALVES.items():
        strategy = zero(**settings, bf16=dict(enabled=True))
        stop = dict(type="tests.shell.toys:Wishes", stop=4)
        cfgs["bf16", stage] = config(root / f"bf16 {stage}", strategy)
        cfgs["bf16 stopped", stage] = config(
            root / f"bf16 part {stage}", strategy, custom_hooks=[toys.LOSSES, stop]
        )
        cfgs["bf16 again", stage] = config(root / f"bf16 part {stage}", strategy)
    saved = dict(resume=False, load_from=str(root / "sgd/ZeRO 3/checkpoints/epoch_3"), mode="val")
    cfgs["evaluated", "ZeRO 3"] = config(root / "evaluated", WAYS["ZeRO 3"], optim_wrapper=sgd, **saved)
    cfgs["frozen out", "ZeRO 3"] = modelled(
        root / "frozen out", "mixed", zero(3, exclude_frozen_parameters=True)
    )
    wide = dict(model=dict(type="tests.shell.toys:Net", width=9))
    cfgs["another model", "ZeRO 2"] = config(
        root / "sgd" / "ZeRO 2",
        WAYS["ZeRO 2"],
        optim_wrapper=sgd,
        **wide,
        resume=False,
        load_from=str(root / "sgd/DDP/checkpoints/epoch_3"),
    )
    cfgs["another model", "ZeRO 3"] = cfgs["another model", "ZeRO 2"] | dict(strategy=WAYS["ZeRO 3"])
    return cfgs, toys.together(cfgs), root


@pytest.mark.parametrize("name", [*MODELS, "sgd", "nadam", "amp", "ema"])
def test_models_and_optimizers_train_as_under_ddp(kinds, name):
    """Autocast rounds as it goes, so that it may differ by a little more."""
    cfgs, results, _ = kinds
    expected = losses(cfgs[name, "DDP"])
    for way in [way for kind, way in cfgs if kind == name]:
        assert results[name, way]["reason"] == "done", (way, results[name, way])
        assert losses(cfgs[name, way]) == pytest.approx(expected, abs=3e-3 if name == "amp" else 1e-5), way
        assert results[name, way]["metrics"] == pytest.approx(results[name, "DDP"]["metrics"], abs=0.1)
        assert toys.differences(pathlib.Path(cfgs[name, way]["work_dir"])) == []


@pytest.mark.parametrize("stage", HALVES)
def test_in_half_precision_a_checkpoint_keeps_the_full_one_and_resumes_to_the_bit(kinds, stage):
    cfgs, results, root = kinds
    assert [results[name, stage]["reason"] for name in ("bf16", "bf16 stopped", "bf16 again")] == [
        "done",
        "requested",
        "done",
    ]
    whole, part = toys.weights(root / f"bf16 {stage}"), toys.weights(root / f"bf16 part {stage}")
    assert part == whole
    kept = torch.frombuffer(bytearray(whole["0.weight"]), dtype=torch.float32)
    assert not torch.equal(kept, kept.bfloat16().float())
    assert losses(cfgs["bf16", stage]) == pytest.approx(losses(cfgs["bf16", 1]), abs=1e-2)
    assert losses(cfgs["bf16", stage])[-1] < losses(cfgs["bf16", stage])[0]


def test_an_evaluation_alone_finds_what_the_run_found(kinds):
    _, results, _ = kinds
    assert results["evaluated", "ZeRO 3"]["metrics"] == results["sgd", "ZeRO 3"]["metrics"]


def test_offloaded_state_is_saved_and_steps_alike(kinds):
    cfgs, results, root = kinds
    assert results["offload", "ZeRO 2"]["reason"] == "done"
    assert len(toys.weights(root / "offload")) == 4
    assert len(losses(cfgs["offload", "ZeRO 2"])) == 12


def test_frozen_parameters_may_stay_out_of_checkpoints(kinds):
    _, results, root = kinds
    assert results["frozen out", "ZeRO 3"]["reason"] == "done"
    names = set(toys.weights(root / "mixed" / "ZeRO 3"))
    assert names == set(Mixed().state_dict())
    assert names - set(toys.weights(root / "frozen out")) == {"frozen.weight", "frozen.bias"}


@pytest.mark.parametrize("way", ["ZeRO 2", "ZeRO 3"])
def test_weights_of_another_model_are_refused_by_name(kinds, way):
    _, results, root = kinds
    assert results["another model", way]["reason"] == (
        f"CheckpointRefused: {root}/sgd/DDP/checkpoints/epoch_3 does not fit the model: "
        "1 of the model's 4 names fit (4 there): 3 of another shape\n"
        "  shape  0.weight  [8, 6] there  [9, 6] here\n"
        "  shape  0.bias    [8] there     [9] here\n"
        "  shape  3.weight  [3, 8] there  [3, 9] here"
    )


# --- the table of keys against the installed release ----------------------------------------------

NAMES = {bool: "bool", int: "int", float: "number", str: "text", list: "list"}


class Recording(dict):
    """A configuration that notes which of its top-level keys are asked for."""

    asked: set = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def keys(self):
        return self


def test_every_key_deepspeed_reads_is_in_the_table():
    """Its configuration class is watched as it reads; a key it has besides is either taken or refused by name."""
    from deepspeed.runtime.config import DeepSpeedConfig

    DeepSpeedConfig(Recording(train_micro_batch_size_per_gpu=1))
    known = set(KEYS) | {name for name in REFUSED if "." not in name}
    assert {str(key) for key in Recording.asked} - known == set()
    assert len(Recording.asked) > 40


def test_the_sections_of_the_table_are_deepspeeds():
    """Names and kinds of every section that DeepSpeed has a model of, at every level."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.monitor.config import DeepSpeedMonitorConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

    compared("zero_optimization", KEYS["zero_optimization"], DeepSpeedZeroConfig)
    compared("bf16", KEYS["bf16"], DeepSpeedBF16Config)
    compared("fp16", KEYS["fp16"], DeepSpeedFP16Config)
    compared("comms_logger", KEYS["comms_logger"], CommsLoggerConfig)
    compared("timers.throughput", KEYS["timers"]["throughput"], DeepSpeedThroughputTimerConfig)
    for name, field in DeepSpeedMonitorConfig.model_fields.items():
        compared(name, KEYS[name], field.annotation)


def compared(section: str, table: Kind, model) -> None:
    refused = {name.removeprefix(f"{section}.") for name in REFUSED if name.startswith(f"{section}.")}
    theirs = {}
    for name, field in model.model_fields.items():
        theirs |= dict.fromkeys({name, field.alias or name}, field.annotation)
    gone = {name for name in refused if REFUSED[f"{section}.{name}"][0] == "FK017"}
    assert set(table) | (refused - gone) == set(theirs) - gone, section
    for name, kind in table.items():
        check_kind(f"{section}.{name}", kind, theirs[name])


def check_kind(place, kind, annotation):
    import enum
    import typing

    inner = [one for one in typing.get_args(annotation) if one is not type(None)]
    if typing.get_origin(annotation) is not list and len(inner) == 1:
        annotation = inner[0]
    if isinstance(kind, tuple):
        assert {str(member.value) for member in annotation} == set(kind), place
    elif isinstance(kind, dict):
        compared(place, kind, annotation)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        assert (place, kind) == ("zero_optimization.stage", "int")
    elif annotation is pathlib.Path:
        assert kind == "text", place
    else:
        assert NAMES[typing.get_origin(annotation) or annotation] == kind, place


def test_every_planned_word_is_in_the_table():
    for name in RESOLVED:
        section, _, key = name.rpartition(".")
        assert key in (KEYS[section] if section else KEYS)
