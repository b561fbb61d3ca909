"""Whatever is done to a store, in any order and cut off anywhere, what was saved and not touched since is found whole.

The model is a mapping of names to what was last saved under them; nothing in it knows how a store works.
"""

import os
import pathlib
import shutil
import signal
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shell import manifests
from shell.checkpoints import DamagedCheckpoint, Store
from tests.shell import faulting
from tests.shell.test_commits import at_event, fail, in_child, kill

NAMES = st.sampled_from("abc")
NUMBERS = st.integers(1, 4)  # few, so that two names often have one iteration
PLACES = st.integers(1, 10)  # of the file operations of something small; a save has some 25


def interrupt():
    raise KeyboardInterrupt


FAULTS = {"kill": kill, "error": fail, "interrupt": interrupt}

Standing = dict[str, tuple[int, bool]]


class StoreMachine(RuleBasedStateMachine):
    """standing: (iteration, validated) by name. touched: names under which something else may be.

    shadows: what a name had before and may have again, if what has it now is damaged: a failed save can leave it.
    """

    @initialize()
    def begin(self):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = pathlib.Path(tempfile.mkdtemp(dir=memory))
        self.store = Store(self.root, "run")
        self.standing: Standing = {}
        self.touched: set[str] = set()
        self.shadows: dict[str, set[tuple[int, bool]]] = {}
        self.aside = 0
        self.save("a", 1)
        self.save("b", 2)

    def teardown(self):
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    # What a run does

    @rule(name=NAMES, number=NUMBERS)
    def save(self, name, number):
        self.store.save(name, faulting.state(number), {"iter": number, "validated": False})
        self.standing[name] = number, False
        self._fresh(name)

    @rule(names=st.sets(NAMES, max_size=2))
    def retire(self, names):
        for name in sorted(names):
            self.store.remove(name)
            self.standing.pop(name, None)
            self._fresh(name)

    def _fresh(self, name):
        self.touched.discard(name)
        self.shadows.pop(name, None)

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def settle(self, data):
        name = data.draw(st.sampled_from(sorted(self.standing)))
        faulting.validate(self.root, name)
        self.standing[name] = self.standing[name][0], True

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def publish(self, data):
        name = data.draw(st.sampled_from(sorted(self.standing)))
        path = self.store.publish(name, ("model",))
        assert faulting.published_iter(path) == self.standing[name][0]
        path.unlink()

    # What befalls it

    @rule(name=NAMES, number=NUMBERS, fault=st.sampled_from([*FAULTS]), place=st.integers(1, 25))
    def save_struck(self, name, number, fault, place):
        after = {**self.standing, name: (number, False)}
        if name in self.standing:
            self.shadows.setdefault(name, set()).add(self.standing[name])
        self._struck(lambda: faulting.saved(self.root, number, name), [after], fault, place)

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), number=NUMBERS, fault=st.sampled_from([*FAULTS]), place=st.integers(6, 25))
    def replacing_struck(self, data, number, fault, place):
        """Where most can be lost: one that stands gives way to another."""
        self.save_struck(data.draw(st.sampled_from(sorted(self.standing))), number, fault, place)

    @rule(name=NAMES, fault=st.sampled_from([*FAULTS]), place=PLACES)
    def remove_struck(self, name, fault, place):
        after = {key: value for key, value in self.standing.items() if key != name}
        self._struck(lambda: self.store.remove(name), [after], fault, place)

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), fault=st.sampled_from([*FAULTS]), place=PLACES)
    def settle_struck(self, data, fault, place):
        name = data.draw(st.sampled_from(sorted(self.standing)))
        after = {**self.standing, name: (self.standing[name][0], True)}
        self._struck(lambda: faulting.validate(self.root, name), [after], fault, place)

    @rule(fault=st.sampled_from([*FAULTS]), place=PLACES)
    def sweep_struck(self, fault, place):
        self._struck(self.store.sweep, [], fault, place)

    def _struck(self, act, outcomes, fault, place):
        """Something done in a process of its own with a fault at one file operation; after a kill a run starts anew."""

        def work():
            at_event(self.root, place, FAULTS[fault])
            act()

        done = in_child(work) == 0
        if fault == "kill" and not done:
            Store(self.root, "next").sweep()
        seen = self._seen()
        allowed = outcomes[-1:] if done and outcomes else [self.standing, *outcomes]
        fitting = [outcome for outcome in allowed if self._fits(seen, outcome)]
        assert fitting, (seen, allowed)
        self.standing = fitting[0]

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "unlink"]))
    def damage(self, data, how):
        name = data.draw(st.sampled_from(sorted(self.standing)))
        file = data.draw(st.sampled_from(sorted((self.root / name).iterdir())))
        good = file.read_bytes()
        position = data.draw(st.integers(0, len(good) - 1))
        flipped = (
            good[:position] + bytes([good[position] ^ data.draw(st.integers(1, 255))]) + good[position + 1 :]
        )
        match how:
            case "flip":
                file.write_bytes(flipped)
            case "cut":
                file.write_bytes(good[:position])
            case "unlink":
                file.unlink()
        self._lost(name)

    def _lost(self, name):
        del self.standing[name]
        self.touched.add(name)

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), other=NAMES, moved=st.booleans())
    def copied_or_renamed_by_its_user(self, data, other, moved):
        name = data.draw(st.sampled_from(sorted(self.standing)))
        if os.path.lexists(self.root / other) or self.shadows.get(other):
            return
        self.touched.add(other)
        if moved:
            (self.root / name).rename(self.root / other)
            self._lost(name)
        else:
            shutil.copytree(self.root / name, self.root / other)

    # What is found

    @rule()
    def start_again(self):
        """As a start does: swept, damaged ones set aside from the newest on, until one is whole."""
        self.store = Store(self.root, "run")
        self.store.sweep()
        while found := manifests.scan(self.root).complete:
            if not manifests.verify(found[-1]):
                break
            manifests.set_aside(found[-1].path)
            self.aside += 1
        newest = max(((number, name) for name, (number, _) in self.standing.items()), default=(0, ""))
        assert ((found[-1].fields["iter"], found[-1].name) if found else (0, "")) >= newest
        hidden = [entry for entry in os.listdir(self.root) if entry.startswith(".")]
        assert {manifests.owner_of_previous(entry) for entry in hidden} <= self.touched

    @invariant()
    def all_that_stands_is_found_and_nothing_else(self):
        seen = self._seen()
        assert self._fits(seen, self.standing), (seen, self.standing)
        damaged = {pathlib.Path(one.path).name for one in manifests.scan(self.root).damaged}
        assert {manifests.owner_of_previous(name) or name for name in damaged} <= self.touched
        assert len([entry for entry in os.listdir(self.root) if ".damaged-" in entry]) == self.aside

    def _seen(self) -> Standing:
        """All that loads, every byte compared with what was saved."""
        seen = {}
        for one in manifests.scan(self.root).complete:
            try:
                seen[one.name] = faulting.loaded_iter(one.path), one.fields["validated"]
            except DamagedCheckpoint:
                assert one.name in self.touched
        return seen

    def _fits(self, seen: Standing, standing: Standing) -> bool:
        more = {name: value for name, value in seen.items() if name not in standing}
        return standing.items() <= seen.items() and all(
            value in self.shadows.get(name, ()) for name, value in more.items()
        )


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


def test_the_machine_is_told_of_kills():
    """A fork that is killed is what `in_child` says, or no fault of this file would ever be one."""
    assert in_child(kill) == signal.SIGKILL
