"""What a log line shows of training: means over the window of recent values; and that window as state."""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from shell.run import Run


def window_state(run: Run) -> dict[str, Any]:
    """The values that the next log lines are means of, as JSON: a float holds any of them exactly."""
    rows = [{name: packed(value) for name, value in outputs.items()} for outputs in run.recent]
    return {
        "recent": [{name: value for name, value in row.items() if value is not None} for row in rows],
        "custom": {name: [packed(value) for value in kept] for name, kept in run.custom.items()},
        "gradient_norms": {name: packed(norm) for name, norm, _ in gradient_norms(run)},
    }


def restore_window(run: Run, state: Mapping[str, Any]) -> None:
    run.recent.extend(
        {name: unpacked(value, run.device) for name, value in row.items()} for row in state.get("recent", ())
    )
    for name, kept in state.get("custom", {}).items():
        known = run.custom.setdefault(name, deque(maxlen=run.plan.logging.window))
        known.extend(unpacked(value, run.device) for value in kept)
    for name, wrapper in run.optim_wrapper.each:
        if (kept := state.get("gradient_norms", {}).get(norm_name(name))) is not None:
            wrapper.gradient_norm = unpacked(kept, run.device)


def packed(value: Any) -> Any:
    """A number as itself, a one-element tensor with its kind and place; None for what no line shows."""
    if isinstance(value, torch.Tensor):
        return None if value.numel() != 1 else [value.item(), str(value.dtype)[6:], value.device.type]
    return value if isinstance(value, int | float) else None


def unpacked(value: Any, device: torch.device) -> Any:
    if not isinstance(value, list):
        return value
    number, dtype, place = value
    where = device if place == device.type else torch.device("cpu")
    return torch.tensor(number, dtype=getattr(torch, dtype), device=where)


def norm_name(optimizer: str | None) -> str:
    return "grad_norm" if optimizer is None else f"{optimizer}.grad_norm"


def gradient_norms(run: Run) -> Iterator[tuple[str, Any, bool]]:
    """(name, norm of the last update, whether that was this iteration's) of each optimizer that clips."""
    for name, wrapper in run.optim_wrapper.each:
        if wrapper.gradient_norm is not None:
            yield norm_name(name), wrapper.gradient_norm, wrapper.closing


def training_values(run: Run) -> dict[str, float]:
    """Means over the log window of what the model returned and what hooks logged; the only host sync here."""
    columns = by_name(run.recent)
    pattern = run.plan.logging.mean_pattern
    values = {name: mean(smoothed(pattern, name, column)) for name, column in columns.items()}
    for name, wrapper in run.optim_wrapper.each:
        if wrapper.gradient_norm is not None:
            values[norm_name(name)] = float(wrapper.gradient_norm)
    values.update({name: mean(smoothed(pattern, name, list(kept))) for name, kept in run.custom.items()})
    return {name: value for name, value in values.items() if value is not None}


def by_name(recent: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each name, over outputs that nearly always have the same names."""
    names = recent[-1] if recent else ()
    if sum(map(len, recent)) != len(recent) * len(names):
        names = dict.fromkeys(name for outputs in recent for name in outputs)
        return {name: [outputs[name] for outputs in recent if name in outputs] for name in names}
    try:
        return {name: [outputs[name] for outputs in recent] for name in names}
    except KeyError:
        return by_name([*recent, {}])


def smoothed(pattern: str | None, name: str, column: list[Any]) -> list[Any]:
    """What the mean is taken of: the window, or the last value alone where mean_pattern leaves the name out."""
    return column if pattern is None or re.search(pattern, name) else column[-1:]


def mean(values: list[Any]) -> float | None:
    """The mean of numbers or one-element tensors, stacked so that the device is waited for once."""
    if set(map(type, values)) == {torch.Tensor}:
        flat = torch.stack(values)
        return float(flat.mean(dtype=torch.float32)) if flat.numel() == len(values) else None
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    numbers += [float(tensor) for tensor in tensors if tensor.numel() == 1]
    return sum(numbers) / len(numbers) if numbers else None
