"""DeepSpeed's ZeRO: its engine reduces, clips and steps what is shared out; when and with which values is the plan's.

Nothing here is imported before a run with this strategy starts. What a rank holds of a parameter is in zero_shares.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from flexcore.config import ClipGrad
from flexcore.strategies import DeepSpeed
from shell.fitting import Shapes, shapes
from shell.optimizer_states import check_groups, check_shapes, optimizer_state, restore_optimizer
from shell.pieces import AnyTensor
from shell.processes import exported
from shell.strategies import zero_shares
from shell.strategies.base import trainable
from shell.strategies.casting import cast_inputs

Tree = Mapping[str, Any]


class DeepSpeedStrategy:
    """`native`: the engine's whole configuration, as the plan wrote it."""

    shards, reduces = True, False

    def __init__(self, settings: DeepSpeed, device: torch.device, native: dict[str, Any] | None) -> None:
        self.settings, self.device, self.native = settings, device, native
        self.engine: Any = None
        self.norm: torch.Tensor | None = None

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:
        """Without an optimizer to come, as in an evaluation alone, every rank holds the whole model."""
        self.model, self.self_stepping = model.to(self.device), self_stepping
        for tensor in model.state_dict().values():  # the engine sees to parameters, not to buffers
            dist.broadcast(tensor, src=0)
        return self.model

    def joined(self, called: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        assert self.native is not None
        named = trainable(called)
        names = {id(parameter): name for name, parameter in named}
        self.shapes = {name: list(parameter.shape) for name, parameter in named}
        self.groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
        self.optimizer = optimizer
        self.stage = int(self.native["zero_optimization"]["stage"])
        self.engine = _engine(called, optimizer, self.native, self.device)
        dtype = next((getattr(torch, t) for k, t in HALVES.items() if self.native[k]["enabled"]), None)
        if dtype is not None:
            cast_inputs(called, dtype, self.settings.inputs_to_half)
        engine: nn.Module = self.engine
        return engine

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:
        """The window is the plan's, and so is what the loss was divided by."""
        engine = self.engine
        engine.set_gradient_accumulation_boundary(closing)
        if self.self_stepping and self.stage:
            engine._backward_prologue()  # the engine's forward would have asked for it, and was not called
        engine.backward(loss, scale_wrt_gas=False)

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """The engine has."""

    def accumulating(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def clip_gradients(self, clip: ClipGrad, parameters: Sequence[nn.Parameter]) -> torch.Tensor | None:  # noqa: ARG002 - in `native`
        """The engine clips as it steps, to the same norm; its total is filled in then."""
        if not self.stage:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            return torch.nn.utils.get_total_norm(gradients) if gradients else None
        self.norm = torch.zeros((), device=self.device)
        return self.norm

    def step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002 - the engine's own now
        self.engine.step()
        norm = self.engine.get_global_grad_norm() if self.norm is not None else None
        if self.norm is not None and norm is not None:
            self.norm.fill_(norm)

    def share_buffers(self) -> None:
        for buffer in self.model.buffers():
            dist.broadcast(buffer, src=0)

    def _shares(self) -> list[zero_shares.Share]:
        """What this rank holds of each trained parameter where they are shared out."""
        if not self.engine or not self.stage:
            return []
        return list(zero_shares.shares(self.engine.optimizer, self.optimizer, trainable(self.model)))

    def save_state(self) -> Mapping[str, AnyTensor]:
        frozen = self.settings.exclude_frozen_parameters
        return zero_shares.state(self.model, self._shares(), without_frozen=frozen)

    def whole_shapes(self) -> Shapes:
        frozen = self.settings.exclude_frozen_parameters
        return shapes(dict(zero_shares.saved(self.model, without_frozen=frozen)))

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        zero_shares.load_state(self.model, self._shares(), state)

    def save_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if not self.stage:
            return optimizer_state(optimizer, trainable(self.model))
        hyper = [{k: v for k, v in group.items() if k not in OWN_KEYS} for group in optimizer.param_groups]
        groups = zip(hyper, self.groups, strict=True)
        return {
            "state": zero_shares.optimizer_state(optimizer, self._shares()),
            "shapes": self.shapes,
            "param_groups": [{**group, "params": names} for group, names in groups],
        }

    def load_optimizer(self, optimizer: torch.optim.Optimizer, tree: Tree) -> None:
        if not self.stage:
            restore_optimizer(optimizer, trainable(self.model), tree)
            return
        own = {"shapes": self.shapes, "param_groups": [{"params": names} for names in self.groups]}
        check_groups(own["param_groups"], tree["param_groups"])
        check_shapes(own["shapes"], tree["shapes"])
        for group, saved in zip(optimizer.param_groups, tree["param_groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        zero_shares.load_optimizer(optimizer, self._shares(), tree["state"])

    def in_pieces(self, tree: Any) -> Any:
        """Hooks with tensors of a model that is shared out are refused at planning."""
        return tree

    def placed(self, value: Any, like: torch.Tensor) -> Any:
        return value.to(like.device, copy=True) if isinstance(value, torch.Tensor) else value


HALVES: Mapping[str, str] = {"bf16": "bfloat16", "fp16": "float16"}
OWN_KEYS = ("params", "param_names", "_ds_source_param_group_id")


def _engine(
    model: nn.Module, optimizer: torch.optim.Optimizer, native: dict[str, Any], device: torch.device
) -> Any:
    """deepspeed.initialize over the process group that is there."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    _quieted(deepspeed, device)
    local = os.environ.get("LOCAL_RANK", str(device.index or 0))
    with exported({"LOCAL_RANK": local}, os.environ):
        if "activation_checkpointing" in native:  # read by deepspeed.checkpointing, which models call
            deepspeed.checkpointing.configure(None, deepspeed_config=native)
        return deepspeed.initialize(model=model, optimizer=optimizer, config=native)[0]


def _quieted(deepspeed: Any, device: torch.device) -> None:
    """What DeepSpeed would do at a start that no run wants."""
    if device.type == "cpu":  # compiling CPU collectives of its own takes minutes; gloo has them
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning
    )  # it calls them
    deepspeed.utils.groups._WORLD_GROUP = None  # a clone of the group of a run before in this process
