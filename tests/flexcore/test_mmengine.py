"""What mmengine 0.10.7's FlexibleRunner did, case by case, against the plan; every deviation is in DIFFERENCES.

The cases under oracles/ were recorded from mmengine itself. docs/differences.md is this table as text.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import flexcore
from flexcore import CheckpointFact, Facts, HookFact, curves, plateaus
from flexcore import timeline as clocks
from flexcore.converting import parse
from flexcore.facts import ParameterFact
from flexcore.hooks import STAGES
from flexcore.saving import best_rules
from flexcore.timeline import Timeline, closes, window_at
from tests.flexcore.base import base, epoch_indices, planned, validating
from tests.oracles import claimed, loaded

HERE = Path(__file__).parent
DOC = HERE.parents[1] / "docs" / "differences.md"

# (file, how the case's id starts): (what flexcore does instead, why). Every case that starts so must differ.
DIFFERENCES: dict[tuple[str, str], tuple[str, str]] = {
    ("o02", "resume=False load_from=''"): ("refused", "An empty path names nothing."),
    ("o02", "resume=True load_from=''"): ("refused", "An empty path names nothing."),
    ("o02", "resume='' load_from=None"): ("refused", "An empty path names nothing."),
    ("o01", "per-stage"): (
        "fewer stages, in the same order", "The loop itself counts, times and sets the LR; a stage nobody listens to costs nothing."),
    ("o03", "launcher env=['SLURM_NTASKS']"): (
        "no launcher", "A bare sbatch script has SLURM_NTASKS too; waiting for its other ranks hangs."),
    ("o03", "launcher env=['SLURM_NTASKS', 'WORLD_SIZE']"): (
        "no launcher", "WORLD_SIZE without RANK says nothing of who this process is."),
    ("o03", "strategy launcher=none strategy={'type': 'DDPStrategy'}"): (
        "refused", "A distributed strategy without ranks fails later, with a KeyError."),
    ("o03", "micro_batch loader_no_batching"): (
        "unknown, and said so", "A loader of samples is one of batches of unknown size until one is seen."),
    ("o03", "strategy launcher=pytorch strategy={'type': 'SingleDeviceStrategy', 'env_kwargs'"): (
        "refused", "A second launcher beside the launcher contradicts it."),
    ("o03", "strategy launcher=mpi strategy={'type': 'SingleDeviceStrategy', 'env_kwargs'"): (
        "refused", "A second launcher beside the launcher contradicts it."),
    ("o03", "strategy launcher=None strategy={'type': 'SingleDeviceStrategy', 'env_kwargs'"): (
        "refused", "A second launcher beside the launcher contradicts it."),
    ("o03", "strategy launcher=None strategy={'type': 'FSDPStrategy'}"): (
        "refused", "A sharded model without ranks has nobody to share it with."),
    ("o03", "strategy launcher=none strategy={'type': 'DeepSpeedStrategy'}"): (
        "refused", "A distributed strategy without ranks fails later, with a KeyError."),
    ("o03", "strategy launcher=pytorch strategy={'type': 'DeepSpeedStrategy', 'train_micro_batch_size_per_gpu': '9'}"): (
        "refused", "A batch key of DeepSpeed's that disagrees with the loader is a contradiction; mmengine replaces it."),
    ("o03", "strategy launcher=mpi strategy={'type': 'DeepSpeedStrategy', 'train_micro_batch_size_per_gpu': '9'}"): (
        "refused", "A batch key of DeepSpeed's that disagrees with the loader is a contradiction; mmengine replaces it."),
    ("o03", "strategy launcher=None strategy={'type': 'DeepSpeedStrategy', 'train_micro_batch_size_per_gpu': '9'}"): (
        "refused", "A batch key of DeepSpeed's that disagrees with the loader is a contradiction; mmengine replaces it."),
    ("o03", "strategy launcher=bogus"): ("refused", "An unknown launcher starts nothing."),
    ("o05", "train_cfg {'max_epochs': 1}"): ("the epoch loop", "The only length given says which loop is meant."),
    ("o06", "ReduceOnPlateauLR"): ("told by validations", "The plan cannot know the scores; their replay agrees."),
    ("o07", "iter loop but by_epoch True (TRAP)"): (
        "saves every iteration", "Without by_epoch the interval counts as the loop does; mmengine saves once, at the end."),
    ("o07", "save_best, interval 3"): (
        "epoch_3, epoch_6 and the best", "mmengine writes an extra epoch file beside each best one."),
    ("o08", "('epoch', 4, 1, 1, [[2, 1]])"): ("accepted", "JSON, YAML and TOML have no tuples."),
    ("o10", "strategy str"): ("accepted", "A bare name is a type without settings."),
    ("o13", "DefaultSampler n=10 world=1 shuffle=True"): ("another order", "Shuffles are keyed permutations, O(1) at any position."),
    ("o13", "DefaultSampler n=10 world=2 shuffle=True"): ("another order", "Shuffles are keyed permutations, O(1) at any position."),
    ("o13", "DefaultSampler n=3 world=4 shuffle=True"): ("another order", "Shuffles are keyed permutations, O(1) at any position."),
    ("o13", "InfiniteSampler n=5 world=1 shuffle=True"): ("another order", "Shuffles are keyed permutations, O(1) at any position."),
    ("o15", "epoch loop, mid-epoch iter ckpt at iter 6"): (
        "goes on at batch 2 of epoch 1", "mmengine starts the epoch anew and trains 14 iterations of 12: a bug."),
}  # fmt: skip
# Deviations no recorded case shows: (subject, mmengine, flexcore, why).
UNSEEN: tuple[tuple[str, str, str, str], ...] = (
    ("resume=True with load_from", "takes load_from", "takes the newest checkpoint in work_dir, if there is one",
     "A requeued job goes on instead of starting over."),
    ("auto_scale_lr", "leaves accumulation out", "counts it", "The optimizer sees the whole global batch."),
    ("DeepSpeedStrategy's config file", "is named relative to where the command is run", "relative to the config that names it",
     "A config means the same from anywhere; bases are named so too."),
    ("DeepSpeedStrategy's optimizer and scheduler sections", "are passed on", "are refused",
     "The optimizer and its schedules are the config's own, the same under every strategy."),
    ("DeepSpeedStrategy's inputs_to_half left out", "casts no input", "casts every floating-point one",
     "A model in half precision takes no other."),
    ("gradient_clipping left out", "is DeepSpeed's default, 1.0 since 0.19", "is none", "What nobody asked for is not done."),
    ("InfiniteSampler's length", "the whole dataset on every rank", "the rank's share", "A pass over the data is one pass."),
    ("a floor beside OneCycleLR", "is a ratio of eta_max / div_factor", "is a ratio of the group's own base value",
     "The base value is what the config says."),
    ("OneCycleLR after total_steps", "stops the run with an error", "holds the last value", "The run was planned longer."),
    ("DumpResults", "pickles what one rank collects", "writes .safetensors or .jsonl, merged from every rank",
     "Reading a pickle executes it."),
    ("test-time augmentation", "wraps the model: PrepareTTAHook, tta_model", "is a setting of the test: test_cfg.tta",
     "A plan says what is predicted."),
    ("a loop of one's own", "calls every stage itself", "calls the run's verbs, which call them", "What is certain is planned."),
    ("a data_preprocessor", "reaches models that take it", "reaches them, and is applied by the run before any other model",
     "No setting is without effect."),
    ("persistent_workers with an order of one's own", "keeps workers", "starts them anew for each pass",
     "A resume cannot know the random streams of workers that live on."),
    ("ReduceOnPlateauLR beside another schedule", "lowers the value, not the other's floor", "scales value and floor",
     "The reduced curve is the planned one, scaled."),
    ("a custom key in no parameter's name", "is ignored", "is refused", "It changes nothing, so it is a mistake."),
    ("RMSNorm under norm_decay_mult", "is no norm", "is a norm", "It is one."),
    ("ExponentialLR with convert_to_iter_based", "applies gamma at each iteration", "applies gamma over each epoch",
     "The curve is the same one."),
    ("by_epoch of schedules and CheckpointHook", "True", "follows the training loop", "An iteration loop has no epochs."),
    ("epoch in a checkpoint saved with save_best", "one too many", "the completed epochs", "It is a bug."),
    ("seed of a resumed run without one", "drawn anew", "the checkpoint's", "The order of samples goes on."),
    ("published_keys", "publishes the last checkpoint and each best one, as .pth", "publishes the best, else the last, as .safetensors",
     "One file to hand on, which cannot execute."),
    ("CheckpointHook's out_dir", "out_dir/<last part of work_dir>", "the same, and locked against a second run",
     "Two runs in one directory would delete each other's checkpoints."),
    ("hooks' state in a checkpoint", "is in the MessageHub", "is filed under the hook's type and its number among those",
     "Reordering hooks moves no state."),
    ("a hook with state that sorts behind CheckpointHook", "is saved without what it is about to see", "goes before it where it saves",
     "A resume would never show it that iteration."),
    ("the best checkpoint", "is saved in after_val_epoch, at CheckpointHook's turn", "is saved once all hooks have seen the validation",
     "A resume from it goes on with their states and random streams."),
    ("type=\"pkg.module.Name\" inside arguments", "is data for its owner", "is built first, from two dots on",
     "It is an import path; a registry's scope has one dot."),
    ("several optimizers", "need a constructor of one's own", "each trains the submodule it is named after", "What it does in every constructor published."),
    ("accumulative_counts of several optimizers", "each counts its own calls", "must be alike", "A checkpoint falls where no window is open."),
    ("gradients one optimizer's loss leaves in another's parameters", "stay", "are cleared as an iteration's window closes", "A resume could not know them."),
    ("ZeroRedundancyOptimizer", "its checkpoints are its own", "holds the plain optimizer's state in checkpoints", "They go on under either, on any number of ranks."),
    ("ranks under several optimizers", "MMSeparateDistributedDataParallel", "DDPStrategy averages gradients as each optimizer steps", "Each gradient is averaged once, however often a part is called."),
    ("load_from", "strips \"module.\", leaves out what does not fit, executes what the pickle says",
     "strips \"module.\" where all names have it, refuses what does not fit unless strict=False, executes nothing",
     "Half-loaded weights and a pickle's code are both surprises."),
    ("resume with a URL", "fetches it", "is refused", "A plan must not depend on what a server answers."),
    ("resuming mmengine's .pth", "trusts meta", "goes by the message hub's iteration, and counts epochs by it",
     "FlexibleRunner saves again after a validation that finds a best, one epoch or iteration too many told."),
    ("resuming mmengine's .pth: settings of optimizer groups", "the file's hold", "the config's hold, and differences are told",
     "The plan says what will be."),
    ("resuming mmengine's .pth with averages and without EMAHook", "trains on from the averages", "trains on from the weights that trained",
     "With an EMAHook mmengine saves each in the other's place."),
    ("compile", "compiles the wrapped model's method", "compiles the model's method before it is wrapped",
     "Evaluations, which call the model itself, are compiled too."),
    ("mp_start_method", "is set for the whole process", "is that of the loaders' workers", "A run leaves its process as it was."),
    ("SyncBuffersHook in an iteration loop", "averages before each validation", "is refused",
     "A validation uses the buffers that are saved, rank 0's."),
    ("DDPStrategy's model_wrapper", "wraps the model", "is refused with what to write instead", "Its settings are the strategy's own."),
    ("detect_anomalous_params", "of MMDistributedDataParallel, told at each step", "of DDPStrategy, told once for each set of names",
     "A warning at each step buries the first."),
    ("sync_bn on CPU", "fails in the first step", "is refused", "torch computes SyncBatchNorm on GPUs alone."),
    ("log_with_hierarchy", "False: train/loss and val/loss are both \"loss\" in backends", "True", "Two values under one name are one curve of nonsense."),
    ("log_metric_by_epoch", "True", "False: by iteration", "Training and validation share an axis."),
    ("mean_pattern", "smooths losses, times and gradient norms", "smooths every value", "What is logged between two lines counts."),
    ("a window of log_processor after a resume", "starts empty, or holds all that was ever logged", "goes on where it was", "A resumed run shows what an uninterrupted one shows."),
    ("custom_cfg with a function registered in HistoryBuffer", "method_name is its name", "is module:function of (values, **kwargs), over a number of values", "There are no registries, and not every value ever logged is kept."),
    ("interval_exp_name", "1000", "None: never", "Every line of a log directory is of one experiment."),
    ("LoggerHook's keep_local=False and remote storage", "honoured", "refused", "A resume and the report read the local files."),
    ("WandbVisBackend", "online; steps of its own; the code of the current directory always", "offline unless init_kwargs says mode=\"online\"; steps are iterations; code where log_code_name is given", "A run needs no network, and sends nothing it was not asked to."),
    ("MLflowVisBackend's artifacts", "files of the whole work_dir", "files of the log directory", "Each start adds its own."),
    ("trackers after a resume", "another run", "the same run of W&B and MLflow", "All starts of a training are one record."),
    ("FSDPStrategy", "the first FSDP, by flat buffers", "fully_shard, parameter by parameter",
     "It is what torch keeps up; what its settings decide by itself is told to be without effect."),
    ("activation_checkpointing of FSDPStrategy", "a check_fn", "class names", "A plan can tell which modules they are."),
    ("skip_init_weights without a checkpoint", "trains arbitrary memory", "initialises the weights", "It is a bug."),
    ("log directory", "<timestamp>", "<timestamp>_<run id>", "Two runs in one second stay apart."),
)  # fmt: skip


def differs(number: str, case: dict[str, Any]) -> bool:
    return any(n == number and case["id"].startswith(start) for n, start in DIFFERENCES)


def cases(number: str, *, only: str = "", different: bool = False):
    """A test of one file's cases that agree with mmengine (or that differ)."""
    return claimed(number, lambda case: case["id"].startswith(only) and differs(number, case) == different)


def codes(config: Any, facts: Facts = Facts(), **more: Any) -> set[str]:
    return {p.code for p in flexcore.lint(config, facts, **more) if p.severity == "error"}


def test_every_difference_is_a_recorded_case():
    for number, start in DIFFERENCES:
        assert any(case["id"].startswith(start) for case in loaded(number)), (number, start)


def document() -> str:
    rows = [
        f"| `{start}` ({number}) | {ours} | {why} |" for (number, start), (ours, why) in DIFFERENCES.items()
    ]
    unseen = [f"| {subject} | {theirs} | {ours} | {why} |" for subject, theirs, ours, why in UNSEEN]
    return "\n".join([
        "# Differences from mmengine", "",
        "FlexibleRunner's vocabulary is kept; where its behaviour is not, the reason is here. The first table is checked,",
        "case by case, against recordings of mmengine 0.10.7 (`tests/flexcore/oracles`).", "",
        "| Recorded case | flexcore | Why |", "|---|---|---|", *rows, "",
        "| Subject | mmengine | flexcore | Why |", "|---|---|---|---|", *unseen, "",
    ])  # fmt: skip


def test_the_document_says_the_same():
    assert DOC.read_text() == document()


# --- o01: hooks ----------------------------------------------------------------------------------

OWN = {"HookNormalA": None, "HookNormalB": None, "HookLow": "LOW"}


def hooked(case: dict[str, Any]) -> dict[str, Any]:
    def full(hook: Any) -> Any:
        return (
            hook
            if hook is None or hook["type"] not in OWN
            else {**hook, "type": f"user.hooks:{hook['type']}"}
        )

    given = case["input"]
    slots = {key: full(hook) for key, hook in (given["default_hooks"] or {}).items()}
    return base(default_hooks=slots, custom_hooks=[full(hook) for hook in given["custom_hooks"] or []])


@cases("o01")
def test_hooks_merge_and_order(case):
    config = hooked(case)
    if "error" in case["expected"]:
        assert codes(config) == {"FK010" if "nosuch" in config["default_hooks"] else "FK020"}
        return
    facts = Facts(hooks=tuple(
        HookFact(place=i, stages=STAGES, priority=OWN.get(hook["type"].rpartition(":")[2]))
        for i, hook in enumerate(config["custom_hooks"])
    ))  # fmt: skip
    order = [[hook.name, hook.priority] for hook in flexcore.plan(config, facts).hooks]
    assert order == case["expected"]["ok"]["order"]


@cases("o01", different=True)
def test_the_stages_of_both_are_in_one_order(case):
    slots = [{"type": "EarlyStoppingHook", "monitor": "acc"} if hook == "EarlyStoppingHook" else hook
             for hook in case["input"]["custom_hooks"]]  # fmt: skip
    plan = flexcore.plan(validating(custom_hooks=slots), Facts(world_size=1))
    for stage, theirs in case["expected"]["ok"].items():
        ours = [hook.name for hook in plan.hooks_at(stage)]
        assert [name for name in ours if name in theirs] == [name for name in theirs if name in ours], stage
    both = {stage for stage in STAGES if plan.hooks_at(stage)} & set(case["expected"]["ok"])
    assert len(both) > 8
    assert [h.name for h in plan.hooks_at("after_val_epoch")] == [
        "EMAHook", "EmptyCacheHook", "LoggerHook", "CheckpointHook", "EarlyStoppingHook",
    ]  # fmt: skip


# --- o02: starting point -------------------------------------------------------------------------


def started(case: dict[str, Any], **facts: Any) -> flexcore.Plan:
    given = case["input"]
    known = Facts(checkpoints=(), **facts)
    return flexcore.plan(base(resume=given["resume"], load_from=given["load_from"]), known)


@cases("o02")
def test_starting_points(case):
    if "error" in case["expected"]:
        assert "FC001" in codes(base(resume=case["input"]["resume"], load_from=case["input"]["load_from"]))
        return
    action = case["expected"]["ok"]["action"]
    start = started(case).start
    expected = {None: flexcore.Fresh, "load": flexcore.LoadWeights, "resume": flexcore.Resume}
    assert type(start) is expected[action[0] if action else None]
    assert action is None or start.path == action[1]


@cases("o02", different=True)
def test_empty_paths_are_refused(case):
    assert codes(base(resume=case["input"]["resume"], load_from=case["input"]["load_from"])) == {"FC010"}


def test_a_requeued_job_goes_on_where_it_was():
    newest = CheckpointFact(path="runs/base/checkpoints/epoch_2", name="epoch_2", epoch=2, iter=50)
    start = flexcore.plan(base(resume=True, load_from="x"), Facts(checkpoints=(newest,))).start
    assert (start.path, start.iter) == (newest.path, 50)


# --- o03: launcher, micro-batch, strategy --------------------------------------------------------


def chosen(case: dict[str, Any]) -> str:
    return planned(Facts(environment=tuple(sorted(case["input"]["env"].items())))).environment.launcher


@cases("o03", only="launcher")
def test_launchers(case):
    assert chosen(case) == case["expected"]["ok"]


@cases("o03", only="launcher", different=True)
def test_a_bare_sbatch_script_is_no_launcher(case):
    assert chosen(case) == "none"


def stated(case: dict[str, Any]) -> dict[str, Any]:
    """The strategies are written as Python text in the recording; classes appear by their repr."""
    text, given = case["input"]["strategy"], base(launcher=case["input"]["launcher"])
    kinds = [kind for kind in ("SingleDevice", "DDP", "FSDP", "DeepSpeed") if f"{kind}Strategy" in text]
    if text == "None":
        return given
    extra = {"env_kwargs": {}} if "env_kwargs" in text else {}
    if "train_micro_batch_size_per_gpu" in text:
        extra, given = (
            {"train_micro_batch_size_per_gpu": 9},
            {**given, "launcher": case["input"]["launcher"] or "pytorch"},
        )
    return {**given, "strategy": {"type": f"{kinds[0]}Strategy", **extra} if kinds else {}}


@claimed("o03", lambda case: case["id"].startswith("strategy"))
def test_strategies(case):
    config, text = stated(case), case["input"]["strategy"]
    if case["input"]["launcher"] == "bogus":
        assert codes(config) >= {"FK011"}
    elif "error" in case["expected"]:
        assert codes(config) == {"FK012"}
    elif "env_kwargs" in text:
        assert codes(config) == {"FK010"}
        assert differs("o03", case)
    elif differs("o03", case):
        assert codes(config) == {"FD002" if "per_gpu" in text else "FP001"}
    else:
        assert flexcore.plan(config).strategy.NAME == case["expected"]["ok"]["type"]


@cases("o03", only="micro_batch")
def test_micro_batches(case):
    supplied = {"train_dataloader": flexcore.Supplied()}
    if case["input"] == "loader_bs4":
        made = planned(Facts(train_batch_size=4), **supplied)
    elif "error" in case["expected"]:
        assert codes(base(train_dataloader={"dataset": "pkg:D", **case["input"]})) == {"FD001"}
        return
    else:
        made = planned(train_dataloader={"dataset": "pkg:D", **case["input"]})
    assert made.batching.micro_batch_size == case["expected"]["ok"]


@cases("o03", only="micro_batch", different=True)
def test_a_micro_batch_nobody_knows_is_said_to_be_unknown(case):
    made = planned(train_dataloader=flexcore.Supplied())
    assert made.batching.micro_batch_size is None
    assert ("batching.micro_batch_size", "train_batch_size") in [(u.field, u.fact) for u in made.unresolved]


def test_the_loaders_batch_size_is_the_micro_batch():
    assert planned().batching.micro_batch_size == 4


# --- o04, o05: LR scaling and totals -------------------------------------------------------------


@claimed("o04")
def test_scaled_lr(case):
    given = case["input"]
    config = base(
        auto_scale_lr=given["auto_scale_lr"], launcher="pytorch",
        optim_wrapper={"optimizer": {"type": "SGD", "lr": given["lr"], "weight_decay": 1e-4},
                       "paramwise_cfg": given["paramwise_cfg"]},
        train_dataloader={"dataset": "pkg:D", "batch_size": given["micro_batch"]},
        param_scheduler={"type": "ConstantLR", "factor": 0.5, "by_epoch": False, "end": 10},
    )  # fmt: skip
    if "error" in case["expected"]:
        assert codes(config) == {"FS004"}
        return
    model = (
        seen("l.weight", 4, 4),
        seen("l.bias"),
        seen("bn.weight", kind="norm"),
        seen("bn.bias", kind="norm"),
    )
    plan = flexcore.plan(config, Facts(world_size=given["world_size"], train_samples=1000, parameters=model))
    groups, expected = plan.optimizers[0].groups, case["expected"]["ok"]
    assert [group.base("lr") for group in groups] == pytest.approx(expected["initial_lr"], rel=1e-12)
    started = [flexcore.value_at(plan, "lr", 0, i).value for i in range(len(groups))]
    assert started == pytest.approx(expected["lr_after_ConstantLR_half"], rel=1e-12)


@claimed("o05", lambda case: "dataset_len" in case["input"])
def test_totals(case):
    given = case["input"]
    loop = (
        {"max_epochs": given["max_epochs"]}
        if given["max_iters"] is None
        else {"max_iters": given["max_iters"]}
    )
    sampler = {
        "type": given["sampler"],
        **({"round_up": given["round_up"]} if given["sampler"] == "DefaultSampler" else {}),
    }
    config = base(
        train_cfg={"by_epoch": "max_epochs" in loop, **loop}, launcher="pytorch",
        train_dataloader={"dataset": "pkg:D", "batch_size": given["batch_size"], "drop_last": given["drop_last"], "sampler": sampler},
    )  # fmt: skip
    if "error" in case["expected"]:
        assert codes(config) == {"FK011"}
        return
    clock = flexcore.plan(
        config, Facts(world_size=given["world_size"], train_samples=given["dataset_len"])
    ).timeline
    got = {name: getattr(clock, name) for name in case["expected"]["ok"]}
    assert got == case["expected"]["ok"]


@cases("o05", only="train_cfg")
def test_loops(case):
    if "error" in case["expected"]:
        code = {"by_epoch": "FK012", "max_iters": "FK010"}[list(case["input"]["train_cfg"])[-1]]
        assert codes(base(train_cfg=case["input"]["train_cfg"])) == {code}
        return
    clock, expected = planned(train_cfg=case["input"]["train_cfg"]).timeline, case["expected"]["ok"]
    assert (clock.by_epoch, clock.max_epochs, clock.max_iters) == (
        expected["type"] == "EpochBasedTrainLoop", expected["max_epochs"], expected["max_iters"],
    )  # fmt: skip


@cases("o05", only="train_cfg", different=True)
def test_one_length_says_which_loop(case):
    assert planned(train_cfg=case["input"]["train_cfg"]).timeline.by_epoch


# --- o06, o07, o08: curves, saves, validations ---------------------------------------------------


def curve(case: dict[str, Any]) -> dict[str, Any]:
    given = case["input"]
    total = given["epochs"] * given["epoch_length"]
    loop = (
        {"by_epoch": True, "max_epochs": given["epochs"]}
        if given["loop"] == "epoch"
        else {"by_epoch": False, "max_iters": total}
    )
    return base(train_cfg=loop, param_scheduler=given["param_scheduler"],
                optim_wrapper={"optimizer": {"type": "SGD", "lr": given["base_lr"]}})  # fmt: skip


@cases("o06")
def test_lr_curves(case):
    config = curve(case)
    if "error" in case["expected"]:
        assert codes(config) == {"FS001"}
        return
    plan = flexcore.plan(config, Facts(train_samples=4 * case["input"]["epoch_length"]))
    expected = case["expected"]["ok"]["value_at_each_iter"]
    assert [flexcore.value_at(plan, "lr", i).value for i in range(len(expected))] == pytest.approx(
        expected, abs=1e-11
    )


@cases("o17")
def test_overlapping_and_absolute_schedules(case):
    """Every value to 1e-12, and the same bits from any iteration on."""
    given, expected = case["input"], case["expected"]["ok"]["value_at_each_iter"]
    plan = flexcore.plan(curve(case), Facts(train_samples=4 * given["epoch_length"]))
    found = [flexcore.value_at(plan, "lr", i).value for i in range(len(expected))]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
    for start in (0, 1, len(expected) // 2, len(expected) - 1):
        resumed = curves.values(plan.optimizers[0].schedules, given["base_lr"], given["epoch_length"], start)
        assert list(islice(resumed, len(expected) - start)) == found[start:]


@cases("o06", different=True)
def test_a_plateau_is_replayed_from_the_scores(case):
    given, expected = case["input"], case["expected"]["ok"]["value_at_each_iter"]
    plan = flexcore.plan(validating(**curve(case)), Facts(train_samples=4 * given["epoch_length"]))
    assert flexcore.value_at(plan).reason == "validations of acc decide it (ReduceOnPlateau)"
    states, values = plateaus.begun(plan.optimizers[0].schedules, 1), []
    for epoch, score in enumerate(given["val_scores"], 1):
        values += [given["base_lr"] * plateaus.scale(plan.optimizers[0].schedules, states, "lr", 0)] * given[
            "epoch_length"
        ]
        states = plateaus.validated(
            plan.optimizers[0].schedules, states, plan.optimizers[0].groups, {"acc": score},
            epoch=epoch, iteration=epoch * given["epoch_length"], epoch_length=given["epoch_length"],
        )  # fmt: skip
    assert values == pytest.approx(expected, rel=1e-12)


def checkpointed(case: dict[str, Any]) -> dict[str, Any]:
    given = case["input"]
    loop = (
        {"by_epoch": True, "max_epochs": given["total"]}
        if given["loop"] == "epoch"
        else {"by_epoch": False, "max_iters": given["total"]}
    )
    return validating(
        train_cfg={**loop, "val_interval": given.get("val_interval", 1)},
        default_hooks={"checkpoint": {"type": "CheckpointHook", **given["CheckpointHook"]}},
    )  # fmt: skip


def files(plan: flexcore.Plan, done: int) -> list[str]:
    return sorted(f"{name}.pth" for name in flexcore.kept(plan, done))


@cases("o07")
def test_checkpoints(case):
    config, given = checkpointed(case), case["input"]
    if "error" in case["expected"]:
        assert codes(config) == {"FC002"}
        return
    plan = flexcore.plan(config, Facts(train_samples=4 * given["epoch_length"]))
    unit = given["epoch_length"] if given["loop"] == "epoch" else 1
    expected = case["expected"]["ok"]
    regular = [name for name in expected["final_files"] if not name.startswith("best")]
    assert files(plan, given["total"] * unit) == regular
    for step, standing in expected["after_each_step"]:
        if isinstance(step, int):
            assert files(plan, step * unit) == [name for name in standing if not name.startswith("best")]
    made = {f"{save.name}.pth": [save.epoch, save.iter] for save in flexcore.saves(plan, best=False)}
    if "save_best" not in given["CheckpointHook"]:
        assert {name: at for name, at in made.items() if name in expected["meta_epoch_iter"]} == expected[
            "meta_epoch_iter"
        ]
    best = [f"{save.name.replace('auto', 'acc')}.pth" for save in flexcore.saves(plan) if save.conditional]
    assert {name for name in expected["final_files"] if name.startswith("best")} <= set(best)


@cases("o07", different=True)
def test_checkpoints_that_differ(case):
    plan = flexcore.plan(checkpointed(case), Facts(train_samples=4 * case["input"]["epoch_length"]))
    names = [save.name for save in flexcore.saves(plan, best=False)]
    by_iter = [f"iter_{i}" for i in range(1, 8)]
    assert names == (["epoch_3", "epoch_6"] if "save_best" in case["input"]["CheckpointHook"] else by_iter)


@claimed("o08")
def test_validations(case):
    given = case["input"]
    by_epoch = given["loop"] == "epoch"
    length = {"max_epochs": given["total"]} if by_epoch else {"max_iters": given["total"]}
    asked = {
        key: given[key]
        for key in ("val_begin", "val_interval", "dynamic_intervals")
        if given[key] is not None
    }
    plan = flexcore.plan(
        validating(train_cfg={"by_epoch": by_epoch, **length, **asked}), Facts(train_samples=40)
    )
    expected = case["expected"].get("ok", {"val_at": [1, 2, 3, 4]})["val_at"]
    assert ("ok" in case["expected"]) != differs("o08", case)
    assert [epoch if by_epoch else at for epoch, at in flexcore.validations(plan)] == expected


# --- o10: what is refused ------------------------------------------------------------------------

GROUPS = {
    "train": base(),
    "val": {key: value for key, value in validating().items() if key.startswith("val")},
    "test": {
        key.replace("val", "test", 1): value for key, value in validating().items() if key.startswith("val_")
    },
}


@claimed("o10", lambda case: case["id"][:5] in ("train", "val: ", "test:"))
def test_groups_are_all_or_none(case):
    group = case["id"].partition(":")[0]
    given = {key: GROUPS[group][key] for key in case["input"]["given"]}
    assert ("FK018" in codes({"model": "pkg:M", **given})) == ("error" in case["expected"])


REFUSED = {
    "param_scheduler without optim_wrapper": ({"model": "pkg:M", "param_scheduler": []}, "FS005"),
    "compile None": (base() | {"compile": None}, "FK011"),
    "resume str + load_from": (base(resume="a", load_from="b"), "FC001"),
    "log_processor list": (base(log_processor=[1]), "FK011"),
    "unknown kwarg": (base(foo="1"), "FK010"),
    "env_cfg unknown key": (base(env_cfg={"dist_confg": {}}), "FK010"),
    "log_level bad": (base(log_level="LOUD"), "FK011"),
}


@claimed("o10", lambda case: case["id"] in REFUSED)
def test_what_is_refused_at_construction(case):
    config, code = REFUSED[case["id"]]
    assert code in codes(config)
    assert "error" in case["expected"]


@cases("o10", only="val()")
def test_modes_need_their_group(case):
    config = {"model": "pkg:M", **{key: GROUPS["val"][key] for key in case["input"]["given"]}}
    assert codes(config, mode="val") == (set() if "ok" in case["expected"] else {"FK021"})


@cases("o10", only="strategy str", different=True)
def test_a_bare_name_is_a_type(case):
    made = planned(strategy=case["input"]["strategy"], launcher="pytorch")
    assert made.strategy.NAME == "DDPStrategy"


# --- o11, o12, o13, o16 --------------------------------------------------------------------------


@cases("o11", only="save_best")
def test_save_best_rules(case):
    given = {key: value for key, value in case["input"].items() if value is not None}
    config = validating(default_hooks={"checkpoint": {"type": "CheckpointHook", **given}})
    if "error" in case["expected"]:
        assert codes(config) == {"FC002"}
        return
    (slot,) = parse(config).default_hooks
    best = best_rules(slot.hook)
    assert [b.key for b in best] == (case["expected"]["ok"]["key_indicators"] or [])
    assert [b.rule for b in best] == (case["expected"]["ok"]["rules"] or [])


@cases("o12", only="accumulative")
def test_accumulation(case):
    given = case["input"]
    clock = Timeline(
        by_epoch=False,
        epoch_length=9,
        max_epochs=1,
        max_iters=given["max_iters"],
        window=given["accumulative_counts"],
    )
    for row in case["expected"]["ok"]:
        assert window_at(clock, row["iter"])[1] == row["loss_divisor"]
        assert closes(clock, row["iter"]) == row["step"] == row["ddp_sync"]


@claimed("o12", lambda case: "scheduler" in case["input"])
def test_schedules_move_every_iteration_under_accumulation(case):
    plan = planned(
        Facts(train_samples=32), optim_wrapper={"optimizer": {"type": "SGD", "lr": 1.0}, "accumulative_counts": 4},
        param_scheduler={"type": "ExponentialLR", "gamma": 0.5, "by_epoch": False},
    )  # fmt: skip
    assert [flexcore.value_at(plan, "lr", i).value for i in range(8)] == case["expected"]["ok"]


def dealt(case: dict[str, Any]) -> list[list[int]]:
    given = case["input"]
    sampler = {"type": given["sampler"], "shuffle": given["shuffle"], "seed": given["seed"]}
    config = base(
        train_dataloader={"dataset": "pkg:D", "batch_size": 1, "sampler": sampler}, launcher="pytorch"
    )
    plan = flexcore.plan(config, Facts(world_size=given["world_size"], train_samples=given["n"]))
    epochs = range(3) if given["sampler"] == "InfiniteSampler" else [given["epoch"]]
    return [
        [i for epoch in epochs for i in flexcore.sample_indices(plan, epoch=epoch, rank=rank)]
        for rank in range(given["world_size"])
    ]  # fmt: skip


@cases("o13", only="DefaultSampler n=10 world=1")
def test_unshuffled_orders(case):
    assert dealt(case) == [rank["idx"] for rank in case["expected"]["ok"]]


@claimed("o13", lambda case: not case["input"].get("round_up", True))
def test_uneven_orders_are_evaluations_alone(case):
    given = case["input"]
    config = validating(launcher="pytorch", train_dataloader={
        "dataset": "pkg:D", "batch_size": 1, "sampler": {"type": "DefaultSampler", "round_up": False}})  # fmt: skip
    assert codes(config, Facts(world_size=4, train_samples=10)) == {"FD004"}
    plan = flexcore.plan(
        validating(launcher="pytorch"), Facts(world_size=given["world_size"], val_samples=(given["n"],))
    )
    order = plan.validation.loaders[0].order
    assert [epoch_indices(order, 0, rank) for rank in range(4)] == [
        rank["idx"] for rank in case["expected"]["ok"]
    ]


@cases("o13", only="InfiniteSampler")
def test_an_endless_unshuffled_stream(case):
    (stream,) = dealt(case)
    assert stream[:12] == case["expected"]["ok"][0]["first12"]


@cases("o13", different=True)
def test_shuffled_orders_are_our_own_and_deal_the_same_way(case):
    ranks = dealt(case)
    epochs = 3 if case["input"]["sampler"] == "InfiniteSampler" else 1
    assert [len(rank) for rank in ranks] == [epochs * rank["len"] for rank in case["expected"]["ok"]]
    assert {i for rank in ranks for i in rank} == set(range(case["input"]["n"]))


@cases("o16")
def test_names(case):
    given = case["input"]
    stem = Path(given["cfg_filename"]).stem if given["cfg_filename"] else None
    names = planned(
        Facts(started_at="<ts>", entropy=1, config_stem=stem), experiment_name=given["experiment_name"], work_dir="<root>/wd"
    ).names  # fmt: skip
    expected = case["expected"]["ok"]
    assert names.experiment_name == f"{expected['experiment_name']}_{names.run_id}"
    assert (names.work_dir, names.log_dir) == (expected["work_dir"], f"{expected['log_dir']}_{names.run_id}")


def test_events_agree_with_the_clock():
    plan = flexcore.plan(validating(), Facts(train_samples=40))
    assert list(flexcore.validations(plan)) == list(clocks.validations(plan.timeline))


# --- o14: parameter groups ------------------------------------------------------------------------


def seen(name: str, *shape: int, **more: Any) -> ParameterFact:
    return ParameterFact(name=name, shape=shape or (4,), **more)


PARAMETERS = (
    seen("backbone.0.weight", 4, 3, 3, 3, kind="conv"), seen("backbone.0.bias", kind="conv"),
    seen("backbone.1.weight", kind="norm"), seen("backbone.1.bias", kind="norm"),
    seen("dw.weight", 4, 1, 3, 3, kind="depthwise"), seen("dw.bias", kind="depthwise"),
    seen("head.weight", 4, 4), seen("head.bias"), seen("emb.weight", 9, 4),
    seen("frozen.weight", 4, 4, requires_grad=False), seen("frozen.bias", requires_grad=False),
)  # fmt: skip


@cases("o14")
def test_parameter_groups(case):
    config = base(optim_wrapper=case["input"])
    plan = flexcore.plan(config, Facts(train_samples=100, parameters=PARAMETERS))
    expected = case["expected"]["ok"]
    if case["input"]["paramwise_cfg"] is None:
        assert [(g.params, g.base("lr")) for g in plan.optimizers[0].groups] == [(None, expected[0]["lr"])]
        return
    found = [
        {"params": list(g.params), "lr": g.base("lr"), "weight_decay": g.base("weight_decay")}
        for g in plan.optimizers[0].groups
    ]
    assert found == expected
