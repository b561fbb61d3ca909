"""Keeps an average of the weights and evaluates with it; training never sees it."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from flexcore.averaging import weight
from flexcore.hooks import EMA
from shell.manifests import SUFFIX, Manifest
from shell.results import CheckpointRefused
from shell.run import Run
from shell.state_tensors import join
from shell.strategies.base import local
from shell.tensor_files import read_file

Placed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class EMAHook:
    """State: the steps averaged so far and each average under its tensor's name; none before the first step."""

    def __init__(self, spec: EMA) -> None:
        self.spec, self.steps = spec, 0
        self.names: list[str] = []
        self.sources: list[torch.Tensor] = []
        self.averages: list[torch.Tensor] = []
        self._loaded: Mapping[str, torch.Tensor] = {}

    def before_run(self, run: Run) -> None:
        named = averaged(run.model, buffers=self.spec.update_buffers)
        self.names, self.sources = list(named), list(named.values())
        if self.steps:
            self._check(run)
            place = run.strategy.placed
            self.averages = [_like(self._loaded.get(name), source, place) for name, source in named.items()]
        self._loaded = {}

    def _check(self, run: Run) -> None:
        """Averages that are not of this model: refused if strict, else told; those lacking start as the weights."""
        shapes = {name: source.shape for name, source in zip(self.names, self.sources, strict=True)}
        odd = [name for name in {**shapes, **self._loaded} if name not in shapes or name not in self._loaded
               or self._loaded[name].shape != shapes[name]]  # fmt: skip
        if odd and self.spec.strict_load:
            raise CheckpointRefused(
                f"EMAHook: the averages of {', '.join(odd[:5])} are not those of this model."
            )
        if odd:
            run.logger.warning(
                "EMAHook: no averages for this model's %s; they start as the weights", ", ".join(odd[:5])
            )

    def after_train_iter(self, run: Run, **_: Any) -> None:
        if run.iter < self.spec.begin_iter or run.epoch < self.spec.begin_epoch:
            return
        if self.steps % self.spec.interval == 0:
            self._move()
        self.steps += 1

    @torch.no_grad()
    def _move(self) -> None:
        if self.steps == 0:
            self.averages = [source.detach().clone() for source in self.sources]
            return
        share = weight(self.spec, self.steps)
        averages, sources = [local(one) for one in self.averages], [local(one) for one in self.sources]
        if self.spec.ema_type == "StochasticWeightAverage":
            torch._foreach_add_(averages, torch._foreach_sub(sources, averages), alpha=share)
        else:
            torch._foreach_lerp_(averages, sources, share)

    @torch.no_grad()
    def _swap(self) -> None:
        """Weights and averages change places, to the bit; one spare tensor at a time."""
        for average, source in zip(self.averages, self.sources, strict=True) if self.averages else ():
            kept = source.detach().clone()
            source.copy_(average)
            average.copy_(kept)

    def before_val_epoch(self, _run: Run, **_: Any) -> None:
        self._swap()

    def after_val_epoch(self, _run: Run, **_: Any) -> None:
        self._swap()

    def before_test_epoch(self, _run: Run, **_: Any) -> None:
        self._swap()

    def after_test_epoch(self, _run: Run, **_: Any) -> None:
        self._swap()

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "averaged": dict(zip(self.names, self.averages, strict=True)) if self.averages else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put in place by before_run, which knows the model."""
        self.steps, self._loaded = int(state["steps"]), dict(state["averaged"])


def saved_averages(manifest: Manifest) -> Mapping[str, Any] | None:
    """The state of a checkpoint's EMAHook, once it has averaged; None if there is none. Files are taken as verified."""
    path = pathlib.Path(manifest.path, f"hooks{SUFFIX}")
    tensors = read_file(path) if any(record.name == path.name for record in manifest.files) else {}
    hooks = join(manifest.fields.get("state", {}).get("hooks", {}), tensors)
    return next((one for one in hooks.values() if isinstance(one, Mapping) and one.get("averaged")), None)


def averaged(model: torch.nn.Module, *, buffers: bool) -> dict[str, torch.Tensor]:
    """The floating-point parameters, and buffers that are saved, by name; a shared one once."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters())
    if buffers:
        saved = model.state_dict()
        found |= {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def _like(saved: torch.Tensor | None, source: torch.Tensor, placed: Placed) -> torch.Tensor:
    own = source.detach().clone()
    return own.copy_(placed(saved, source)) if saved is not None and saved.shape == source.shape else own
