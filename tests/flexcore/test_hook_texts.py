"""What each hook says of itself in a plan, whole."""

import pytest

from flexcore.hook_texts import end_of, text_of
from flexcore.hooks import BUILTIN_HOOKS, EMA, EarlyStopping, NaNGuard, Profiler, Throughput

MEAN = "; evaluations use the average"
TEXTS = [
    (EMA(), f"exponential average, momentum 0.0002, every iteration{MEAN}"),
    (EMA(momentum=0.5, interval=2), f"exponential average, momentum 0.5, every 2 iterations{MEAN}"),
    (EMA(begin_iter=7), f"exponential average, momentum 0.0002, every iteration from iteration 7{MEAN}"),
    (EMA(begin_epoch=3), f"exponential average, momentum 0.0002, every iteration from epoch 3{MEAN}"),
    (EMA(ema_type="MomentumAnnealingEMA"), f"annealed average, momentum 0.0002, gamma 100, every iteration{MEAN}"),
    (EMA(ema_type="MomentumAnnealingEMA", momentum=0.1, gamma=4),
     f"annealed average, momentum 0.1, gamma 4, every iteration{MEAN}"),
    (EMA(ema_type="StochasticWeightAverage", interval=50), f"running mean, every 50 iterations{MEAN}"),
    (NaNGuard(), "each update waits for the device to see that the loss is finite"),
    (NaNGuard(check="gradient", interval=3), "every 3 updates waits for the device to see that the gradient is finite"),
    (NaNGuard(check="both"), "each update waits for the device to see that the loss and gradient are finite"),
    (Profiler(), "profiles 1 epoch on every rank"),
    (Profiler(by_epoch=False, profile_times=20), "profiles 20 iterations on every rank"),
    (Throughput(), "samples per second at each log line, counted over all ranks"),
    (Throughput(flops_per_sample=1e9, peak_flops=1e15),
     "samples per second and MFU at each log line, counted over all ranks"),
]  # fmt: skip
ENDS = [
    (EarlyStopping(monitor="loss"), "loss without -0.1 for 5 validations, or not finite"),
    (EarlyStopping(monitor="acc", patience=2, min_delta=0.25, stopping_threshold=0.99, check_finite=False),
     "acc without +0.25 for 2 validations, or past 0.99"),
    (NaNGuard(), "loss not finite"),
    (NaNGuard(check="gradient"), "gradient not finite"),
    (NaNGuard(check="both"), "loss or gradient not finite"),
    (NaNGuard(action="skip"), None),
    (Profiler(), None),
]  # fmt: skip


@pytest.mark.parametrize(("hook", "text"), TEXTS)
def test_what_a_hook_does_as_it_is_set(hook, text):
    assert text_of(hook) == text


@pytest.mark.parametrize(("hook", "text"), ENDS)
def test_what_may_end_a_run(hook, text):
    assert end_of(hook) == text


def test_the_others_say_all_by_their_stages():
    talks = {type(hook) for hook, _ in TEXTS} | {EarlyStopping}
    assert [text_of(kind()) for kind in BUILTIN_HOOKS if kind not in talks] == [None] * (
        len(BUILTIN_HOOKS) - len(talks)
    )
    assert text_of(EarlyStopping(monitor="acc")) is None
