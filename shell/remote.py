"""Files by URL, through fsspec: fetched into the work_dir before use, sent in one transaction. fsspec is imported for URLs alone.

What was fetched lies in `<work_dir>/fetched/<digest of the URL>/` with a record of sizes and SHA-256; it is used again
while the place it came from says it is the same and its bytes are those of the record.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import asdict, frozen

from shell import manifests
from shell.manifests import FileRecord, name_problem
from shell.results import CheckpointRefused
from shell.tensor_files import delete, make_directory, write_file
from shell.weights import INDEX, INDEXED, WHOLE, BadIndex, indexed

FETCHED: Final = "fetched"
RECORD: Final = "fetched.json"
FILES: Final = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""Suffixes of a single file; anything else is asked whether it is a directory."""
EXTRA: Final = (
    'pip install "flexcore[remote]" has fsspec and http; other protocols want the package of their own'
)
_CHUNK: Final = 4 * 2**20
_STALLED: Final = 60.0  # seconds without a byte after which an http server is given up

Parts = Iterable[bytes | memoryview]


class RemoteFailed(Exception):  # noqa: N818 - named for what happened
    """A URL that cannot be read or written, and why."""


@frozen
class Fetched:
    """What a URL was fetched to. `begin`: the file to begin with, or the directory."""

    url: str
    begin: str
    told: str
    files: tuple[FileRecord, ...]

    @property
    def size(self) -> int:
        return sum(one.size for one in self.files)


def local(url: str, work_dir: str) -> pathlib.Path:
    """Where `fetched` has put what the URL names.

    Raises:
        CheckpointRefused: nothing is there.
    """
    folder = _folder(url, work_dir)
    record = _recorded(folder)
    if record is None:
        raise CheckpointRefused(
            f"{url} was fetched to {folder}, and it is not there. Every rank must see the work_dir."
        )
    return folder / record.begin if record.begin else folder


def fetched(url: str, work_dir: str) -> Fetched:
    """Fetch what the URL names, unless it is there already.

    Raises:
        CheckpointRefused: it cannot be fetched, or is nothing to be loaded.
    """
    folder = _folder(url, work_dir)
    try:
        files, place = _opened(url)
        with _as_failed(url):
            told = _told(files, place)
            known = _recorded(folder)
            if known is not None and known.told == told and not _changed(folder, known):
                return known
            return _fetch(files, place, Fetched(url, "", told, ()), folder)
    except RemoteFailed as error:
        raise CheckpointRefused(str(error)) from error


def _fetch(files: Any, place: str, record: Fetched, folder: pathlib.Path) -> Fetched:
    """Into a temporary sibling, which takes its name once all is there."""
    temporary = folder.with_name(f"{manifests.TEMPORARY}{folder.name}")
    delete(temporary)
    make_directory(temporary)
    try:
        source, begin = _begun(files, place)
        done = [write_file(temporary / begin, _read(files, source))]
        if begin.endswith(INDEXED):
            parent = source.rpartition("/")[0]
            shards = _shards(temporary / begin)
            done += [write_file(temporary / name, _read(files, f"{parent}/{name}")) for name in shards]
        made = Fetched(record.url, begin, record.told, tuple(done))
        write_file(temporary / RECORD, [json.dumps(asdict(made)).encode()])
        delete(folder)
        temporary.rename(folder)
        manifests.sync_directory(folder.parent)
        return made
    finally:
        delete(temporary)


def _begun(files: Any, place: str) -> tuple[str, str]:
    """(where to begin to read, what to call it): a file, or what a directory in Hugging Face's layout begins with."""
    name = place.rpartition("/")[2].partition("?")[0]
    if not name.endswith((*FILES, INDEXED)) and files.isdir(place):
        found = next((one for one in (INDEX, WHOLE) if files.exists(f"{place}/{one}")), None)
        if found is None:
            raise RemoteFailed(
                f"{place} is a directory without {WHOLE} and {INDEX}. Name a file, or such a directory."
            )
        return f"{place}/{found}", found
    if name_problem(name):
        raise RemoteFailed(f"{place} ends in a name that {name_problem(name)}. Name a file.")
    return place, name


def _shards(index: pathlib.Path) -> list[str]:
    """The files that an index names, each beside it."""
    try:
        return sorted(set(indexed(index).values()))
    except BadIndex as error:
        raise RemoteFailed(f"{index.name} {error}. Fetch another.") from error


def _read(files: Any, path: str) -> Iterator[bytes]:
    with files.open(path, "rb") as source:
        while part := source.read(_CHUNK):
            yield part


def send(url: str, parts: Mapping[str, Parts]) -> None:
    """Write files under the URL, or at it for the name ""; none is there under its name before all are written.

    Raises:
        RemoteFailed: the place is taken, or cannot be written; nothing is left there.
    """
    files, place = _opened(url)
    with _as_failed(url):
        if files.exists(place):
            raise RemoteFailed(f"{url} is there already. Name a new file or directory, or remove it.")
        with files.transaction:
            for name, part in parts.items():
                with files.open(f"{place}/{name}" if name else place, "wb") as target:
                    for piece in part:
                        target.write(piece)


def _opened(url: str) -> tuple[Any, str]:
    """(the file system, the path on it)."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise RemoteFailed(f"{url} is a URL, and fsspec is not installed: {EXTRA}.") from error
    try:
        files, place = fsspec.core.url_to_fs(url, **_options(url))
    except ImportError as error:
        raise RemoteFailed(f"{url} needs a package that is not installed: {error}. {EXTRA}.") from error
    except Exception as error:  # each backend has errors of its own
        raise RemoteFailed(f"{url} cannot be reached: {_brief(error)}. Check the URL.") from error
    return files, str(place).rstrip("/")


def _options(url: str) -> dict[str, Any]:
    protocol = url.partition("://")[0]
    if protocol == "file":
        return {"auto_mkdir": True}
    if protocol in ("http", "https"):
        import aiohttp

        # aiohttp gives up after five minutes in all, which a large file takes; a server that stalls is another thing
        return {
            "client_kwargs": {
                "timeout": aiohttp.ClientTimeout(total=None, sock_connect=_STALLED, sock_read=_STALLED)
            }
        }
    return {}


class _as_failed:  # noqa: N801 - reads as a verb
    """Whatever a backend raises, as RemoteFailed."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, RemoteFailed):
            raise RemoteFailed(
                f"{self._url} failed: {_brief(error)}. Check the URL, the network and the permissions."
            ) from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _told(files: Any, place: str) -> str:
    """What the place says of what it holds: another answer tells that it has changed."""
    try:
        return str(files.ukey(place))
    except (NotImplementedError, OSError):
        return ""


def _folder(url: str, work_dir: str) -> pathlib.Path:
    return pathlib.Path(work_dir, FETCHED, hashlib.sha256(url.encode()).hexdigest()[:16])


def _recorded(folder: pathlib.Path) -> Fetched | None:
    try:
        found = json.loads((folder / RECORD).read_bytes())
        records = tuple(
            FileRecord(str(one["name"]), str(one["sha256"]), int(one["size"])) for one in found["files"]
        )
        made = Fetched(str(found["url"]), str(found["begin"]), str(found["told"]), records)
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    return None if any(name_problem(name) for name in (made.begin, *(one.name for one in records))) else made


def _changed(folder: pathlib.Path, known: Fetched) -> bool:
    return bool(manifests.verify(manifests.Manifest(os.fspath(folder), "fetched", {}, known.files)))
