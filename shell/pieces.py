"""Tensors of which each rank holds a piece: made whole on rank 0, one at a time, and nothing but the pieces is sent."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from attrs import field, frozen


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@frozen(eq=False)
class Piece:
    """What this rank holds of a tensor.

    Attributes:
        shape, dtype: those of the whole.
        held: lies at `offset` of the whole laid out as `seen`; None where this rank has nothing of its own to tell.
        written: the whole, from what the pieces make together.
    """

    shape: torch.Size
    dtype: torch.dtype
    seen: tuple[int, ...]
    held: torch.Tensor | None
    offset: tuple[int, ...] = ()
    written: Callable[[torch.Tensor], torch.Tensor] = field(default=as_it_is)

    def joined(self, parts: Sequence[tuple[tuple[int, ...], torch.Tensor]]) -> torch.Tensor:
        """The whole of the parts, each with its offset."""
        whole = torch.empty(self.seen, dtype=self.dtype)
        for offset, part in parts:
            place = tuple(slice(begin, begin + n) for begin, n in zip(offset, part.shape, strict=True))
            whole[place].copy_(part)
        return self.written(whole.reshape(self.shape))

    def place(self) -> list[int]:
        """(1 or 0 for something held, offset, lengths): as many numbers on every rank."""
        if self.held is None or not self.held.numel():
            return [0] * (1 + 2 * len(self.seen))
        return [1, *self.offset, *self.held.shape]


AnyTensor: TypeAlias = torch.Tensor | Piece
Files: TypeAlias = Mapping[str, Mapping[str, AnyTensor]]
"""What a checkpoint's files hold: file stem -> name -> tensor."""


class Channel:
    """Where pieces travel to rank 0, which takes them in the order in which the others send them.

    group: of gloo, between all ranks, and used for nothing else, so that a thread of its own may wait on it; None in a
    world of one.
    """

    def __init__(self, rank: int, group: Any = None) -> None:
        self.rank, self.group = rank, group

    def send(self, pieces: Sequence[Piece]) -> None:
        """Every rank but 0: its part of each, once rank 0 asks for it."""
        import torch.distributed as dist

        self._places(pieces)
        for piece in pieces:
            if piece.place()[0] and piece.held is not None:
                dist.send(_bytes(piece.held), dst=0, group=self.group)

    def receive(self, pieces: Sequence[Piece]) -> Iterator[torch.Tensor]:
        """Rank 0: each one whole, in host memory. All must be taken, or the others wait."""
        told = self._places(pieces)
        start = 0
        for piece in pieces:
            size = len(piece.place())
            parts = [
                (tuple(place[1 : 1 + len(piece.seen)]), self._part(rank, piece, place[1 + len(piece.seen) :]))
                for rank, place in enumerate(table[start : start + size] for table in told)
                if place[0]
            ]
            start += size
            yield piece.joined(parts)

    def _part(self, rank: int, piece: Piece, lengths: Sequence[int]) -> torch.Tensor:
        import torch.distributed as dist

        if rank == 0:
            assert piece.held is not None
            return piece.held
        part = torch.empty(tuple(lengths), dtype=piece.dtype)
        dist.recv(_bytes(part), src=rank, group=self.group)
        return part

    def _places(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Of each rank, where in every tensor its piece lies; the ranks first agree on which tensors."""
        own = torch.tensor([number for piece in pieces for number in piece.place()], dtype=torch.int64)
        if self.group is None:
            return [own.tolist()]
        import torch.distributed as dist

        kinds = repr([(tuple(piece.shape), str(piece.dtype)) for piece in pieces]).encode()
        mine = torch.tensor([len(own), zlib.crc32(kinds)])
        heads = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(heads, mine, group=self.group)
        odd = [str(rank) for rank, head in enumerate(heads) if not torch.equal(head, heads[0])]
        if odd:
            text = f"rank {', '.join(odd)} holds pieces of other tensors than rank 0; nothing can be put together."
            raise RuntimeError(text)
        tables = [torch.empty_like(own) for _ in heads]
        dist.all_gather(tables, own, group=self.group)
        return [table.tolist() for table in tables]


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor's memory on the host, as bytes; it is the tensor's own where it can be."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
