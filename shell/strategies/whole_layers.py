"""Parameters that ranks of a tensor-parallel group each hold whole: gradients alike, or added up where the plan says so."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from flexcore.problems import ConfigError
from flexcore.rules import problem
from flexcore.tensor_parallel import STYLES, TensorLayout
from shell.strategies.base import local

Named = dict[str, nn.Parameter]
TOLERANCE = 1e-3
"""Of a gradient's norm. What is computed alike differs by rounding at most; of other features, by all it is."""


def is_cut(parameter: torch.Tensor) -> bool:
    names = parameter.device_mesh.mesh_dim_names if isinstance(parameter, DTensor) else None
    return "tensor" in (names or ())


class WholeLayers:
    """Those of one model. `summed`: of layers that work on shares, so that each rank has the gradient of its share."""

    def __init__(self, model: nn.Module, layout: TensorLayout, group: dist.ProcessGroup) -> None:
        self.group = group
        whole = {name: p for name, p in model.named_parameters() if p.requires_grad and not is_cut(p)}
        paths = tuple(f"{layer.path}." for layer in layout.layers or () if STYLES[layer.style].sums)
        self.summed = {name: p for name, p in whole.items() if paths and name.startswith(paths)}
        self.alike = {name: p for name, p in whole.items() if name not in self.summed}
        self._looked = False

    def add(self) -> None:
        """Each gradient of a summed layer, over the group."""
        used = [local(p.grad) for p in self.summed.values() if p.grad is not None]
        for sent in [dist.all_reduce(part, group=self.group, async_op=True) for part in used]:
            sent.wait()  # type: ignore[union-attr]

    def look(self) -> None:
        """Before the first update: whole parameters must have one gradient on all ranks, or they would drift apart.

        Raises:
            ConfigError: naming those that have not.
        """
        if self._looked or not self.alike:
            return
        self._looked = True
        own = torch.stack([_print_of(p) for p in self.alike.values()])
        seen = [torch.empty_like(own) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(seen, own, group=self.group)
        odd = _unlike(tuple(self.alike), seen)
        if odd:
            text = f"uses {', '.join(odd[:5])} on shares of features: its gradient is another on each rank."
            remedy = 'Give the layer that holds it the style "summed" in the plan, which adds them up.'
            raise ConfigError([problem("FP050", ("model",), text, remedy)])


def _print_of(parameter: nn.Parameter) -> torch.Tensor:
    """A gradient's norm and the sum of its elements; zeros for none."""
    if parameter.grad is None:
        return torch.zeros(2, dtype=torch.float64, device=local(parameter).device)
    values = local(parameter.grad).double()
    return torch.stack([values.norm(), values.sum()])


def _unlike(names: Sequence[str], seen: Sequence[torch.Tensor]) -> list[str]:
    """The names whose rows differ by more than rounding does. What is not finite is nobody's here."""
    rows = torch.stack(list(seen))
    spread = (rows.amax(0) - rows.amin(0)).amax(1)
    return [
        name
        for name, far in zip(names, (spread > TOLERANCE * rows[..., 0].amax(0)).tolist(), strict=True)
        if far
    ]
