"""Rules of the DDP strategy: what its settings need of the device and the model, and what no resume could repeat."""

from collections.abc import Iterator, Mapping

from flexcore.components import Data, thaw
from flexcore.config import Config
from flexcore.environment import chosen_strategy
from flexcore.facts import Facts
from flexcore.plan_training import Batching
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.strategies import COMM_HOOKS, DDP, Strategy, comm_hook

PLACE: Path = ("strategy",)
MOOT = (
    "find_unused_parameters", "gradient_as_bucket_view", "static_graph", "skip_all_reduce_unused_params",
    "batched_grad_copy",
)  # fmt: skip
"""What tunes DDP's own backward, past which a model with a train_step goes."""

NO_RESUME = "keeps what it left out by the buckets of gradients, which torch lays out anew after a resume"
REFUSED: Mapping[str, str] = {
    "powersgd": NO_RESUME,
    "batchedpowersgd": NO_RESUME,
    "postlocalsgd": "lets the models of ranks drift apart, and a checkpoint holds one",
    "quantizationpertensor": "looks for a range on GPUs alone, and rounds to 8 bits",
    "quantizationperchannel": "looks for a range on GPUs alone, and rounds to 8 bits",
}
"""Torch's other hooks, by their names in small letters alone and without "hook" -> why a plan cannot take them."""


def ddp(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    strategy = chosen_strategy(config, facts)
    if not isinstance(strategy, DDP):
        return
    yield from _sync_bn(strategy, facts)
    yield from _comm_hook(strategy, facts)
    yield from _unused(strategy)
    if strategy.bucket_cap_mb is not None and strategy.bucket_cap_mb < 1:
        text = f"must be at least 1, got {strategy.bucket_cap_mb}."
        yield problem("FK020", (*PLACE, "bucket_cap_mb"), text, "Correct the value.")
    if facts.train_step:
        yield from _past_ddp(strategy)


def _sync_bn(strategy: DDP, facts: Facts) -> Iterator[Problem]:
    place: Path = (*PLACE, "sync_bn")
    if strategy.sync_bn == "mmcv":
        text = "'mmcv' names batch norms of mmcv's own, and torch's are the only ones here."
        yield problem("FK014", place, text, 'Write "torch".')
    if strategy.sync_bn and facts.device_type == "cpu":
        text = (
            "makes SyncBatchNorm of batch norms, which torch computes on GPUs alone, and this run is on cpu."
        )
        yield problem("FP010", place, text, "Leave it out, or train on GPUs.")


def _comm_hook(strategy: DDP, facts: Facts) -> Iterator[Problem]:
    place, name = (*PLACE, "comm_hook"), comm_hook(strategy)
    known = ", ".join(COMM_HOOKS)
    if name is None:
        if strategy.comm_hook is not None:
            text = (
                f"must be a name, or a mapping with one as its type, got {shown(thaw(strategy.comm_hook))}."
            )
            yield problem("FK011", place, text, f"Known: {known}.")
        return
    if name not in COMM_HOOKS:
        why = REFUSED.get(name.replace("_", "").lower().removesuffix("hook"))
        text = f"{shown(name)} is not a comm hook." if why is None else f"{shown(name)} {why}."
        remedy = did_you_mean(name, COMM_HOOKS).strip() or f"Known: {known}."
        yield problem("FK013" if why is None else "FK014", place, text, remedy)
        return
    if isinstance(strategy.comm_hook, Data):
        for key, _ in strategy.comm_hook.entries:
            if key != "type":
                text = f"is not a setting of {name}, which has none."
                yield problem("FK010", (*place, key), text, "Remove it.")
    if COMM_HOOKS[name] == "bfloat16" and facts.device_type == "cpu":
        text = "sends bfloat16, which torch's hook does between GPUs alone, and this run is on cpu."
        yield problem("FP010", place, text, 'Write "fp16_compress", or train on GPUs.')


def _unused(strategy: DDP) -> Iterator[Problem]:
    if strategy.skip_all_reduce_unused_params and not strategy.find_unused_parameters:
        text = "leaves out what find_unused_parameters finds, and that is not set."
        remedy = "Set find_unused_parameters=True, or remove it."
        yield problem("FK019", (*PLACE, "skip_all_reduce_unused_params"), text, remedy)


def windows(strategy: Strategy, batching: Batching | None) -> Iterator[Problem]:
    """A static graph is learnt from the first backward, which a window of several leaves unshared."""
    steps = batching.gradient_accumulation_steps if batching is not None else None
    if isinstance(strategy, DDP) and strategy.static_graph and steps is not None and steps > 1:
        text = (
            f"needs the first backward shared between ranks, and it opens an accumulation window of {steps}."
        )
        yield problem("FP011", (*PLACE, "static_graph"), text, "Remove it, or do not accumulate.")


def _past_ddp(strategy: DDP) -> Iterator[Problem]:
    """A model that steps itself runs its own forward; its gradients are averaged as an optimizer steps."""
    if strategy.broadcast_buffers:
        text = "is done as DDP's own forward starts, and a model with train_step runs another."
        remedy = 'Remove it, or add custom_hooks=[dict(type="SyncBuffersHook")].'
        yield problem("FK014", (*PLACE, "broadcast_buffers"), text, remedy)
    for key in MOOT:
        if getattr(strategy, key):
            text = (
                "changes nothing: gradients of a model with train_step are averaged as its optimizer steps."
            )
            yield problem("FK023", (*PLACE, key), text, "Nothing to do.")
