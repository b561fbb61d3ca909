"""Checkpoints committed by one rename and verified before use: tensors in safetensors, the rest in JSON, no pickle ever.

Saving: write a temporary sibling, hash and fsync each file, the manifest last; move a checkpoint of the same
name aside; rename; fsync the root; delete the one before. Whatever the moment of a kill, `manifests.scan`
finds the old one or the new one whole. One writer at a time: hold `locking.work_dir_lock`; right before each rename
its claim is asked whether it is still the last one. A run that lost it between the two finds its temporary gone:
the next one sweeps, by rename, before it looks at what stands.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import attrs
import safetensors
import torch

from shell import manifests
from shell.locking import Claim
from shell.manifests import Manifest, Path
from shell.pieces import AnyTensor, Files, Piece
from shell.state_tensors import Unsavable, check_json, check_tensor
from shell.tensor_files import chunks, delete, make_directory, ordered, read_file, write_file

JSON: TypeAlias = "bool | int | float | str | list[JSON] | tuple[JSON, ...] | dict[str, JSON] | None"
META = ("epoch", "iter", "run_id", "plan_digest", "trajectory_digest")
"""Manifest fields that a published file's header tells on demand."""


def pieces(tensors: Files) -> list[Piece]:
    """Those among the tensors of several files, as they are written."""
    return [one for part in tensors.values() for _, one in ordered(part) if isinstance(one, Piece)]


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

    def held(self, stem: str) -> dict[str, torch.Tensor]:
        """As `tensors`; none where there is no such file, which a save leaves out if it would hold none."""
        return self.tensors(stem) if stem in self.stems else {}

    def tensors(self, stem: str) -> dict[str, torch.Tensor]:
        """The tensors of one file, on the CPU, to be copied from (`read_file`); KeyError for a stem not in `stems`."""
        if stem not in self.stems:
            raise KeyError(
                f"{self.manifest.path} has no {stem!r}; it has {', '.join(self.stems) or 'no files'}."
            )
        path = pathlib.Path(self.manifest.path, stem + manifests.SUFFIX)
        try:
            return read_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise DamagedCheckpoint(
                self.manifest.path, (f"file {path.name!r} cannot be read: {error}",)
            ) from error


class Store:
    """The checkpoints under one root, written by one run."""

    def __init__(self, root: pathlib.Path, run_id: str, claims: Sequence[Claim] = ()) -> None:
        """claims: without any nobody else may write there."""
        manifests.check_name("Run", run_id)
        self._root = pathlib.Path(root)
        self._run_id = run_id
        self._claims = claims
        self._writing: set[str] = set()

    def save(
        self, name: str, tensors: Files, fields: Mapping[str, JSON], received: Iterator[torch.Tensor] = iter(())  # noqa: B008
    ) -> pathlib.Path:  # fmt: skip
        """Write `tensors` (file stem -> name -> tensor) and `fields` as the checkpoint `name`, replacing one so called.

        received: what the pieces among the tensors make, in the order of `pieces`.

        Raises:
            BadName, Unsavable: before anything is written.
            SaveFailed: the checkpoints there before are intact. WorkDirLost: so they are, and another run's now.

        """
        check_savable(name, tensors, fields)
        temporary = self._root / f"{manifests.TEMPORARY}{name}-{self._run_id}"
        self._writing.add(temporary.name)
        try:
            self._write(temporary, name, tensors, fields, received)
            return self._commit(temporary, name)
        except OSError as error:
            raise SaveFailed(name, _told(error)) from error
        finally:
            delete(temporary)
            self._writing.discard(temporary.name)

    def _write(
        self, temporary: pathlib.Path, name: str, tensors: Files, fields: Mapping[str, JSON],
        received: Iterator[torch.Tensor],
    ) -> None:  # fmt: skip
        make_directory(self._root)
        delete(temporary)
        temporary.mkdir()
        files = [
            write_file(temporary / (stem + manifests.SUFFIX), chunks(part, received=received))
            for stem, part in tensors.items()
        ]
        write_file(temporary / manifests.MANIFEST, [manifests.seal(name, files, fields)])
        manifests.sync_directory(temporary)

    def _commit(self, temporary: pathlib.Path, name: str) -> pathlib.Path:
        final = self._root / name
        self._check_claims()
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

    def _check_claims(self) -> None:
        for claim in self._claims:
            claim.check()

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
        delete(hidden)

    def amend(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, JSON]]) -> None:
        """Replace the fields of a standing checkpoint by one rename; its tensors stay as they are.

        Raises:
            SaveFailed: it is as it was. WorkDirLost: so it is, and another run's now.

        """
        path = self._root / name
        temporary = path / f"{manifests.TEMPORARY}{manifests.MANIFEST}"
        try:
            found = manifests.read(path)
            if not isinstance(found, Manifest):
                raise SaveFailed(name, found.reason)
            fields = change(found.fields)
            check_json("fields", dict(fields))
            delete(temporary)
            write_file(temporary, [manifests.seal(name, found.files, fields)])
            self._check_claims()
            temporary.rename(path / manifests.MANIFEST)
            manifests.sync_directory(path)
        except OSError as error:
            raise SaveFailed(name, _told(error)) from error
        finally:
            delete(temporary)

    def holds(
        self, name: str, stem: str, tensors: Mapping[str, AnyTensor], received: Iterator[torch.Tensor]
    ) -> bool:
        """Whether the checkpoint `name` has exactly these tensors under `stem`; none at all is as good as no file."""
        found = manifests.read(self._root / name)
        if not isinstance(found, Manifest):
            return False
        stored = Loaded(found).held(stem)
        return stored.keys() == tensors.keys() and all(
            torch.equal(stored[key], next(received) if isinstance(one, Piece) else one.cpu())
            for key, one in ordered(tensors)
        )

    def publish(self, name: str, stems: tuple[str, ...]) -> pathlib.Path:
        """Tensor files of a standing checkpoint as one `<name>-<first 8 of its own SHA-256>.safetensors` beside it.

        Tensors of the model keep their names, those of other files begin with the file's; any reader of the format
        takes it, as a PyTorch file. "meta" among `stems`: where the checkpoint stands, in the file's header.

        Raises:
            DamagedCheckpoint, OSError, WorkDirLost: nothing was written.
        """
        loaded = self.load(self._root / name)
        tensors = {
            key if stem == "model" else f"{stem}.{key}": tensor
            for stem in stems for key, tensor in loaded.held(stem).items()
        }  # fmt: skip
        told = {key: str(loaded.manifest.fields.get(key)) for key in META if "meta" in stems}
        temporary = self._root / f"{manifests.TEMPORARY}{name}-published-{self._run_id}"
        delete(temporary)
        try:
            record = write_file(temporary, chunks(tensors, {"format": "pt", **told}))
            final = self._root / f"{name}-{record.sha256[:8]}{manifests.SUFFIX}"
            self._check_claims()
            temporary.rename(final)
        finally:
            delete(temporary)
        manifests.sync_directory(self._root)
        return final

    def load(self, path: Path) -> Loaded:
        """Verify the checkpoint at `path`, in this store or anywhere; DamagedCheckpoint before any tensor is read."""
        return Loaded(whole(path))

    def remove(self, name: str) -> None:
        """Delete the checkpoint `name` if there is one.

        Raises:
            RemoveFailed: it is whole. WorkDirLost: it is, and another run's now.
        """
        manifests.check_name("Checkpoint", name)
        try:
            self._check_claims()
            if self._root.is_dir():
                self._discard_previous(name)
            with contextlib.suppress(FileNotFoundError):  # asked, a disk that fails would say there is none
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
                self._clear(path)
        return entry.startswith(".") and not self._has(entry)

    def _clear(self, path: pathlib.Path) -> None:
        """Delete a temporary that a run may still be about to commit: after one rename it cannot, not even half of it."""
        hidden = manifests.first_free(self._root, f"{manifests.TEMPORARY}swept-")
        path.rename(hidden)
        delete(hidden)

    def _has(self, entry: str) -> bool:
        return os.path.lexists(self._root / entry)


def whole(path: Path) -> Manifest:
    """The manifest of the checkpoint at `path`, every file of it hashed; DamagedCheckpoint if one is not as it was saved."""
    manifest = manifests.read(pathlib.Path(path))
    if not isinstance(manifest, Manifest):
        raise DamagedCheckpoint(str(path), (manifest.reason,))
    reasons = manifests.verify(manifest)
    if reasons:
        raise DamagedCheckpoint(str(path), reasons)
    return manifest


def check_savable(name: str, tensors: Files, fields: Mapping[str, JSON]) -> None:
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


def _told(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{reason} ({error.filename})" if error.filename else reason
