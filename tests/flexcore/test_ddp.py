"""DDP's settings: what each needs of the device and the model, and what is refused, in the reader's words."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
from attrs import evolve

import flexcore
from flexcore.converting import DDP_INSTEAD
from flexcore.facts import CheckpointFact
from flexcore.strategies import DDP, comm_hook
from tests.flexcore.base import KNOWN, base, said

RANKED = evolve(KNOWN, world_size=2, environment=(("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "h"), ("MASTER_PORT", "1"),
                                                  ("LOCAL_RANK", "0")))  # fmt: skip
ON_GPUS = evolve(RANKED, device_type="cuda")
STEPPING = evolve(RANKED, train_step=True)
CPU = "and this run is on cpu"
PAST = "changes nothing: gradients of a model with train_step are averaged as its optimizer steps. Nothing to do. [FK023]"
RESUME = "keeps what it left out by the buckets of gradients, which torch lays out anew after a resume"
KNOWN_HOOKS = "Known: fp16_compress, bf16_compress."


def ddp(**settings):
    return dict(type="DDPStrategy", **settings)


TOLD = {
    "plain": (dict(), RANKED, []),
    "all that goes everywhere": (
        dict(find_unused_parameters=True, broadcast_buffers=True, bucket_cap_mb=1, gradient_as_bucket_view=True, static_graph=True,
             skip_all_reduce_unused_params=True, batched_grad_copy=True, sync_bn=False, comm_hook="fp16_compress",
             detect_anomalous_params=True), RANKED, []),
    "on GPUs": (dict(sync_bn=True, comm_hook=dict(type="bf16_compress")), ON_GPUS, []),
    "device unknown": (dict(sync_bn="torch", comm_hook="bf16_compress"), evolve(RANKED, device_type=None), []),
    "on cpu": (dict(sync_bn="torch", comm_hook="bf16_compress"), RANKED, [
        (f"strategy.sync_bn: makes SyncBatchNorm of batch norms, which torch computes on GPUs alone, {CPU}. "
        "Leave it out, or train on GPUs. [FP010]"),
        (f"strategy.comm_hook: sends bfloat16, which torch's hook does between GPUs alone, {CPU}. "
        'Write "fp16_compress", or train on GPUs. [FP010]')]),
    "mmcv": (dict(sync_bn="mmcv"), ON_GPUS, [
        """strategy.sync_bn: 'mmcv' names batch norms of mmcv's own, and torch's are the only ones here. Write "torch". [FK014]"""]),
    "misspelt": (dict(comm_hook="fp16_compres"), RANKED, [
        """strategy.comm_hook: 'fp16_compres' is not a comm hook. Did you mean "fp16_compress"? [FK013]"""]),
    "unlike any": (dict(comm_hook="zip"), RANKED, [f"strategy.comm_hook: 'zip' is not a comm hook. {KNOWN_HOOKS} [FK013]"]),
    "PowerSGD": (dict(comm_hook=dict(type="powerSGD_hook", matrix_approximation_rank=2)), RANKED, [
        f"strategy.comm_hook: 'powerSGD_hook' {RESUME}. {KNOWN_HOOKS} [FK014]"]),
    "PowerSGD in batches": (dict(comm_hook="batched_power_sgd"), RANKED, [
        f"strategy.comm_hook: 'batched_power_sgd' {RESUME}. {KNOWN_HOOKS} [FK014]"]),
    "local SGD": (dict(comm_hook="post_localSGD_hook"), RANKED, [
        ("strategy.comm_hook: 'post_localSGD_hook' lets the models of ranks drift apart, and a checkpoint holds one. "
        f"{KNOWN_HOOKS} [FK014]")]),
    "quantized": (dict(comm_hook="quantization_pertensor_hook"), RANKED, [
        ("strategy.comm_hook: 'quantization_pertensor_hook' looks for a range on GPUs alone, and rounds to 8 bits. "
        f"{KNOWN_HOOKS} [FK014]")]),
    "quantized by channel": (dict(comm_hook="quantization_perchannel"), RANKED, [
        ("strategy.comm_hook: 'quantization_perchannel' looks for a range on GPUs alone, and rounds to 8 bits. "
        f"{KNOWN_HOOKS} [FK014]")]),
    "no name": (dict(comm_hook=dict(rank=2)), RANKED, [
        "strategy.comm_hook: must be a name, or a mapping with one as its type, got {'rank': 2}. " + f"{KNOWN_HOOKS} [FK011]"]),
    "a number for a name": (dict(comm_hook=dict(type=3)), RANKED, [
        "strategy.comm_hook: must be a name, or a mapping with one as its type, got {'type': 3}. " + f"{KNOWN_HOOKS} [FK011]"]),
    "settings of none": (dict(comm_hook=dict(type="fp16_compress", rank=2)), RANKED, [
        "strategy.comm_hook.rank: is not a setting of fp16_compress, which has none. Remove it. [FK010]"]),
    "bucket": (dict(bucket_cap_mb=0), RANKED, ["strategy.bucket_cap_mb: must be at least 1, got 0. Correct the value. [FK020]"]),
    "skipping what is not sought": (dict(skip_all_reduce_unused_params=True), RANKED, [
        ("strategy.skip_all_reduce_unused_params: leaves out what find_unused_parameters finds, and that is not set. "
        "Set find_unused_parameters=True, or remove it. [FK019]")]),
    "past DDP": (dict(broadcast_buffers=True, find_unused_parameters=True, gradient_as_bucket_view=True, static_graph=True,
                      skip_all_reduce_unused_params=True, batched_grad_copy=True), STEPPING, [
        ("strategy.broadcast_buffers: is done as DDP's own forward starts, and a model with train_step runs another. "
        'Remove it, or add custom_hooks=[dict(type="SyncBuffersHook")]. [FK014]'),
        f"strategy.find_unused_parameters: {PAST}", f"strategy.gradient_as_bucket_view: {PAST}", f"strategy.static_graph: {PAST}",
        f"strategy.skip_all_reduce_unused_params: {PAST}", f"strategy.batched_grad_copy: {PAST}"]),
    "past DDP with what goes there": (dict(bucket_cap_mb=2, comm_hook="fp16_compress", detect_anomalous_params=True), STEPPING, []),
}  # fmt: skip


def about(config, facts):
    """What is said of the strategy."""
    return [line for line in said(config, facts) if line.startswith("strategy")]


@pytest.mark.parametrize("name", TOLD)
def test_what_a_setting_needs_is_told(name):
    settings, facts, expected = TOLD[name]
    assert sorted(about(base(strategy=ddp(**settings)), facts)) == sorted(expected)


def test_a_strategy_left_to_be_chosen_takes_the_settings_along():
    """As they are, a mapping too; a single device has no use for them."""
    config = base(strategy=dict(type="auto", comm_hook=dict(type="fp16_compress"), sync_bn="torch"))
    assert flexcore.plan(config, ON_GPUS).strategy == flexcore.parse(base(strategy=ddp(
        comm_hook=dict(type="fp16_compress"), sync_bn="torch"))).strategy  # fmt: skip
    assert [line for line in about(config, RANKED) if "FP010" in line]
    assert about(config, evolve(KNOWN, environment=())) == [
        (
            'strategy: "auto" chose SingleDeviceStrategy: no launcher started ranks; memory is not counted on a CPU; the settings of DDP wait for ranks. '
            "Name the strategy to fix it. [FP009]"
        )
    ]


def test_rules_of_ddp_wait_for_a_strategy_that_parses():
    assert about(base(strategy=ddp(bucket_cap_mb="1")), RANKED) == [
        "strategy.bucket_cap_mb: must be an integer or None, got '1'. Correct the value. [FK011]"
    ]


@pytest.mark.parametrize("section", ["DDPStrategy", "auto"])
@pytest.mark.parametrize("key", DDP_INSTEAD)
def test_what_is_no_setting_here_says_what_to_write(section, key):
    assert about(base(strategy={"type": section, key: 1}), RANKED) == [
        f"strategy.{key}: is not a setting of {section}. {DDP_INSTEAD[key]} [FK010]"
    ]


@pytest.mark.parametrize(("changes", "steps"), [
    (dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), accumulative_counts=3)), 3), (dict(global_batch_size=16), 2),
])  # fmt: skip
def test_a_static_graph_is_learnt_from_a_shared_backward(changes, steps):
    config = base(strategy=ddp(static_graph=True), **changes)
    assert about(config, RANKED) == [
        (
            f"strategy.static_graph: needs the first backward shared between ranks, and it opens an accumulation window of {steps}. "
            "Remove it, or do not accumulate. [FP011]"
        )
    ]
    assert about(base(strategy=ddp(), **changes), RANKED) == []
    assert about(base(strategy="DDPStrategy", **changes), RANKED) == []
    unknown = evolve(RANKED, world_size=None, environment=None)
    assert (
        about(base(strategy=ddp(static_graph=True), launcher="pytorch", global_batch_size=16), unknown) == []
    )


def page(facts=RANKED, **settings):
    text = str(flexcore.plan(base(strategy=ddp(**settings)), facts)).splitlines()
    at = next(i for i, line in enumerate(text) if line.startswith("runs on"))
    return text[at + 1 : next(i for i, line in enumerate(text) if line.startswith("seed"))]


def test_the_page_says_what_ranks_tell_each_other():
    assert page() == []
    assert page(ON_GPUS, comm_hook="bf16_compress", sync_bn=True) == [
        "             gradients cross between ranks in bfloat16",
        "             batch norms see the batches of all ranks",
    ]


def resumed(then, now):
    """What is said of going on under `now` with a checkpoint made under `then`."""
    trajectory = flexcore.plan_files.trajectory(flexcore.plan(base(strategy=then), ON_GPUS))
    fact = CheckpointFact(path="c", name="epoch_1", epoch=1, iter=13, trajectory=trajectory)
    notices = flexcore.plan(base(strategy=now, resume=True), evolve(ON_GPUS, checkpoints=(fact,))).notices
    return [str(notice) for notice in notices if notice.code == "FC005"]


def test_another_way_between_ranks_is_told_at_a_resume():
    changed = (
        'resume: \'c\' was trained with between ranks {"comm_hook":null,"sync_bn":true}, this run has '
        '{"comm_hook":"fp16_compress","sync_bn":false} (trajectory-changing). Nothing to do if meant. [FC005]'
    )
    assert resumed(ddp(sync_bn="torch"), ddp(comm_hook=dict(type="fp16_compress"))) == [changed]
    assert resumed(ddp(sync_bn="torch"), ddp(sync_bn=True)) == []
    assert resumed(ddp(bucket_cap_mb=3), "FSDPStrategy") == []


def test_a_hook_has_one_name_however_it_is_written():
    assert comm_hook(DDP()) is None
    assert comm_hook(DDP(comm_hook="fp16_compress")) == "fp16_compress"
    parsed = flexcore.parse(base(strategy=ddp(comm_hook=dict(type="fp16_compress")))).strategy
    assert comm_hook(parsed) == "fp16_compress"
