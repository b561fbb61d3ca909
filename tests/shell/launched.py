"""A stand-in for `python -m shell` under the launcher: does what its first argument says, on each rank."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from shell.processes import die_with_parent


def main() -> None:
    die_with_parent()
    what, *rest = sys.argv[1:]
    DEEDS[what](int(os.environ["RANK"]), *rest)


def codes(rank: int, *wanted: str) -> None:
    """Exit with the rank's code; "late:75" half a second after the others, "-9" by that signal."""
    late, _, text = wanted[rank].rpartition(":")
    time.sleep(1.0 if late else 0.0)
    code = int(text)
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(10)
    sys.exit(code)


def restart(rank: int, at_first: str) -> None:
    sys.exit(int(at_first) if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" else 0)


def tell(rank: int, directory: str, *words: str) -> None:
    told = {"words": words, "omp": os.environ.get("OMP_NUM_THREADS"), "session": os.getsid(0) == os.getpid()}
    (Path(directory) / f"told.{rank}").write_text(json.dumps(told))
    print(f"rank {rank} speaking", flush=True)


def stop(rank: int, directory: str, needed: str, code: str) -> None:
    """Count signals until `needed` have come, go on "saving" for a while, then exit with `code`."""
    seen: list[str] = []
    note = Path(directory) / f"seen.{rank}"
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, lambda got, _frame: seen.append(signal.Signals(got).name))
    (Path(directory) / f"ready.{rank}").write_text(str(os.getpid()))
    while len(seen) < int(needed):
        time.sleep(0.02)
    time.sleep(0.3 + 0.7 * rank)  # the ranks end one after the other
    note.write_text(json.dumps(seen))
    sys.exit(int(code))


def train(rank: int, directory: str) -> None:
    """A training loop in small: a gloo group, the stop signal agreed on, leaving in order."""
    from shell.processes import joined, leave
    from shell.stopping import StopAgreement, StopSignals

    with StopSignals() as signals, joined("pytorch", "gloo", 60) as group:
        agreement = StopAgreement(group, signals)
        (Path(directory) / f"ready.{rank}").write_text(str(os.getpid()))
        step, reason = 0, None
        while reason is None:
            step += 1
            time.sleep(0.01)
            reason = agreement.agreed(step, 0.01)
        (Path(directory) / f"seen.{rank}").write_text(json.dumps([reason, step]))
        leave(75 if reason == "preempted" else 130)


DEEDS = {"codes": codes, "restart": restart, "tell": tell, "stop": stop, "train": train}

if __name__ == "__main__":
    main()
