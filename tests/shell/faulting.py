"""What is done to a store while faults strike, what may stand afterwards, and the look that tells."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import torch
from attrs import frozen

from shell.checkpoints import DamagedCheckpoint, RemoveFailed, SaveFailed, Store
from shell.manifests import scan, set_aside

Standing = tuple[tuple[str, int, bool], ...]
"""(name, iteration, validated) of each checkpoint, then ("published ...", iteration, False) of each file."""

SAID = {SaveFailed: 10, RemoveFailed: 11, OSError: 12, DamagedCheckpoint: 13}


@frozen
class Operation:
    """`act` on what `prepare` made. allowed: what may stand at any moment of it, in order; the last once it is done.

    refuses: the errors it may raise. damaged: what was so before.
    """

    prepare: Callable[[pathlib.Path], object]
    act: Callable[[pathlib.Path], object]
    allowed: tuple[Standing, ...]
    refuses: tuple[type[Exception], ...] = (SaveFailed,)
    damaged: tuple[str, ...] = ()

    def said(self, root: pathlib.Path) -> int:
        """Exit code: 0 if it did all, else the one of the error that it may raise."""
        try:
            self.act(root)
        except self.refuses as error:
            return next(SAID[kind] for kind in SAID if isinstance(error, kind))
        return 0


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """A directory in memory, if there is one: what is asked of it is the same, and an fsync takes no time."""
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as root:
        yield pathlib.Path(root)


def state(number: int, size: int = 64) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((size,), float(number))}, "rng": {"cpu": torch.tensor([number])}}


def saved(root: pathlib.Path, number: int, name: str = "a") -> pathlib.Path:
    return Store(root, "run").save(name, state(number), {"iter": number, "validated": False})


def standing(root: pathlib.Path, damaged: tuple[str, ...] = ()) -> Standing:
    """All that can be loaded, every byte of it compared with what was saved; nothing else may be there that cannot."""
    found = scan(root)
    assert {pathlib.Path(one.path).name for one in found.damaged} <= {*damaged}
    published = sorted(root.glob("*.safetensors")) if root.is_dir() else []
    return (
        *((one.name, loaded_iter(one.path), one.fields["validated"]) for one in found.complete),
        *((f"published {path.name.split('-')[0]}", published_iter(path), False) for path in published),
    )


def loaded_iter(path: str) -> int:
    loaded = Store(pathlib.Path(path).parent, "reader").load(path)
    number = loaded.manifest.fields["iter"]
    expected = state(number)
    for stem in expected:
        actual = loaded.tensors(stem)
        assert actual.keys() == expected[stem].keys()
        assert all(torch.equal(actual[key], expected[stem][key]) for key in actual)
    return number


def published_iter(path: pathlib.Path) -> int:
    """The weight that a published file holds, the file's name being right about its bytes."""
    from safetensors.torch import load

    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest()[:8] == path.stem.split("-")[1]
    return int(load(data)["w"][0])


def add_and_retire(root: pathlib.Path) -> None:
    saved(root, 3, "c")
    Store(root, "run").remove("a")


def validate(root: pathlib.Path, name: str = "a") -> None:
    Store(root, "run").amend(name, lambda fields: {**fields, "validated": True})


def litter(root: pathlib.Path) -> None:
    """A replaced one, one moved aside and not replaced, and a half-written one, as dead runs leave them."""
    shutil.copytree(saved(root, 1, "b"), root / ".old-b-1")
    saved(root, 1, "a").rename(root / ".old-a-1")
    saved(root, 2, "b")
    shutil.copytree(root / "b", root / ".tmp-c-dead")
    (root / ".tmp-c-dead" / "manifest.json").unlink()


def damaged_newest(root: pathlib.Path) -> None:
    """A whole one, and one after it without its model."""
    saved(root, 1, "a")
    (saved(root, 2, "b") / "model.safetensors").unlink()


A1, B2, C3 = ("a", 1, False), ("b", 2, False), ("c", 3, False)

OPERATIONS = {
    "first": Operation(lambda root: None, lambda root: saved(root, 1), ((), (A1,))),
    "replace": Operation(lambda root: saved(root, 1), lambda root: saved(root, 2), ((A1,), (("a", 2, False),))),
    "replace a moved one": Operation(
        lambda root: saved(root, 1).rename(root / ".old-a-1"),
        lambda root: saved(root, 2),
        ((A1,), (("a", 2, False),)),
    ),
    "add and retire": Operation(
        lambda root: (saved(root, 1, "a"), saved(root, 2, "b")),
        add_and_retire,
        ((A1, B2), (A1, B2, C3), (B2, C3)),
        (SaveFailed, RemoveFailed),
    ),
    "amend": Operation(lambda root: saved(root, 1), validate, ((A1,), (("a", 1, True),))),
    "publish": Operation(
        lambda root: saved(root, 1),
        lambda root: Store(root, "run").publish("a", ("model", "meta")),
        ((A1,), (A1, ("published a", 1, False))),
        (OSError, DamagedCheckpoint),
    ),
    "remove": Operation(
        lambda root: (saved(root, 1, "a"), saved(root, 2, "b")),
        lambda root: Store(root, "run").remove("b"),
        ((A1, B2), (A1,)),
        (RemoveFailed,),
    ),
    "set aside": Operation(damaged_newest, lambda root: set_aside(root / "b"), ((A1,),), (OSError,), ("b",)),
    "sweep": Operation(litter, lambda root: Store(root, "run").sweep(), ((A1, B2),), (OSError,)),
}  # fmt: skip
