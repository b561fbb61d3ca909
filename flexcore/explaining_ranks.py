"""Where a plan runs and how its ranks share the model, as lines of its explanation."""

from collections.abc import Iterator

from flexcore.backends import stage
from flexcore.explaining_rows import or_unknown, ranks, row
from flexcore.noticing import was_drawn
from flexcore.run_plan import Plan
from flexcore.sharding import Sharding
from flexcore.strategies import COMM_HOOKS, DDP, DeepSpeed, SingleDevice, comm_hook
from flexcore.tensor_parallel import asked_plan, matches, rows

SHARED = (
    "every rank holds all of it", "ranks share optimizer state", "ranks share optimizer state and gradients",
    "ranks share optimizer state, gradients and parameters",
)  # fmt: skip


def ranks_of(plan: Plan) -> Iterator[str]:
    env = plan.environment
    device = env.device_type or "? (needs device_type)"
    link = "" if isinstance(plan.strategy, SingleDevice) else f"over {env.backend or '?'}"
    yield row("runs on", f"{plan.strategy.NAME}, {ranks(env.world_size)} on {device}", link,
               "" if env.launcher == "none" else f"(launcher {env.launcher})")  # fmt: skip
    yield from _shares(plan.sharding)
    yield from _cut_layers(plan)
    if isinstance(plan.strategy, DDP):
        yield from _told(plan.strategy)
    if isinstance(plan.strategy, DeepSpeed):
        yield row("", f"ZeRO stage {stage(plan.strategy)}: {SHARED[stage(plan.strategy)]}")
    origin = "given" if env.seed_given else "drawn from entropy" if was_drawn(plan) else "the checkpoint's"
    yield row("seed", "? (needs entropy)" if env.seed is None else f"{env.seed} ({origin})",
               "deterministic algorithms" if env.deterministic else "")  # fmt: skip


def _told(strategy: DDP) -> Iterator[str]:
    """What ranks tell each other besides exact gradients."""
    name = comm_hook(strategy)
    if name is not None:
        yield row("", f"gradients cross between ranks in {COMM_HOOKS[name]}")
    if strategy.sync_bn:
        yield row("", "batch norms see the batches of all ranks")


def _shares(layout: Sharding | None) -> Iterator[str]:
    """How FSDP lays the model over ranks."""
    if layout is None:
        return
    mesh = f"over {ranks(layout.shards)}"
    copies = "" if layout.replicas in (None, 1) else f", {layout.replicas} copies"
    count = "? (needs modules)" if layout.units is None else f"{len(layout.units):,}"
    kept = (
        ""
        if layout.reshard_after_forward in (None, True)
        else f", {_kept(layout.reshard_after_forward)} until backward"
    )
    yield row("shares", f"{mesh}{copies}; {count} unit{'' if count == '1' else 's'} beside the whole{kept}")
    precision = layout.mixed_precision
    if precision is not None:
        yield row(
            "",
            f"computes in {precision.param_dtype or 'the own dtype'}, reduces in {precision.reduce_dtype or precision.param_dtype or 'the own dtype'}",
        )
    if layout.recomputed:
        yield row("", f"activations of {len(layout.recomputed):,} modules are computed again in backward")
    if layout.cpu_offload:
        yield row("", "shares rest in host memory")
    if layout.meta_init and not layout.skips_init:
        yield row("", "weights are initialised on rank 0 alone, which deals them out")


def _cut_layers(plan: Plan) -> Iterator[str]:
    """Which ranks compute layers together, and which layers, by the lines of the plan that was asked for."""
    layout, asked = plan.tensor_parallel, asked_plan(plan.strategy)
    if layout is None:
        return
    assert asked is not None
    mesh = " x ".join(f"{name} {or_unknown(size, 'world_size')}" for name, size in plan.mesh)
    groups = f"{or_unknown(layout.groups, 'world_size')} group{'' if layout.groups == 1 else 's'}"
    yield row(
        "tensor",
        f"{groups} of {ranks(layout.size)} compute a copy each; mesh {mesh}",
    )
    for line in rows(asked.plan):
        met = [layer for layer in layout.layers or () if matches(line.pattern, layer.path)]
        count = "? (needs modules)" if layout.layers is None else f"{len(met):,}"
        parts = f" in {line.parts} parts" if line.parts not in (None, 1) else ""
        yield row("", f"{line.pattern}: {line.style}{parts}, {count} layer{'' if count == '1' else 's'}")


def _kept(reshard_after_forward: bool | int | None) -> str:
    return "gathered" if reshard_after_forward is False else f"shared by {reshard_after_forward} ranks"
