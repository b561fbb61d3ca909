"""What checkpoints cost a training run: the digits example, saving every 50 iterations, in the foreground and behind it.

Runs of the three kinds take turns in this process. "blocked" is the sum of the calls that training waits for.
"""

import argparse
import pathlib
import statistics
import tempfile
from time import perf_counter

from shell import files
from shell.events import FILE, read
from shell.execute import run
from shell.writing import CheckpointWriter

EVERY = 50
KINDS = {"none": None, "foreground": False, "background": True}


class Blocked:
    """Seconds spent in the calls that training waits for, the outermost ones alone."""

    def __init__(self) -> None:
        self.seconds, self.calls, self._depth = 0.0, 0, 0

    def __enter__(self):
        self._methods = {name: getattr(CheckpointWriter, name) for name in ("save", "settled", "close")}
        for name, method in self._methods.items():
            setattr(CheckpointWriter, name, self._timed(method))
        return self

    def __exit__(self, *_) -> None:
        for name, method in self._methods.items():
            setattr(CheckpointWriter, name, method)

    def _timed(self, method):
        def timed(*args, **kwargs):
            begun, self._depth = perf_counter(), self._depth + 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += perf_counter() - begun
                    self.calls += 1

        return timed


def once(kind: str, place: pathlib.Path, epochs: int) -> tuple[float, float, int]:
    """(seconds of the whole run, of them blocked, checkpoints)."""
    config = files.read("examples/digits.py").data
    saves = -1 if KINDS[kind] is None else EVERY
    hook = dict(type="CheckpointHook", interval=saves, by_epoch=False, max_keep_ckpts=2, save_last=False,
                async_save=bool(KINDS[kind]))  # fmt: skip
    config |= dict(work_dir=str(place), resume=False, custom_hooks=[])
    config["default_hooks"] = {
        **config["default_hooks"],
        "checkpoint": hook,
        "logger": dict(type="LoggerHook", interval=50),
    }
    config["train_cfg"] = dict(by_epoch=True, max_epochs=epochs)
    with Blocked() as blocked:
        begun = perf_counter()
        result = run(config)
        seconds = perf_counter() - begun
    saved = sum(event["event"] == "save" for event in read(pathlib.Path(result.log_dir, FILE)))
    return seconds, blocked.seconds, saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    found = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as root:
        once("none", pathlib.Path(root, "warm"), 1)
        for turn in range(arguments.rounds):
            for kind in KINDS:
                found[kind].append(once(kind, pathlib.Path(root, f"{kind}{turn}"), arguments.epochs))
    for kind, runs in found.items():
        walls = sorted(wall for wall, _, _ in runs)
        shares = sorted(100 * blocked / wall for wall, blocked, _ in runs)
        print(f"{kind:>10}: {statistics.median(walls):.2f} s ({walls[0]:.2f}-{walls[-1]:.2f}), "
              f"{runs[0][2]} checkpoints, blocked {statistics.median(shares):.2f} % ({shares[0]:.2f}-{shares[-1]:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
