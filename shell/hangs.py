"""What ranks say to each other of their progress, and which of them is at fault when there is none.

They speak through notes on a board, and only once one of them asks. Nothing is ended here.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import evolve, frozen

JUDGES = 4
"""The ranks that listen to all others: a thousand listening to a thousand would be too much for the store."""


@frozen(kw_only=True)
class Sight:
    """What a rank says of itself. still: seconds without progress. place: where its main thread stands."""

    rank: int
    word: int
    still: float = 0.0
    completed: int = 0
    place: str = ""
    waits: bool = False
    left: bool = False

    def text(self) -> str:
        values = (self.rank, self.word, self.still, self.completed, self.place, self.waits, self.left)
        return json.dumps(values)

    @classmethod
    def read(cls, text: str) -> "Sight":
        rank, word, still, completed, place, waits, left = json.loads(text)
        return cls(
            rank=rank, word=word, still=still, completed=completed, place=place, waits=waits, left=left
        )


class Board(Protocol):
    """Where ranks leave notes; each call may raise or never return once the board's keeper is gone."""

    def put(self, name: str, text: str) -> None: ...
    def get(self, name: str) -> str | None: ...
    def remove(self, name: str) -> None: ...


@frozen(kw_only=True)
class Verdict:
    """A hang: the ranks at fault, each with what it does; none where no rank stands out."""

    timeout: float
    completed: int
    faults: tuple[tuple[int, str], ...]

    def text(self) -> str:
        return json.dumps([self.timeout, self.completed, self.faults])

    @classmethod
    def read(cls, text: str) -> "Verdict":
        timeout, completed, faults = json.loads(text)
        return cls(timeout=timeout, completed=completed, faults=tuple((rank, what) for rank, what in faults))

    def lines(self, stacks: pathlib.Path) -> list[str]:
        """What is told, in the words of the command line."""
        head = f"flexcore: no progress for {self.timeout:g} s (env_cfg.hang_timeout), at iteration {self.completed}:"
        told = [f"flexcore:   rank {rank} {what}" for rank, what in self.faults]
        odd = [] if told else ["flexcore:   every rank waits for others: no one stands out"]
        return [head, *told, *odd, f"flexcore: stacks of every rank that answers in {stacks}; ending with 5"]


def judged(own: Sight, heard: Mapping[int, Sight], silent: Sequence[int], timeout: float, tick: float) -> Verdict | None:  # fmt: skip
    """The verdict of a rank that has been still for the whole timeout; None while any rank makes progress.

    At fault are those that do not answer; else those behind in iterations; else those that do something of their
    own while others wait for them.
    """
    seen = {own.rank: own, **{rank: sight for rank, sight in heard.items() if not sight.left}}
    answering = [sight for rank, sight in sorted(seen.items()) if rank not in silent]
    if any(sight.still < timeout - 2 * tick for sight in answering):
        return None
    furthest = max(sight.completed for sight in answering)
    behind = [sight for sight in answering if sight.completed < furthest]
    busy = [sight for sight in answering if not sight.waits]
    faults = [(rank, "does not answer: it is stopped, stuck or gone") for rank in silent]
    faults = faults or [(s.rank, f"is at iteration {s.completed}, in {s.place}") for s in behind]
    faults = faults or [(s.rank, f"stands in {s.place}") for s in busy]
    return Verdict(timeout=timeout, completed=furthest, faults=tuple(faults))


class Others:
    """What the other ranks last said, and how long ago.

    Attributes:
        quiet: seconds since each spoke, counted while this rank asks. verdict: once there is one.
        lost: the board is gone, so its keeper is, and nothing can be said of anyone.
    """

    def __init__(self, rank: int, world_size: int, board: Board | None, keeper: int | None) -> None:
        self.rank, self.board, self.keeper = rank, board, keeper
        self.heard: dict[int, Sight] = {}
        self.quiet = dict.fromkeys((r for r in range(world_size) if r != rank), 0.0)
        self.verdict: Verdict | None = None
        self.lost = False
        self._words = 0
        self._asking = False

    def age(self, seconds: float, *, suspicious: bool) -> None:
        for rank in self.quiet:
            self.quiet[rank] = self.quiet[rank] + seconds if suspicious else 0.0

    def silent(self, seconds: float) -> tuple[int, ...]:
        """Who has not spoken for so long; where nobody has, the board's keeper alone does not answer."""
        quiet = tuple(
            rank
            for rank, passed in self.quiet.items()
            if passed >= seconds and not (rank in self.heard and self.heard[rank].left)
        )
        nobody = len(quiet) == len(self.quiet) and self.keeper in quiet
        return (self.keeper,) if nobody and self.keeper is not None else quiet

    def talk(self, own: Sight, *, suspicious: bool) -> None:
        """Answer once anyone asks; while suspicious ask, and listen if this rank is a judge."""
        assert self.board is not None
        if suspicious:
            self.board.put("question", "?")
        elif self._asking:
            self.board.remove("question")
        self._asking = suspicious
        if self.board.get("question") is not None:
            self.say(own)
            told = self.board.get("verdict")
            self.verdict = self.verdict if told is None else Verdict.read(told)
        if suspicious and self.rank < JUDGES:
            self._listen()

    def say(self, own: Sight) -> None:
        assert self.board is not None
        self._words += 1
        self.board.put(f"rank {self.rank}", evolve(own, word=self._words).text())

    def _listen(self) -> None:
        assert self.board is not None
        for rank in self.quiet:
            text = self.board.get(f"rank {rank}")
            sight = None if text is None else Sight.read(text)
            if sight is not None and (rank not in self.heard or self.heard[rank].word != sight.word):
                self.heard[rank], self.quiet[rank] = sight, 0.0
