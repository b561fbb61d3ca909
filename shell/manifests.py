"""What a checkpoint store holds, told from names, sizes and sealed manifests: never opens a tensor, imports no torch.

A checkpoint is a directory `<root>/<name>/` of `*.safetensors` files and one `manifest.json`. Its siblings:

    .tmp-<name>-<run_id>   being written or being deleted: never read
    .old-<name>-<k>        the one before, while `<name>` is being replaced: counts as `<name>` if there is none
    <name>.damaged-<k>     set aside by `set_aside`: never read, never deleted

The first line of a manifest is a SHA-256 of all the lines after it, so that damage to any byte of a
checkpoint is seen. Hashes catch damage, not forgery: nothing read here can execute.
"""

import concurrent.futures
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from flexcore.problems import shown

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
SUFFIX: Final = ".safetensors"
MAX_MANIFEST_BYTES: Final = 256 * 2**20
RESERVED: Final = ("manifest_sha256", "format_version", "name", "files")
TEMPORARY: Final = ".tmp-"

_PREVIOUS: Final = re.compile(r"\.old-(.+)-[0-9]+", re.DOTALL)
_SET_ASIDE: Final = re.compile(r".*\.damaged-[0-9]+", re.DOTALL)
_SEAL: Final = re.compile(rb'\{"manifest_sha256": "([0-9a-f]{64})",')
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERIFYING_THREADS: Final = 8
_MAX_COUNT: Final = 2**63

Path = str | os.PathLike[str]


class BadName(ValueError):  # noqa: N818 - named for what is wrong, as everywhere here
    """A checkpoint, file or run name that is not one plain path component."""

    def __init__(self, what: str, name: object, rule: str) -> None:
        super().__init__(what, name, rule)
        self.what, self.name, self.rule = what, name, rule

    def __str__(self) -> str:
        return f"{self.what} name {self.name!r} {self.rule}. Use one plain name, such as 'epoch_3'."


class _Flaw(Exception):  # noqa: N818 - never leaves this file: becomes a Damaged
    """Why a directory is no complete checkpoint."""


@attrs.frozen
class FileRecord:
    """One tensor file as its manifest tells it: `size` in bytes, `sha256` as 64 lower-case hex digits."""

    name: str
    sha256: str
    size: int


@attrs.frozen
class Manifest:
    """One checkpoint whose files are there with the right sizes; `fields` are those given to the save."""

    path: str
    name: str
    fields: Mapping[str, Any]
    files: tuple[FileRecord, ...] = ()


@attrs.frozen
class Damaged:
    """A directory that is not, or is no longer, a complete checkpoint, and why."""

    path: str
    reason: str


@attrs.frozen
class Scan:
    """All that was found under a root: `complete` by (iter, name), `damaged` by path."""

    complete: tuple[Manifest, ...]
    damaged: tuple[Damaged, ...]


def name_problem(name: object) -> str | None:
    """The rule `name` breaks as one plain path component, or None."""
    if not isinstance(name, str):
        return f"is {type(name).__name__}, not text"
    if not name or name.startswith("."):
        return "is empty or begins with a dot"
    if "/" in name or "\\" in name or not name.isprintable():
        return "holds a path separator or a character that cannot be printed"
    return None


def check_name(what: str, name: object) -> None:
    """Raise BadName unless `name` can name a checkpoint, a file or a run."""
    rule = name_problem(name)
    if rule is None and _SET_ASIDE.fullmatch(str(name)):
        rule = "ends as a damaged checkpoint's does when it is set aside"
    if rule:
        raise BadName(what, name, rule)


def scan(root: Path) -> Scan:
    """Everything under `root`; a missing root holds nothing. Reads manifests and sizes, hashes no tensor file."""
    outcomes = [_examine(pathlib.Path(root, entry)) for entry in _candidates(root)]
    complete = [found for found in outcomes if isinstance(found, Manifest)]
    present = {found.name for found in complete if not _is_previous(found.path)}
    kept = [found for found in complete if not (_is_previous(found.path) and found.name in present)]
    damaged = tuple(found for found in outcomes if isinstance(found, Damaged))
    return Scan(tuple(sorted(kept, key=_by_progress)), damaged)


def _candidates(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.is_symlink() or entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not _is_ignored(name))


def _is_ignored(entry: str) -> bool:
    hidden = entry.startswith(".") and not _PREVIOUS.fullmatch(entry)
    return hidden or _SET_ASIDE.fullmatch(entry) is not None


def _is_previous(path: str) -> bool:
    return _PREVIOUS.fullmatch(pathlib.Path(path).name) is not None


def _by_progress(manifest: Manifest) -> tuple[int, str]:
    iteration = manifest.fields.get("iter")
    return (iteration if isinstance(iteration, int) else -1, manifest.name)


def _examine(path: pathlib.Path) -> Manifest | Damaged:
    """What `read` says, and that the directory is a real one bearing its own manifest's name."""
    if path.is_symlink():
        return Damaged(str(path), "is a symbolic link; a checkpoint is a directory")
    found = read(path)
    named = owner_of_previous(path.name) or path.name
    if isinstance(found, Manifest) and found.name != named:
        return Damaged(
            str(path), f"its manifest names {found.name!r}, not {named!r}: it was copied or renamed"
        )
    return found


def owner_of_previous(entry: str) -> str | None:
    """The checkpoint name that the sibling `entry` was moved out of the way of, or None for any other entry."""
    match = _PREVIOUS.fullmatch(entry)
    return match[1] if match else None


def previous_of(root: Path, name: str) -> list[pathlib.Path]:
    """The `.old-` siblings under `root` that once were `name`."""
    return [
        pathlib.Path(root, entry) for entry in sorted(os.listdir(root)) if owner_of_previous(entry) == name
    ]


def read(path: Path) -> Manifest | Damaged:
    """The manifest at `path`, whatever the directory is called, once each of its files has the right size."""
    try:
        document = _document(pathlib.Path(path))
        files = _file_records(document)
        for record in files:
            _check_size(pathlib.Path(path, record.name), record)
    except _Flaw as flaw:
        return Damaged(str(path), str(flaw))
    except OSError as error:
        return Damaged(str(path), f"cannot be read: {error.strerror}")
    fields = {key: value for key, value in document.items() if key not in RESERVED}
    return Manifest(str(path), document["name"], fields, files)


def _document(path: pathlib.Path) -> dict[str, Any]:
    raw = _manifest_bytes(path)
    head, _, body = raw.partition(b"\n")
    seal = _SEAL.fullmatch(head)
    if seal is None or hashlib.sha256(body).hexdigest() != seal[1].decode():
        raise _Flaw(f"{MANIFEST} does not match the SHA-256 in its first line")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _Flaw(f"{MANIFEST} is not JSON: {error}") from error
    _check_document(document)
    return dict(document)


def _manifest_bytes(path: pathlib.Path) -> bytes:
    try:
        with open_regular(path / MANIFEST) as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _Flaw(f"holds no {MANIFEST}") from error
    if len(raw) > MAX_MANIFEST_BYTES:
        raise _Flaw(f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
    return raw


def _check_document(document: dict[str, Any]) -> None:
    version = document.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise _Flaw(f"format_version is {version!r}; this flexcore reads {FORMAT_VERSION}")
    rule = name_problem(document.get("name"))
    if rule:
        raise _Flaw(f"its manifest's name {document.get('name')!r} {rule}")
    for key in ("epoch", "iter"):
        value = document.get(key, 0)
        if type(value) is not int or not 0 <= value < _MAX_COUNT:
            raise _Flaw(f"its manifest's {key} {shown(value)} is no count")
    retired = document.get("retire", [])
    if not isinstance(retired, list) or any(map(name_problem, retired)):
        raise _Flaw(f"its manifest retires {shown(retired)}, which are no names of checkpoints")
    pairs = document.get("trajectory")
    if pairs is not None and not (isinstance(pairs, list) and all(map(_is_pair, pairs))):
        raise _Flaw(f"its manifest's trajectory {shown(pairs)} is no list of pairs of text")


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)


def _file_records(document: dict[str, Any]) -> tuple[FileRecord, ...]:
    files = document.get("files")
    if not isinstance(files, dict):
        raise _Flaw(f"{MANIFEST} has no table of files")
    return tuple(_file_record(name, entry) for name, entry in files.items())


def _file_record(name: str, entry: object) -> FileRecord:
    rule = name_problem(name) or (None if name.endswith(SUFFIX) else f"does not end in {SUFFIX}")
    if rule:
        raise _Flaw(f"file name {name!r} {rule}")
    match entry:
        case {"sha256": str() as sha256, "size": int() as size} if (
            _SHA256.fullmatch(sha256) and type(size) is int
        ):
            return FileRecord(name, sha256, size)
    raise _Flaw(f"file {name!r} has no SHA-256 and size in {MANIFEST}")


def _check_size(path: pathlib.Path, record: FileRecord) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        raise _Flaw(f"file {record.name!r} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise _Flaw(f"file {record.name!r} is not a regular file")
    if status.st_size != record.size:
        raise _Flaw(f"file {record.name!r} has {status.st_size} bytes, not {record.size}")


def open_regular(path: pathlib.Path) -> io.BufferedReader:
    """Open for reading a regular file: OSError for a symbolic link, a pipe or a device, which could hang or mislead."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def verify(manifest: Manifest) -> tuple[str, ...]:
    """Hash every file of `manifest`, in threads: one reason for each that is not what was saved; empty = good."""
    with concurrent.futures.ThreadPoolExecutor(_VERIFYING_THREADS) as pool:
        reasons = pool.map(lambda record: _hash_problem(manifest.path, record), manifest.files)
        return tuple(reason for reason in reasons if reason)


def _hash_problem(directory: str, record: FileRecord) -> str | None:
    try:
        with open_regular(pathlib.Path(directory, record.name)) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"file {record.name!r} cannot be read: {error.strerror}"
    if found == record.sha256:
        return None
    return f"file {record.name!r} has SHA-256 {found[:12]}..., not {record.sha256[:12]}...: its bytes changed"


def seal(name: str, files: Iterable[FileRecord], fields: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest: one line for its own SHA-256, then one for each field."""
    table = {record.name: {"sha256": record.sha256, "size": record.size} for record in files}
    document = {"format_version": FORMAT_VERSION, "name": name, "files": table, **fields}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    body = f"{lines}\n}}\n".encode()
    return b'{"manifest_sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode() + body


def set_aside(path: Path) -> pathlib.Path:
    """Rename a damaged checkpoint to the first free `<name>.damaged-<k>` beside it; returns the new path."""
    source = pathlib.Path(path)
    target = first_free(source.parent, f"{owner_of_previous(source.name) or source.name}.damaged-")
    source.rename(target)
    sync_directory(source.parent)
    return target


def first_free(root: pathlib.Path, prefix: str) -> pathlib.Path:
    """`<root>/<prefix><k>` with the smallest k from 1 that nothing is called yet."""
    number = 1
    while os.path.lexists(root / f"{prefix}{number}"):
        number += 1
    return root / f"{prefix}{number}"


def sync_directory(path: pathlib.Path) -> None:
    """Make the names in a directory durable, where its file system can (some network ones answer EINVAL)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
