"""Checkpoints committed by one rename and verified before use: tensors in safetensors, the rest in JSON, no pickle ever.

Saving: write a temporary sibling, hash and fsync each file, the manifest last; move a checkpoint of the same
name aside; rename; fsync the root; delete the one before. Whatever the moment of a kill, `manifests.scan`
finds the old one or the new one whole. One writer at a time: hold `locking.work_dir_lock`.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, TypeAlias

import attrs
import safetensors
import torch

from shell import manifests
from shell.manifests import FileRecord, Manifest, Path
from shell.state_tensors import DTYPES, Unsavable, check_json, check_tensor

JSON: TypeAlias = "bool | int | float | str | list[JSON] | tuple[JSON, ...] | dict[str, JSON] | None"
Tensors: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]

_ORDER: Final = {dtype: rank for rank, dtype in enumerate(DTYPES)}
_MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own limit
_ESCAPE: Final = "%json:"
_CHUNK: Final = 16 * 2**20


class StoreError(Exception):
    """Anything a store refuses or fails to do: `text` says it, filled with the arguments."""

    text: ClassVar[str]

    def __str__(self) -> str:
        return self.text.format(*self.args)


class SaveFailed(StoreError):  # noqa: N818 - named for what happened
    """A save that did not complete; the checkpoints there before are as they were."""

    text = (
        "Checkpoint {0!r} was not saved: {1}. Earlier checkpoints are intact. "
        "Make the place writable, with room for one more checkpoint, and save again."
    )

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class RemoveFailed(StoreError):  # noqa: N818 - named for what happened
    """A checkpoint that could not be moved out of the store; it is whole."""

    text = "Checkpoint {0!r} was not removed: {1}. Make its directory writable and remove it again."

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class DamagedCheckpoint(StoreError):  # noqa: N818 - named for what was found
    """A checkpoint that is not what was saved; none of its tensors was used."""

    text = "Checkpoint {0} is damaged and was not loaded: {1}. Set it aside and resume from the one before."

    def __init__(self, path: str, reasons: tuple[str, ...]) -> None:
        super().__init__(path, reasons)
        self.path, self.reasons = path, reasons

    def __str__(self) -> str:
        return self.text.format(self.path, "; ".join(self.reasons))


@attrs.frozen
class Loaded:
    """A checkpoint whose every byte was verified."""

    manifest: Manifest

    @property
    def stems(self) -> tuple[str, ...]:
        """What `tensors` can be asked for."""
        return tuple(record.name.removesuffix(manifests.SUFFIX) for record in self.manifest.files)

    def tensors(self, stem: str) -> dict[str, torch.Tensor]:
        """The tensors of one file, on the CPU, in memory of their own; KeyError for a stem not in `stems`."""
        if stem not in self.stems:
            raise KeyError(
                f"{self.manifest.path} has no {stem!r}; it has {', '.join(self.stems) or 'no files'}."
            )
        path = pathlib.Path(self.manifest.path, stem + manifests.SUFFIX)
        try:
            with safetensors.safe_open(path, framework="pt", device="cpu") as file:
                return {_unescaped(key): file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise DamagedCheckpoint(
                self.manifest.path, (f"file {path.name!r} cannot be read: {error}",)
            ) from error


class Store:
    """The checkpoints under one root, written by one run."""

    def __init__(self, root: pathlib.Path, run_id: str) -> None:
        manifests.check_name("Run", run_id)
        self._root = pathlib.Path(root)
        self._run_id = run_id
        self._writing: set[str] = set()

    def save(self, name: str, tensors: Tensors, fields: Mapping[str, JSON]) -> pathlib.Path:
        """Write `tensors` (file stem -> name -> tensor) and `fields` as the checkpoint `name`, replacing one so called.

        Raises:
            BadName, Unsavable: before anything is written.
            SaveFailed: the checkpoints there before are intact.

        """
        check_savable(name, tensors, fields)
        temporary = self._root / f"{manifests.TEMPORARY}{name}-{self._run_id}"
        self._writing.add(temporary.name)
        try:
            self._write(temporary, name, tensors, fields)
            return self._commit(temporary, name)
        except OSError as error:
            raise SaveFailed(name, _told(error)) from error
        finally:
            _delete(temporary)
            self._writing.discard(temporary.name)

    def _write(
        self, temporary: pathlib.Path, name: str, tensors: Tensors, fields: Mapping[str, JSON]
    ) -> None:
        _make_directory(self._root)
        _delete(temporary)
        temporary.mkdir()
        files = [
            _write_file(temporary / (stem + manifests.SUFFIX), _chunks(part))
            for stem, part in tensors.items()
        ]
        _write_file(temporary / manifests.MANIFEST, [manifests.seal(name, files, fields)])
        manifests.sync_directory(temporary)

    def _commit(self, temporary: pathlib.Path, name: str) -> pathlib.Path:
        final = self._root / name
        aside = self._make_way(final)
        try:
            temporary.rename(final)
        except BaseException:
            if aside:
                aside.rename(final)
            raise
        manifests.sync_directory(self._root)
        with contextlib.suppress(OSError):  # what is left is swept at the next start
            self._discard_previous(name)
        return final

    def _make_way(self, final: pathlib.Path) -> pathlib.Path | None:
        """Move what has the name to a sibling that `scan` still takes for it; older siblings go only if this is whole."""
        if not os.path.lexists(final):
            return None
        if isinstance(manifests.read(final), Manifest):
            self._discard_previous(final.name)
        aside = manifests.first_free(self._root, f".old-{final.name}-")
        final.rename(aside)
        return aside

    def _discard_previous(self, name: str) -> None:
        for path in manifests.previous_of(self._root, name):
            self._discard(path)

    def _discard(self, path: pathlib.Path) -> None:
        """Delete a checkpoint, out of sight first, so that no half of it is ever found."""
        hidden = manifests.first_free(self._root, f"{manifests.TEMPORARY}{path.name.removeprefix('.')}-gone-")
        path.rename(hidden)
        manifests.sync_directory(self._root)
        _delete(hidden)

    def amend(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, JSON]]) -> None:
        """Replace the fields of a standing checkpoint by one rename; its tensors stay as they are.

        Raises:
            SaveFailed: it is as it was.

        """
        path = self._root / name
        temporary = path / f"{manifests.TEMPORARY}{manifests.MANIFEST}"
        try:
            found = manifests.read(path)
            if not isinstance(found, Manifest):
                raise SaveFailed(name, found.reason)
            fields = change(found.fields)
            check_json("fields", dict(fields))
            _delete(temporary)
            _write_file(temporary, [manifests.seal(name, found.files, fields)])
            temporary.rename(path / manifests.MANIFEST)
            manifests.sync_directory(path)
        except OSError as error:
            raise SaveFailed(name, _told(error)) from error

    def holds(self, name: str, stem: str, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether the checkpoint `name` has exactly these tensors under `stem`; none at all is as good as no file."""
        found = manifests.read(self._root / name)
        if not isinstance(found, Manifest):
            return False
        loaded = Loaded(found)
        stored = loaded.tensors(stem) if stem in loaded.stems else {}
        return stored.keys() == tensors.keys() and all(
            torch.equal(stored[key], one.cpu()) for key, one in tensors.items()
        )

    def publish(self, name: str, stems: tuple[str, ...]) -> pathlib.Path:
        """Tensor files of a standing checkpoint as one `<name>-<first 8 of its SHA-256>.safetensors` beside it.

        Tensors of the model keep their names, those of other files begin with the file's. A file there is replaced.

        Raises:
            DamagedCheckpoint, OSError: nothing was written.
        """
        loaded = self.load(self._root / name)
        tensors = {
            key if stem == "model" else f"{stem}.{key}": tensor
            for stem in stems if stem in loaded.stems for key, tensor in loaded.tensors(stem).items()
        }  # fmt: skip
        temporary = self._root / f"{manifests.TEMPORARY}{name}-published-{self._run_id}"
        _delete(temporary)
        try:
            record = _write_file(temporary, _chunks(tensors))
            final = self._root / f"{name}-{record.sha256[:8]}{manifests.SUFFIX}"
            temporary.rename(final)
        finally:
            _delete(temporary)
        manifests.sync_directory(self._root)
        return final

    def load(self, path: Path) -> Loaded:
        """Verify the checkpoint at `path`, in this store or anywhere; DamagedCheckpoint before any tensor is read."""
        manifest = manifests.read(pathlib.Path(path))
        if not isinstance(manifest, Manifest):
            raise DamagedCheckpoint(str(path), (manifest.reason,))
        reasons = manifests.verify(manifest)
        if reasons:
            raise DamagedCheckpoint(str(path), reasons)
        return Loaded(manifest)

    def remove(self, name: str) -> None:
        """Delete the checkpoint `name` if there is one; RemoveFailed leaves it whole."""
        manifests.check_name("Checkpoint", name)
        try:
            if self._root.is_dir():
                self._discard_previous(name)
            if os.path.lexists(self._root / name):
                self._discard(self._root / name)
        except OSError as error:
            raise RemoveFailed(name, _told(error)) from error

    def sweep(self) -> tuple[str, ...]:
        """Clear what dead runs left: delete temporary and superseded siblings (returned), restore interrupted ones.

        Call at the start, before `scan`, holding the lock: every other run's temporary sibling counts as left over.
        """
        entries = sorted(os.listdir(self._root)) if self._root.is_dir() else []
        return tuple(entry for entry in entries if self._sweep_one(entry))

    def _sweep_one(self, entry: str) -> bool:
        path, owner = self._root / entry, manifests.owner_of_previous(entry)
        with contextlib.suppress(OSError):  # what cannot be cleared does no harm
            if owner and not self._has(owner):
                path.rename(self._root / owner)
                manifests.sync_directory(self._root)
                return False
            if owner and isinstance(manifests.read(self._root / owner), Manifest):
                self._discard(path)
            if entry.startswith(manifests.TEMPORARY) and entry not in self._writing:
                _delete(path)
        return entry.startswith(".") and not self._has(entry)

    def _has(self, entry: str) -> bool:
        return os.path.lexists(self._root / entry)


def check_savable(name: str, tensors: Tensors, fields: Mapping[str, JSON]) -> None:
    """Raise BadName or Unsavable for anything a save would refuse, touching no file."""
    manifests.check_name("Checkpoint", name)
    for stem, part in tensors.items():
        manifests.check_name("File", stem)
        for key, tensor in part.items():
            check_tensor(f"Tensor {key!r} of file {stem!r}", tensor)
    for key in manifests.RESERVED:
        if key in fields:
            raise Unsavable(f"Field {key!r}", "reserved", "the manifest writes it itself: use another name")
    try:
        check_json("fields", dict(fields))
    except RecursionError:
        raise Unsavable(
            "fields", "nested too deep", "they are a tree: they may not contain themselves"
        ) from None


def _chunks(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, one tensor in host memory at a time."""
    ordered = sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0]))
    yield _header(ordered)
    for _, tensor in ordered:
        data = _bytes(tensor)
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]


def _header(ordered: list[tuple[str, torch.Tensor]]) -> bytes:
    table: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        table[_escaped(name)] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": [*tensor.shape],
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER_BYTES:
        raise OSError(
            f"the names of {len(ordered)} tensors need more than {_MAX_HEADER_BYTES} bytes in one file"
        )
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: torch.Tensor) -> memoryview:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    flat = plain.as_strided(
        (plain.numel(),), (1,)
    )  # one element may be contiguous and yet have another stride
    return flat.view(torch.uint8).numpy().data


def _escaped(name: str) -> str:
    """`name` as a key of the header: text that UTF-8 cannot hold and the header's own key go as escaped JSON."""
    odd = (
        name == "__metadata__"
        or name.startswith(_ESCAPE)
        or any("\ud800" <= letter <= "\udfff" for letter in name)
    )
    return _ESCAPE + json.dumps(name) if odd else name


def _unescaped(key: str) -> str:
    return str(json.loads(key.removeprefix(_ESCAPE))) if key.startswith(_ESCAPE) else key


def _write_file(path: pathlib.Path, chunks: Iterable[bytes | memoryview]) -> FileRecord:
    """Write, hash and fsync a new file; what is hashed is what was meant, not what the disk says."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(path.name, digest.hexdigest(), size)


def _make_directory(path: pathlib.Path) -> None:
    """Create a directory and its parents, each made durable in its own parent."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(exist_ok=True)
        manifests.sync_directory(path.parent)


def _delete(path: pathlib.Path) -> None:
    """Delete a file, link or tree if it is there; what cannot be deleted stays for the next sweep."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _told(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{reason} ({error.filename})" if error.filename else reason
