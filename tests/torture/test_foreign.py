"""Random changes to the pickles that mmengine and torch write: read, or refused by name; nothing else comes of it."""

import io
import os
import pathlib
import pickletools
import random
import zipfile

import pytest

from shell import mmengine_files, weights
from shell.mapped import Mapped
from shell.results import CheckpointRefused
from tests.torture.conftest import amount

MADE = pathlib.Path(__file__).parents[1] / "shell" / "mmengine"
CODES = "".join(op.code for op in pickletools.opcodes).encode("latin1")
FULL = 30_000


def mutated(pickled: bytes, draw: random.Random) -> bytes:
    """Up to eight changes: an instruction, a byte, a part left out, a part repeated elsewhere."""
    found = bytearray(pickled)
    for _ in range(draw.randint(1, 8)):
        kind, at = draw.random(), draw.randrange(len(found))
        if kind < 0.4:
            found[at] = draw.choice(CODES)
        elif kind < 0.7:
            found[at] = draw.randrange(256)
        elif kind < 0.85:
            del found[at : at + draw.randint(1, 20)]
        else:
            start = draw.randrange(len(found))
            found[at:at] = found[start : start + draw.randint(1, 40)]
    return bytes(found)


def archived(records: dict[str, bytes]) -> bytes:
    """With checksums that are right, so that the change is read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in records.items():
            archive.writestr(f"net/{name}", data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", sorted(path.name for path in MADE.glob("*.pth")))
def test_a_changed_pickle_is_read_or_refused(name, tmp_path, pytestconfig, seed, record_property):
    """In one process, whose memory and files would show what was executed."""
    with zipfile.ZipFile(MADE / name) as archive:
        records = {one.partition("/")[2]: archive.read(one) for one in archive.namelist()}
    path, outcomes = tmp_path / "net.pth", {"read": 0, "refused": 0}
    for number in range(amount(pytestconfig, FULL // 3)):
        draw = random.Random(f"{seed}:{name}:{number}")
        path.write_bytes(archived({**records, "data.pkl": mutated(records["data.pkl"], draw)}))
        for way in (weights.read, whole):
            try:
                way(str(path))
                outcomes["read"] += 1
            except CheckpointRefused as error:
                outcomes["refused"] += 1
                assert str(path) in str(error), (number, error)
    assert os.listdir(tmp_path) == ["net.pth"]
    record_property("counted", outcomes)


def whole(path: str) -> None:
    """All that a resume would read."""
    mmengine_files.fact(path)
    opened = mmengine_files.opened(path)
    mmengine_files.best(opened.tree)
    try:
        Mapped(opened).of(opened.tree)
    except mmengine_files.NotInert as error:
        raise CheckpointRefused(f"{path} {error}") from error
