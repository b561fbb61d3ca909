"""Predictions to a file: each rank writes its own, rank 0 merges them in dataset order, no sample twice; no pickle."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from shell.processes import Group

TENSORS, LINES = ".safetensors", ".jsonl"
Row = tuple[int, Any]


class Unwritable(TypeError):  # noqa: N818 - named for what happened
    """A prediction of a kind that neither file format holds."""


class Predictions:
    """The predictions of one loader on one rank.

    As tensors ("index" and "prediction", or one tensor a name where predictions are mappings), or as lines
    {"index": i, "prediction": ...}.
    """

    def __init__(self, path: pathlib.Path, name: str | None, indices: Sequence[Sequence[int]]) -> None:
        """path: with or without a suffix. indices: the samples of each batch of this rank's own."""
        suffix = path.suffix if path.suffix in (TENSORS, LINES) else ""
        stem = path.name.removesuffix(suffix) + (f"_{name}" if name else "")
        self.base, self.suffix, self.indices = path.with_name(stem), suffix, indices
        self.rows: list[Row] = []

    def add(self, batch: int, outputs: Any) -> None:
        """The outputs of this rank's batch of that number, apart and on the CPU."""
        rows = split(outputs)
        if len(rows) != len(self.indices[batch]):
            text = f"{len(rows)} predictions were made for {len(self.indices[batch])} samples"
            raise Unwritable(f"{text}; each sample needs one of its own to be written.")
        self.rows += zip(self.indices[batch], rows, strict=True)

    def write(self, group: Group, rank: int, mark: str = "") -> pathlib.Path:
        """Write this rank's part; rank 0 merges all. The file, its name ending in `mark`, the same on every rank."""
        base = self.base.with_name(self.base.name + mark)
        kinds = [kind for kind in group.gather(_kind(self.rows)) if kind is not None]
        stack = all(kind == kinds[0] and kind != "" for kind in kinds)
        suffix = self.suffix or (TENSORS if stack else LINES)
        if suffix == TENSORS and not stack:
            raise Unwritable(
                f"{base.name}{TENSORS}: the predictions are not tensors of one shape; write {LINES}."
            )
        base.parent.mkdir(parents=True, exist_ok=True)
        part = base.with_name(f"{base.name}.rank{rank}{suffix}")
        (_save_tensors if suffix == TENSORS else _save_lines)(part, self.rows)
        self.rows = []
        group.barrier()
        merged = base.with_name(base.name + suffix)
        if rank == 0:
            parts = [part.with_name(f"{base.name}.rank{r}{suffix}") for r in range(len(group.gather(0)))]
            (_merge_tensors if suffix == TENSORS else _merge_lines)(merged, parts)
            for file in parts:
                file.unlink()
        else:
            group.gather(0)
        group.barrier()
        return merged


def split(outputs: Any) -> list[Any]:
    """A batch of outputs as one prediction a sample, on the CPU."""
    if isinstance(outputs, torch.Tensor):
        return list(outputs.detach().cpu().unbind(0))
    if isinstance(outputs, Mapping):
        columns = {str(name): split(value) for name, value in outputs.items() if value is not None}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise Unwritable(f"outputs hold {lengths} values a batch; each needs one a sample to be written.")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(outputs, tuple) and len({len(split(part)) for part in outputs}) == 1:
        return [list(row) for row in zip(*map(split, outputs), strict=True)]
    if isinstance(outputs, list):
        return [_on_cpu(item) for item in outputs]
    raise Unwritable(f"predictions of type {type(outputs).__name__} cannot be told apart by sample.")


def _on_cpu(item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        return item.detach().cpu()
    if isinstance(item, Mapping):
        return {str(name): _on_cpu(value) for name, value in item.items()}
    return [_on_cpu(value) for value in item] if isinstance(item, list | tuple) else item


def _kind(rows: Sequence[Row]) -> str | None:
    """What all rows have in common as tensors; "" if they do not stack; None without a row."""
    found = {_kind_of(row) for _, row in rows}
    return None if not found else found.pop() if len(found) == 1 else ""


def _kind_of(row: Any) -> str:
    named = row if isinstance(row, dict) else {"prediction": row}
    if not named or not all(isinstance(value, torch.Tensor) for value in named.values()):
        return ""
    return repr([(name, str(value.dtype), tuple(value.shape)) for name, value in sorted(named.items())])


def _save_tensors(path: pathlib.Path, rows: Sequence[Row]) -> None:
    from safetensors.torch import save_file

    columns: dict[str, list[torch.Tensor]] = {}
    for _, row in rows:
        for name, value in (row if isinstance(row, dict) else {"prediction": row}).items():
            columns.setdefault(name, []).append(value)
    index = torch.tensor([index for index, _ in rows], dtype=torch.int64)
    save_file({"index": index, **{name: torch.stack(column) for name, column in columns.items()}}, path)


def _merge_tensors(path: pathlib.Path, parts: Sequence[pathlib.Path]) -> None:
    from safetensors.torch import load_file, save_file

    loaded = [part for part in map(load_file, parts) if len(part["index"])]
    if not loaded:
        save_file({"index": torch.zeros(0, dtype=torch.int64)}, path)
        return
    order = torch.argsort(torch.cat([part["index"] for part in loaded]))
    save_file({name: torch.cat([part[name] for part in loaded])[order] for name in loaded[0]}, path)


def _save_lines(path: pathlib.Path, rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for index, row in rows:
            file.write(json.dumps({"index": index, "prediction": _plain(row)}) + "\n")


def _merge_lines(path: pathlib.Path, parts: Sequence[pathlib.Path]) -> None:
    lines = [line for part in parts for line in _lines(part)]
    lines.sort(key=lambda line: json.loads(line)["index"])
    path.write_text("".join(lines), encoding="utf-8")


def _lines(path: pathlib.Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Unwritable(
        f"a prediction of type {type(value).__name__} cannot be written; return tensors, numbers or text."
    )
