"""Fuzzing the core: whatever it is given, nothing but ConfigError escapes, in bounded time.

python -m tests.fuzz --inputs 1000000 --state FILE    goes on where FILE ends; a failure is told by its number
python -m tests.fuzz --show NUMBER                    runs one input and prints it
"""

import argparse
import json
import re
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import flexcore
from flexcore import ConfigError, Plan
from flexcore.columns import side_by_side
from flexcore.problems import Problem
from flexcore.provenance import ORIGINS, why
from flexcore.questions import values_at, window_samples
from flexcore.rules import RULES
from tests.fuzz_inputs import Input, input_of

SECONDS = 5  # what one input may take on a loaded machine
SAVED_EVERY = 5_000


class TooLongError(Exception):
    pass


def judged(given: Input) -> str:
    """What became of an input: "refused" or "accepted". Raises whatever escapes, and AssertionError for a bad answer."""
    return _read(given.value) if given.kind == "json" else _planned(given)


def _planned(given: Input) -> str:
    try:
        plan = flexcore.plan(given.value, given.facts, mode=given.mode, smoke=given.smoke)
    except ConfigError as error:
        assert error.problems and all(problem.severity == "error" for problem in error.problems)
        for problem in error.problems:
            _told(problem)
        if given.deep:
            assert any(
                p.severity == "error" for p in flexcore.lint(given.value, given.facts, mode=given.mode)
            )
            _parsed(given.value)
        return "refused"
    for problem in plan.notices:
        _told(problem)
    if given.deep:
        assert len(plan.plan_digest) == 64
        assert given.smoke or not any(
            p.severity == "error" for p in flexcore.lint(given.value, given.facts, mode=given.mode)
        )
        _asked(plan)
    return "accepted"


def _told(problem: Problem) -> None:
    assert problem.code in RULES and problem.message and problem.remedy
    assert all(type(step) in (str, int) for step in problem.path)
    str(problem)
    json.dumps([problem.path, problem.message, problem.remedy])


def _parsed(value: Any) -> None:
    try:
        config = flexcore.parse(value)
    except ConfigError as error:
        assert str(error)
        return
    again = flexcore.parse(flexcore.dump(config))
    assert again == config or _has_nan(config)


def _has_nan(value: Any) -> bool:
    """NaN equals nothing, itself included; no setting accepts one, and files may hold it."""
    return re.search(r"[=( ]nan[,)]", repr(value)) is not None


def _asked(plan: Plan) -> None:
    """Every question a plan answers."""
    assert str(plan).endswith("\n")
    if not plan.supplied:
        text = plan.to_json()
        again = Plan.from_json(text)
        assert again == plan and again.to_json() == text
        assert (again.plan_digest, again.trajectory_digest) == (plan.plan_digest, plan.trajectory_digest)
    clock = plan.timeline
    end = 1000 if clock is None or clock.max_iters is None else min(1000, max(0, clock.max_iters - 1))
    for one in plan.optimizers:
        for group in range(min(3, len(one.groups))):
            for key, _ in one.groups[group].values:
                for iteration in (0, 7, end):
                    flexcore.value_at(plan, key, iteration, group, one.name)
                values_at(plan, key, (0, 3, end), group, one.name)
    with suppress(flexcore.Undecided):  # of a loop of the user's own, which decides as it runs
        _listed(plan, end)
    for key in (*list(ORIGINS)[:: 1 + len(str(plan)) % 7], "model"):
        str(why(plan, key))
    side_by_side(plan, (1, 2))


def _listed(plan: Plan, end: int) -> None:
    list(islice(flexcore.validations(plan), 3))
    list(islice(flexcore.saves(plan), 5))
    if plan.saving is None or plan.saving.max_keep in range(1, 100):  # all of a long run's take long to list
        for done in (0, 12, end):
            flexcore.kept(plan, done)
    order = plan.train.order if plan.train is not None else None
    if order is not None and order.micro_batch_size * order.accumulation < 10_000:
        window_samples(plan, 0)
        list(islice(flexcore.sample_indices(plan, epoch=1, start=3), 20))


def _read(text: str) -> str:
    try:
        plan = Plan.from_json(text)
    except ConfigError as error:
        for problem in error.problems:
            _told(problem)
        return "refused"
    again = plan if plan.supplied else Plan.from_json(plan.to_json())
    assert again == plan or _has_nan(plan)
    return "accepted"


def outcome(seed: int, index: int) -> tuple[str, str]:
    """("refused" | "accepted" | "failed", what failed)."""
    try:
        given = input_of(seed, index)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        return f"{given.kind} {judged(given)}", ""
    except Exception as error:
        lines = traceback.format_exception(error)[-4:]
        return "failed", f"{type(error).__name__}: {str(error)[:200]} | {''.join(lines)[-600:]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _late(*_: Any) -> None:
    raise TooLongError(f"took more than {SECONDS} s")


def run(
    inputs: int, state_file: Path | None = None, seed: int = 0, start: int = 0, told: bool = False
) -> dict[str, Any]:
    """Inputs start..inputs-1, going on where the state file ends."""
    state: dict[str, Any] = {
        "seed": seed,
        "next": start,
        "counts": {},
        "failures": [],
        "slowest": [0.0, None],
        "seconds": 0.0,
    }
    if state_file is not None and state_file.exists():
        state = json.loads(state_file.read_text())
    counts, before = Counter(state["counts"]), signal.signal(signal.SIGALRM, _late)
    mark = time.perf_counter()
    try:
        for index in range(state["next"], inputs):
            begun = time.perf_counter()
            what, why = outcome(state["seed"], index)
            took = time.perf_counter() - begun
            counts[what] += 1
            state["slowest"] = max(state["slowest"], [round(took, 3), index], key=lambda pair: pair[0])
            if why:
                state["failures"].append([index, why])
            if index + 1 == inputs or (index + 1) % SAVED_EVERY == 0:
                now = time.perf_counter()
                state.update(
                    next=index + 1, counts=dict(counts), seconds=round(state["seconds"] + now - mark, 1)
                )
                mark = now
                if state_file is not None:
                    part = state_file.with_suffix(".part")
                    part.write_text(json.dumps(state, indent=1))
                    part.replace(state_file)
                if told:
                    print(
                        f"{index + 1:,}: {dict(counts)}, {state['seconds']:.0f} s, slowest {state['slowest']}",
                        flush=True,
                    )
    finally:
        signal.signal(signal.SIGALRM, before)
    return state


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--state", type=Path, help="where progress is kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, metavar="NUMBER", help="run one input and print it")
    asked = parser.parse_args()
    if asked.show is not None:
        given = input_of(asked.seed, asked.show)
        print(str(given)[:5000])
        print(judged(given))
        return 0
    state = run(asked.inputs, asked.state, asked.seed, asked.start, told=True)
    for index, reason in state["failures"][:20]:
        print(f"{index}: {reason}")
    print(f"{state['next']:,} inputs, {len(state['failures'])} failures, {state['seconds']:.0f} s")
    return bool(state["failures"])


if __name__ == "__main__":
    sys.exit(main())
