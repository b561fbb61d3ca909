"""The training state as one checkpoint and back: what is gathered from ranks, and what a resume restores."""

import base64
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen

from flexcore.plan_files import trajectory
from flexcore.run_plan import LoadWeights
from shell import fitting
from shell.checkpoints import Loaded
from shell.environment import reseed
from shell.hooks.ema import EMAHook, saved_averages
from shell.optimizer_states import restore_rng, rng_state
from shell.pieces import AnyTensor, Files
from shell.results import CheckpointRefused
from shell.run import Run
from shell.state_tensors import StateMismatch, join, split


@frozen(kw_only=True)
class Order:
    """A checkpoint that is due.

    Attributes:
        done: iterations completed. retire: names to remove once it stands.
        planned: by the plan, not by a signal or a hook's wish. waited: seconds without one, if that is why.
        failures: in a row, that it is another attempt after.
    """

    name: str
    done: int
    validated: bool
    resumable: bool
    retire: tuple[str, ...] = ()
    best: bool = False
    planned: bool = True
    waited: float | None = None
    failures: int = 0


def contents(run: Run, order: Order, *, writes: bool) -> tuple[Files, dict[str, Any]]:
    """(tensors by file, the manifest's fields but `about`); every rank calls it. writes: this rank needs them anyway.

    The fields are a copy; tensors are the run's own.
    """
    own = run.group.gather(
        [
            _portable(rng_state()),
            None if run.replay is None else _portable(run.replay.state_dict()),
            run.place(),
        ]
    )
    own = [told for rank, told in enumerate(own) if run.plan.leads(rank)]
    if not (writes or run.strategy.shards):
        return {}, {}
    tensors, state = gathered(run, own)
    flags = {key: getattr(order, key) for key in ("validated", "resumable", "retire", "best")}
    return tensors, {**position(run, order.done), **flags, "state": state}


def about(run: Run) -> dict[str, Any]:
    """What the run is, as manifest fields: the same in each of its checkpoints."""
    plan = run.plan
    return {
        "world_size": run.world_size, "strategy": plan.strategy.NAME,
        "trajectory": [list(pair) for pair in trajectory(plan)], "trajectory_digest": plan.trajectory_digest,
        "plan_digest": run.plan_digest, "run_id": plan.names.run_id, "record": plan.record,
        "plan": plan.to_json(), "versions": dict(plan.facts.versions or ()),
    }  # fmt: skip


def position(run: Run, done: int) -> dict[str, Any]:
    """Where the run stands, as manifest fields."""
    clock = run.plan.timeline
    epoch = 0 if clock is None else run.epochs_done if clock.opaque else clock.epoch_of(done)
    return {"epoch": epoch, "iter": done}


def gathered(run: Run, own: list[Any]) -> tuple[Files, dict[str, Any]]:
    """(tensors by file, JSON state): model, optimizer by parameter name, hooks, scaler, and what is each data rank's own."""
    hooks, hook_tensors = split(run.strategy.in_pieces(hook_states(run)))
    tensors: dict[str, Mapping[str, AnyTensor]] = {"model": dict(run.strategy.save_state())}
    metrics, metric_tensors = split(metric_states(run))
    tensors |= {stem: own for stem, own in (("hooks", hook_tensors), ("metrics", metric_tensors)) if own}
    if run.plan.saving is not None and run.plan.saving.weights_only:
        return tensors, {"hooks": hooks, "metrics": metrics}
    optimizer, tensors["optimizer"] = split(
        _alone({name: run.strategy.save_optimizer(one.optimizer) for name, one in run.optim_wrapper.each})
    )
    scaler = _alone({name: one.scaler_state() for name, one in run.optim_wrapper.each})
    state = {"optimizer": optimizer, "hooks": hooks, "metrics": metrics, "rng": [rng for rng, _, _ in own],
             "replay": [replay for _, replay, _ in own], "scaler": scaler}  # fmt: skip
    stands = run.loop_state()
    if stands is not None:
        state["loop"], found = split({"own": stands})
        state["places"] = [place for _, _, place in own]
        tensors |= {"loop": found} if found else {}
    return tensors, state


def _alone(states: Mapping[str | None, Any]) -> Any:
    """The state of the only optimizer, or of several by name."""
    return states.get(None, {"several": dict(states)})


def hook_states(run: Run) -> dict[str, Any]:
    """state_dict of each hook that has one, by its key in the plan."""
    placed = zip(run.plan.hooks, run.stages.hooks, strict=True)
    return {planned.key: hook.state_dict() for planned, hook in placed if hasattr(hook, "state_dict")}


def metric_states(run: Run) -> dict[str, Any]:
    """The last evaluation's values, which hooks may look at, and what the metrics of each loader keep."""
    return {
        "values": dict(run.metrics),
        "kept": [metrics.state_dict() for _, metrics in run.eval_feeds.get("val", ())],
    }


def restore_metrics(run: Run, states: Mapping[str, Any]) -> None:
    """Other loaders than the checkpoint's begin anew."""
    run.metrics = dict(states["values"])
    feeds = run.eval_feeds.get("val", ())
    if len(feeds) == len(states["kept"]):
        for (_, metrics), kept in zip(feeds, states["kept"], strict=True):
            metrics.load_state_dict(kept)


def restore(run: Run, loaded: Loaded) -> list[str]:
    """Put the whole state back; returns what could not be exact, for the log.

    Raises:
        CheckpointRefused: the model's or the optimizer's names, groups or shapes are not the checkpoint's.
    """
    state = _state(loaded)
    load_weights(run, loaded)
    saved = join(state["optimizer"], loaded.tensors("optimizer"))
    for name, wrapper in run.optim_wrapper.each:
        try:
            run.strategy.load_optimizer(wrapper.optimizer, _of(saved, name))
        except StateMismatch as error:
            whose = "the optimizer" if name is None else f"the optimizer of {name}"
            raise CheckpointRefused(f"{loaded.manifest.path} does not fit {whose}: {error}") from error
        wrapper.load_scaler(_of(state["scaler"], name))
    tensors = loaded.held("hooks")
    for planned, hook in zip(run.plan.hooks, run.stages.hooks, strict=True):
        if planned.key in state["hooks"] and hasattr(hook, "load_state_dict"):
            given = tensors if isinstance(hook, EMAHook) else Own(tensors)  # which copies what it keeps
            hook.load_state_dict(join(state["hooks"][planned.key], given))
    if "metrics" in state:
        restore_metrics(run, join(state["metrics"], Own(loaded.held("metrics"))))
    if "loop" in state:
        stands = join(state["loop"], Own(loaded.held("loop")))
        places = state["places"]
        run.load_loop_state(stands["own"], places[run.data_rank % len(places)])
    if len(state["rng"]) == run.data_ranks:
        replay = state["replay"][run.data_rank]
        run.replay_from = None if replay is None else _opened(replay)
        return list(restore_rng(_opened(state["rng"][run.data_rank])))
    reseed(run.plan, int(loaded.manifest.fields["iter"]), run.data_rank)
    return [
        f"RNG: saved for {len(state['rng'])} ranks; each of {run.data_ranks} derives its own from (seed, iteration, rank)"
    ]


def _state(loaded: Loaded) -> Mapping[str, Any]:
    """The manifest's state, once it has what every one has; a seal tells damage, not who made it."""
    state = loaded.manifest.fields.get("state")
    kinds = {"hooks": dict, "rng": list, "replay": list, "optimizer": dict}
    odd = [
        key
        for key, kind in kinds.items()
        if not isinstance(state, dict) or not isinstance(state.get(key), kind)
    ]
    if odd or "scaler" not in state or len(state["rng"]) != len(state["replay"]):
        what = ", ".join(odd) or "what each rank had"
        raise CheckpointRefused(
            f"{loaded.manifest.path} holds no state to resume: {what}. Resume another checkpoint."
        )
    return dict(state)


class Own(dict[str, torch.Tensor]):
    """Tensors of a file, each copied as it is taken: the file must not be needed any more."""

    def __getitem__(self, key: str) -> torch.Tensor:
        return super().__getitem__(key).clone()


def _of(states: Any, name: str | None) -> Any:
    """What `_alone` put together, taken apart."""
    return states if name is None else states["several"][name]


def load_weights(run: Run, loaded: Loaded, start: LoadWeights | None = None) -> None:
    """Put parameters and buffers back, as they are or as the start says.

    Raises:
        CheckpointRefused: their names or shapes are not the model's.
    """
    path, tensors = loaded.manifest.path, loaded.tensors("model")
    if start is None:
        put_weights(run, tensors, path)
    else:
        put_weights(run, renamed(tensors, start), path, strict=start.strict)
    _load_averages(run, loaded)


def put_weights(run: Run, tensors: Mapping[str, torch.Tensor], path: str, *, strict: bool = True) -> None:
    """The tensors of a checkpoint or a file into the model.

    strict: False: what does not fit is told and left out, unless that is all there is.

    Raises:
        CheckpointRefused: names or shapes are not the model's; nothing has been changed, on any rank.
    """
    here = run.strategy.whole_shapes()
    found = fitting.fit(here, fitting.shapes(tensors))
    if found.rows and (strict or not found.fitting):
        raise CheckpointRefused(f"{path} does not fit the model: {found}")
    if found.rows:
        run.logger.warning("%s fits the model in part, and what does not fit is left out: %s", path, found)
    odd = {row.name for row in found.rows}
    run.strategy.load_state(
        {
            name: tensor.reshape(()) if here[name] == () else tensor
            for name, tensor in tensors.items()
            if name not in odd
        }
    )


def renamed(tensors: Mapping[str, torch.Tensor], start: LoadWeights) -> Mapping[str, torch.Tensor]:
    """Under the names that the start gives them.

    Raises:
        CheckpointRefused: two tensors would have one name.
    """
    try:
        return fitting.revised(tensors, start.revise_keys) if start.revise_keys else tensors
    except ValueError as error:
        raise CheckpointRefused(f"{start.path}: {error}. Correct the patterns.") from error


def _load_averages(run: Run, loaded: Loaded) -> None:
    """An evaluation with an EMAHook takes the checkpoint's averages along."""
    averaging = [hook for hook in run.stages.hooks if isinstance(hook, EMAHook)]
    if run.plan.mode == "train" or not averaging:
        return
    found = saved_averages(loaded.manifest)
    if found is None:
        run.logger.warning("EMAHook: %s holds no averaged weights; its own are used", loaded.manifest.path)
    else:
        averaging[0].load_state_dict(found)


def _portable(tree: dict[str, Any]) -> Any:
    """A state tree as JSON alone: tensors as base64 of their bytes."""
    json, tensors = split(tree)
    return {
        "json": json,
        "tensors": {
            key: [base64.b64encode(t.numpy().tobytes()).decode(), str(t.dtype)[6:], list(t.shape)]
            for key, t in tensors.items()
        },
    }


def _opened(portable: Mapping[str, Any]) -> Any:
    tensors = {
        key: torch.frombuffer(bytearray(base64.b64decode(data)), dtype=getattr(torch, dtype)).reshape(shape)
        for key, (data, dtype, shape) in portable["tensors"].items()
    }
    return join(portable["json"], tensors)
