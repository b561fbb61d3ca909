"""What a rank holds of a parameter and of its optimizer state under ZeRO: found, gathered whole, and put back.

ZeRO lays the parameters of a group end to end and gives each rank a stretch of that (stages 1 and 2), or cuts each
parameter into stretches (stage 3). Bytes are moved, never numbers, so nothing is rounded on the way.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from attrs import frozen
from torch import nn

from shell.pieces import AnyTensor, Piece
from shell.state_tensors import StateMismatch

Named = Iterable[tuple[str, nn.Parameter]]


@frozen
class Share:
    """The stretch this rank holds of a parameter: `flat` from `start` on, for `count` elements from `offset` of the whole.

    flat: the full-precision tensor the optimizer steps; its state has the same layout.
    """

    name: str
    parameter: nn.Parameter
    shape: torch.Size
    flat: torch.Tensor
    start: int
    offset: int
    count: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The stretch of a tensor laid out as `flat`."""
        return flat.detach().narrow(0, self.start, self.count)

    def piece(self, flat: torch.Tensor) -> Piece:
        """Of the parameter, or of its state whose elements lie as those of `flat`, what this rank holds."""
        return Piece(self.shape, flat.dtype, (self.shape.numel(),), self.of(flat), (self.offset,))

    def put(self, flat: torch.Tensor, whole: torch.Tensor) -> None:
        self.of(flat).copy_(whole.detach().reshape(-1).narrow(0, self.offset, self.count))


def shares(zero: Any, optimizer: torch.optim.Optimizer, named: Named) -> Iterator[Share]:
    """The share of each trained parameter, in their order, on every rank alike."""
    for name, parameter in named:
        if hasattr(parameter, "ds_id"):
            yield _cut(zero, name, parameter)
        else:
            yield _stretch(zero, optimizer, name, parameter)


def _cut(zero: Any, name: str, parameter: Any) -> Share:
    """Stage 3: equal cuts of each parameter, the last ones padded."""
    group, start, length = zero.grad_position[zero.get_param_id(parameter)]
    offset = min(dist.get_rank() * length, parameter.ds_numel)
    count = min(length, parameter.ds_numel - offset)
    flat = zero.fp32_partitioned_groups_flat[group]
    return Share(name, parameter, torch.Size(parameter.ds_shape), flat, start, offset, count)


def _stretch(zero: Any, optimizer: torch.optim.Optimizer, name: str, parameter: Any) -> Share:
    """Stages 1 and 2: what of the parameter falls into this rank's stretch of its group, if anything."""
    where = parameter._hp_mapping
    if where is None:
        return Share(name, parameter, parameter.shape, _flat_of(zero, optimizer, parameter), 0, 0, 0)
    flat = optimizer.param_groups[where.param_group_index]["params"][0]
    held, whole = where.hp_fragment_address, where.lp_fragment_address
    return Share(name, parameter, parameter.shape, flat, held.start, whole.start, held.numel)


def _flat_of(zero: Any, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.Tensor:
    groups = zero.bit16_groups if hasattr(zero, "bit16_groups") else zero.bf16_groups
    index = next(i for i, group in enumerate(groups) if any(p is parameter for p in group))
    flat: torch.Tensor = optimizer.param_groups[index]["params"][0]
    return flat


def optimizer_state(optimizer: torch.optim.Optimizer, held: Iterable[Share]) -> dict[str, dict[str, Any]]:
    """State by parameter name; pieces of tensors that have every element, others (a step count) as they are."""
    return {
        share.name: {
            key: share.piece(value) if _elementwise(value, share.flat) else _copied(value)
            for key, value in optimizer.state[share.flat].items()
        }
        for share in held
        if share.flat in optimizer.state
    }


def _elementwise(value: Any, like: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == like.shape


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def load_optimizer(
    optimizer: torch.optim.Optimizer, held: Sequence[Share], states: Mapping[str, Mapping[str, Any]]
) -> None:
    """Put whole state by name back into the flat tensors. What is one value to a parameter must be one to its group.

    Raises:
        StateMismatch: parameters that are stepped together were not; the optimizer is as it was.
    """
    common: dict[int, tuple[str, dict[str, Any]]] = {}
    for share in held:
        single = {k: v for k, v in states.get(share.name, {}).items() if not _of_each(v, share.shape)}
        first, expected = common.setdefault(id(share.flat), (share.name, single))
        if not _same(single, expected):
            rule = f"ZeRO steps it together with {first!r}, whose state differs in more than its elements"
            raise StateMismatch(f"The state of {share.name!r}", f"of its own, {_brief(single)}", rule)
    optimizer.state.clear()
    for share in held:
        if share.name not in states:
            continue
        state = optimizer.state[share.flat]
        state.update(
            {key: _copied(value) for key, value in common[id(share.flat)][1].items() if key not in state}
        )
        for key, value in states[share.name].items():
            if _of_each(value, share.shape):
                kept = state.setdefault(
                    key, torch.zeros_like(share.flat, dtype=value.dtype, requires_grad=False)
                )
                share.put(kept, value)


def _of_each(value: Any, shape: torch.Size) -> bool:
    """Whether a value has an element for each of the parameter's; a scalar's own state is told by having no shape."""
    return isinstance(value, torch.Tensor) and value.shape == shape and value.dim() > 0


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(bool(one[key] == other[key]) for key in one)


def _brief(single: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {float(value):g}" for key, value in single.items()) or "none"


def state(model: nn.Module, held: Iterable[Share], *, without_frozen: bool) -> dict[str, AnyTensor]:
    """Parameters, in the full precision the optimizer keeps, and buffers, by name; of what is shared out, pieces."""
    by_id = {id(share.parameter): share for share in held}
    return {
        name: _told(value, by_id.get(id(value)))
        for name, value in saved(model, without_frozen=without_frozen)
    }


def saved(model: nn.Module, *, without_frozen: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """What a checkpoint holds of a model: its state_dict, perhaps without the parameters that do not train."""
    for name, value in model.state_dict(keep_vars=True).items():
        if not (without_frozen and isinstance(value, nn.Parameter) and not value.requires_grad):
            yield name, value


def _told(value: Any, share: Share | None) -> AnyTensor:
    if share is not None and (hasattr(value, "ds_id") or value.dtype != share.flat.dtype):
        return share.piece(share.flat)
    if not hasattr(value, "ds_id"):
        plain: torch.Tensor = value.detach()
        return plain
    cut = value.ds_tensor.detach()  # frozen: no optimizer keeps it
    offset = min(dist.get_rank() * value.ds_tensor.ds_numel, value.ds_numel)
    held = cut.reshape(-1).narrow(0, 0, min(value.ds_tensor.ds_numel, value.ds_numel - offset))
    return Piece(torch.Size(value.ds_shape), cut.dtype, (value.ds_numel,), held, (offset,))


@torch.no_grad()
def load_state(model: nn.Module, held: Iterable[Share], state: Mapping[str, torch.Tensor]) -> None:
    """Put whole tensors that fit back: into the model, and into the full-precision shares the optimizer steps."""
    by_id = {id(share.parameter): share for share in held}
    for name, value in model.state_dict(keep_vars=True).items():
        if name not in state:
            continue
        _fill(value, state[name])
        share = by_id.get(id(value))
        if share is not None:
            share.put(share.flat, state[name])


def _fill(value: torch.Tensor, whole: torch.Tensor) -> None:
    if not hasattr(value, "ds_id"):
        value.copy_(whole)
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([value], modifier_rank=0):
        if dist.get_rank() == 0:
            value.copy_(whole)
