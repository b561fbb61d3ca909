"""What built objects show, as Facts: parameters, hooks and counts. Nothing is built here."""

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader as TorchLoader

from flexcore.batching import is_opaque
from flexcore.components import Supplied
from flexcore.config import DataLoader
from flexcore.facts import Facts, HookFact, ModuleFact
from flexcore.hooks import STAGES
from flexcore.run_plan import Plan
from flexcore.strategies import Auto
from shell import data, parameters, sources

if TYPE_CHECKING:
    from shell.assembling import Built


HEADS = (
    "heads",
    "num_heads",
    "n_heads",
    "n_head",
    "nhead",
    "num_attention_heads",
    "num_key_value_heads",
    "n_kv_heads",
)
"""What attention modules call the number of heads they compute with."""


def _listens(hook: Any, stage: str) -> bool:
    """Whether the class itself defines the stage; a base class's empty default does not count."""
    method = getattr(type(hook), stage, None) or getattr(hook, stage, None)
    return callable(method) and not str(getattr(method, "__module__", "")).startswith("mmengine.")


def observed(plan: Plan, built: "Built") -> Facts:
    """Parameters, hooks and counts, as the live objects show them."""
    hooks = tuple(
        HookFact(
            place=place, stages=tuple(s for s in STAGES if _listens(hook, s)), priority=_priority(hook),
            stateful=callable(getattr(hook, "state_dict", None)),
        )
        for place, hook in built.user_hooks.items()
    )  # fmt: skip
    counts: dict[str, Any] = {
        f"{mode}_samples": tuple(
            None
            if isinstance(loader, Supplied) or sources.only_iterates(_dataset(source))
            else len(_dataset(source))
            for _, source, loader, _ in built.evals[mode]
        )
        for mode in built.evals
    }
    if plan.train is not None:
        counts |= _train_counts(plan, built)
    if built.optimizer is not None:
        counts["parameter_groups"] = parameters.observed_groups(built.optimizer)
    if (
        plan.sharding is not None
        or plan.tensor_parallel is not None
        or isinstance(plan.config.strategy, Auto)
    ):
        counts |= _modules(built.model)
    return Facts(parameters=tuple(parameters.observed(built.model)), model_bytes=_bytes(built.model), hooks=hooks or None,
                 train_step=built.contract.loss is None, **counts)  # fmt: skip


def _bytes(model: nn.Module) -> int:
    """Of what its state_dict holds, of a shared tensor once for each name."""
    held = (value for value in model.state_dict().values() if isinstance(value, torch.Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


def _modules(model: nn.Module) -> dict[str, Any]:
    """Every submodule's class, and the classes the model wants kept whole (Hugging Face's attribute)."""
    blocks = getattr(model, "_no_split_modules", None)
    modules = (
        ModuleFact(path=path, type=type(module).__name__, kind=_kind(module), heads=tuple(heads_of(module).values()))
        for path, module in model.named_modules() if path
    )  # fmt: skip
    return {"modules": tuple(modules), "model_blocks": None if blocks is None else tuple(sorted(blocks))}


def _kind(module: nn.Module) -> Literal["linear", "embedding"] | None:
    """A layer that computes with a weight, and perhaps a bias, and nothing else of its own."""
    if not {name for name, _ in module.named_parameters()} <= {"weight", "bias"}:
        return None
    if isinstance(module, nn.Embedding):
        return "embedding" if module.max_norm is None and not module.sparse else None
    return "linear" if isinstance(module, nn.Linear) else None


def heads_of(module: nn.Module) -> dict[str, int]:
    """The numbers of heads a module holds, by what it calls them."""
    found = {name: getattr(module, name, None) for name in HEADS}
    return {name: count for name, count in found.items() if type(count) is int and count > 0}


def _priority(hook: Any) -> int | str | None:
    own = getattr(hook, "priority", None)
    return own if type(own) in (int, str) else None


def _dataset(source: Any) -> Any:
    return source.dataset if isinstance(source, TorchLoader) else source


def _train_counts(plan: Plan, built: "Built") -> dict[str, Any]:
    assert plan.train is not None
    iterable = isinstance(plan.train.loader, DataLoader) and sources.only_iterates(_dataset(built.train))
    if not iterable and not is_opaque(plan.train.loader):
        return {"train_samples": len(built.train)}
    counts: dict[str, Any] = {"train_batches": _length(built.train), "train_iterable": iterable or None}
    if isinstance(plan.train.loader, DataLoader):
        size = getattr(getattr(built.train, "batch_sampler", None), "batch_size", None)
        counts["train_batch_size"] = (
            size if plan.train.loader.batch_size is None and type(size) is int else None
        )
    else:
        size = getattr(built.train, "batch_size", None)
        first = built.train[0] if isinstance(built.train, list | tuple) and built.train else None
        counts["train_batch_size"] = (
            size if type(size) is int else None if first is None else data.batch_size(first)
        )
    return counts


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # torch's own of a dataset that has none
        return None
