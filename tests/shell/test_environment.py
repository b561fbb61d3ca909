"""A process is set up as planned and put back; streams of ranks are equal or apart as the plan says."""

import random
import resource
import sys
import types

import numpy as np
import pytest
import torch

import flexcore
from shell import environment
from shell.processes import Group


def plan_of(**changes):
    config = {
        "model": {"type": "tests.shell.parts:Net"},
        "train_dataloader": {"dataset": {"type": "tests.shell.parts:Pairs"}, "batch_size": 2},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        "randomness": {"seed": 5, **changes.pop("randomness", {})},
        **changes,
    }
    return flexcore.plan(config, flexcore.Facts(world_size=1, device_type="cpu"))


def drawn():
    return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


def started(plan, rank):
    with environment.prepared(plan):
        first = drawn()
        environment.diverge(plan, rank)
        return first, drawn()


def test_ranks_draw_alike_unless_they_are_to_differ():
    assert started(plan_of(), 0) == started(plan_of(), 1) == started(plan_of(), 0)
    apart = plan_of(randomness={"diff_rank_seed": True})
    (first, then), (first_there, then_there) = started(apart, 0), started(apart, 1)
    assert first == first_there
    assert not set(then) & set(then_there)


def test_another_seed_is_another_stream():
    assert started(plan_of(), 0) != started(plan_of(randomness={"seed": 6}), 0)


def test_a_resume_on_other_ranks_draws_by_seed_iteration_and_rank():
    def after(iteration, rank):
        environment.reseed(plan_of(), iteration, rank)
        return drawn()

    assert after(10, 1) == after(10, 1)
    assert len({after(10, 0), after(10, 1), after(11, 0)}) == 3


def test_determinism_is_switched_on_and_put_back():
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
    with environment.prepared(plan_of(randomness={"deterministic": True})):
        assert torch.are_deterministic_algorithms_enabled()
        assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
    with environment.prepared(plan_of(env_cfg={"cudnn_benchmark": True})):
        assert torch.backends.cudnn.benchmark
    now = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
    assert now == before


def test_they_are_put_back_after_a_failure_too():
    with pytest.raises(KeyError), environment.prepared(plan_of(randomness={"deterministic": True})):
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("wanted", "soft"), [(2048, 2048), (512, 1024), (10**9, 4096)])
def test_the_limit_of_open_files_is_only_raised_and_within_the_hard_one(monkeypatch, wanted, soft):
    set_to = [1024]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits[0]))
    with environment.prepared(plan_of(env_cfg={"resource_limit": wanted})):
        assert set_to[-1] == soft


class Cv2(types.ModuleType):
    threads = None

    def setNumThreads(self, threads):
        self.threads = threads


def test_opencv_gets_its_threads_also_when_a_dataset_imports_it(monkeypatch):
    """Before the run, or while its objects are built: `settle` comes after them."""
    plan = plan_of(env_cfg={"mp_cfg": {"opencv_num_threads": 3}})
    with environment.prepared(plan):
        late = Cv2("cv2")
        monkeypatch.setitem(sys.modules, "cv2", late)
        environment.settle(plan)
        assert late.threads == 3


def test_the_device_of_a_cpu_rank():
    assert environment.device_of(plan_of(), Group()) == torch.device("cpu")
