"""The training state as one checkpoint and back: what is gathered from ranks, and what a resume restores."""

import base64
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch

from flexcore.plan_files import trajectory
from shell import fitting
from shell.checkpoints import DamagedCheckpoint, Loaded, RemoveFailed, SaveFailed, Store
from shell.environment import reseed
from shell.hooks.ema import EMAHook, saved_averages
from shell.locking import WorkDirLost
from shell.optimizer_states import restore_rng, rng_state
from shell.results import CheckpointRefused
from shell.run import Run
from shell.settling import raise_together
from shell.state_tensors import StateMismatch, join, split


class CheckpointWriter:
    """Writes from rank 0 what every rank contributes. A failed save is logged and training goes on."""

    def __init__(self, store: Store | None) -> None:
        self.store = store

    def save(
        self, run: Run, name: str, done: int, *, validated: bool, resumable: bool, retire: list[str], best: bool,
        planned: bool, waited: float | None = None,
    ) -> bool:  # fmt: skip
        """Whether the checkpoint stands, on every rank alike.

        planned: by the plan, not by a signal or a hook's wish. waited: seconds without one, if that is why.

        Raises:
            WorkDirLost: another run has the work_dir now. PeerFailed: so rank 0 found.
        """
        run.stages.call(
            "before_save_checkpoint",
            checkpoint={"name": name, "iter": done, "validated": validated, "best": best},
        )
        own = run.group.gather(
            [
                _portable(rng_state()),
                None if run.replay is None else _portable(run.replay.state_dict()),
                run.place(),
            ]
        )
        own = [told for rank, told in enumerate(own) if run.plan.leads(rank)]
        saved, lost = True, None
        if self.store is not None or run.strategy.shards:
            tensors, state = gathered(run, own)
        if self.store is not None:
            run.recorder.hand_over()
            fields = {**position(run, done), "validated": validated, "resumable": resumable, "retire": retire,
                      "best": best, "state": state}  # fmt: skip
            try:
                path = self.store.save(name, tensors, fields)
                run.checkpoints.append(str(path))
                timed = {} if waited is None else {"waited": waited}
                run.recorder.event("save", name=name, iter=done, epoch=fields["epoch"], best=best, validated=validated,
                                   planned=planned, **timed)  # fmt: skip
            except SaveFailed as error:
                saved = False
                run.logger.error("%s", error)
                run.recorder.event("save_failed", name=name, iter=done, reason=str(error))
            except WorkDirLost as error:
                lost = error
        raise_together(run.group, lost)
        if run.world_size > 1:
            saved = bool(run.group.broadcast(saved))
        run.save_failed = run.save_failed or not saved
        weights_only = run.plan.saving is not None and run.plan.saving.weights_only
        if saved and (resumable or weights_only):
            run.saved_at, run.saved_clock = done, perf_counter()
        return saved

    def publish(self, run: Run, name: str, stems: tuple[str, ...]) -> None:
        """Tensor files of one checkpoint as one beside it, named after it and the file's own SHA-256."""
        if self.store is None:
            return
        try:
            path = self.store.publish(name, stems)
            run.recorder.event("publish", name=name, file=path.name)
            run.logger.info("published %s", path)
        except (SaveFailed, DamagedCheckpoint, WorkDirLost, OSError) as error:
            run.save_failed = True
            run.logger.error("%s", error)

    def settle(self, run: Run, name: str) -> None:
        """Tell the run's last checkpoint that its validation is done, so that running again does not repeat it."""
        if self.store is None and not run.strategy.shards:
            return
        states = run.strategy.whole(hook_states(run))
        if self.store is None:
            return
        hooks, tensors = split(states)
        try:
            if not self.store.holds(name, "hooks", tensors):  # to change a tensor would be another save
                return
            self.store.amend(
                name,
                lambda fields: {**fields, "validated": True, "state": {**fields["state"], "hooks": hooks}},
            )
        except (SaveFailed, WorkDirLost) as error:
            run.logger.warning("%s", error)

    def remove(self, run: Run, names: list[str]) -> None:
        if self.store is None:
            return
        for name in names:
            try:
                self.store.remove(name)
            except (RemoveFailed, WorkDirLost) as error:  # which the next save ends the run with
                run.logger.warning("%s", error)
                continue
            kept = [path for path in run.checkpoints if not path.endswith(f"/{name}")]
            run.checkpoints[:] = kept
            run.recorder.event("remove", name=name)


def position(run: Run, done: int) -> dict[str, Any]:
    """Where the run stands and what it is, as manifest fields."""
    plan = run.plan
    clock = plan.timeline
    epoch = 0 if clock is None else run.epochs_done if clock.opaque else clock.epoch_of(done)
    return {
        "epoch": epoch, "iter": done, "world_size": run.world_size, "strategy": plan.strategy.NAME,
        "trajectory": [list(pair) for pair in trajectory(plan)], "trajectory_digest": plan.trajectory_digest,
        "plan_digest": run.plan_digest, "run_id": plan.names.run_id, "record": plan.record,
        "plan": plan.to_json(), "versions": dict(plan.facts.versions or ()),
    }  # fmt: skip


def gathered(run: Run, own: list[Any]) -> tuple[dict[str, Mapping[str, torch.Tensor]], dict[str, Any]]:
    """(tensors by file, JSON state): model, optimizer by parameter name, hooks, scaler, and what is each data rank's own."""
    hooks, hook_tensors = split(run.strategy.whole(hook_states(run)))
    tensors: dict[str, Mapping[str, torch.Tensor]] = {"model": dict(run.strategy.save_state())}
    if hook_tensors:
        tensors["hooks"] = hook_tensors
    if run.plan.saving is not None and run.plan.saving.weights_only:
        return tensors, {"hooks": hooks}
    optimizer, tensors["optimizer"] = split(
        _alone({name: run.strategy.save_optimizer(one.optimizer) for name, one in run.optim_wrapper.each})
    )
    scaler = _alone({name: one.scaler_state() for name, one in run.optim_wrapper.each})
    state = {"optimizer": optimizer, "hooks": hooks, "rng": [rng for rng, _, _ in own], "replay": [replay for _, replay, _ in own],
             "scaler": scaler}  # fmt: skip
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


def restore(run: Run, loaded: Loaded) -> list[str]:
    """Put the whole state back; returns what could not be exact, for the log.

    Raises:
        CheckpointRefused: the model's or the optimizer's names, groups or shapes are not the checkpoint's.
    """
    state = loaded.manifest.fields["state"]
    load_weights(run, loaded)
    saved = join(state["optimizer"], loaded.tensors("optimizer"))
    for name, wrapper in run.optim_wrapper.each:
        try:
            run.strategy.load_optimizer(wrapper.optimizer, _of(saved, name))
        except StateMismatch as error:
            whose = "the optimizer" if name is None else f"the optimizer of {name}"
            raise CheckpointRefused(f"{loaded.manifest.path} does not fit {whose}: {error}") from error
        wrapper.load_scaler(_of(state["scaler"], name))
    hooks = join(state["hooks"], loaded.tensors("hooks") if "hooks" in loaded.stems else {})
    for planned, hook in zip(run.plan.hooks, run.stages.hooks, strict=True):
        if planned.key in hooks and hasattr(hook, "load_state_dict"):
            hook.load_state_dict(hooks[planned.key])
    if "loop" in state:
        stands = join(state["loop"], loaded.tensors("loop") if "loop" in loaded.stems else {})
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


def _of(states: Any, name: str | None) -> Any:
    """What `_alone` put together, taken apart."""
    return states if name is None else states["several"][name]


def load_weights(run: Run, loaded: Loaded) -> None:
    """Put parameters and buffers back.

    Raises:
        CheckpointRefused: their names or shapes are not the model's.
    """
    put_weights(run, loaded.tensors("model"), loaded.manifest.path)
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
