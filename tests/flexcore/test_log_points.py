"""Log points against a loop that counts."""

from hypothesis import given
from hypothesis import strategies as st

from flexcore.log_points import next_log
from flexcore.run_plan import Logging
from flexcore.timeline import Timeline


def counted(by_epoch, length, epochs, interval, ignore_last):
    """Every count of completed iterations with a log line, by walking them all."""
    found, total = [], length * epochs
    for done in range(1, total + 1):
        within = (done - 1) % length + 1 if by_epoch else done
        last = within == length if by_epoch else done == total
        if within % interval == 0 or (last and not ignore_last):
            found.append(done)
    return found


@given(st.booleans(), st.integers(1, 12), st.integers(1, 5), st.integers(1, 15), st.booleans())
def test_log_points_are_those_of_a_counting_loop(by_epoch, length, epochs, interval, ignore_last):
    total = length * epochs
    clock = Timeline(
        by_epoch=by_epoch, epoch_length=length, max_epochs=epochs if by_epoch else 1, max_iters=total
    )
    logging = Logging(
        interval=interval, ignore_last=ignore_last, window=1, digits=4, level="INFO", backends=()
    )
    expected = counted(by_epoch, length, epochs, interval, ignore_last)
    for after in range(total + 1):
        assert next_log(clock, logging, after) == next((at for at in expected if at > after), None)


def test_without_a_logger_nothing_is_due():
    clock = Timeline(by_epoch=True, epoch_length=3, max_epochs=2, max_iters=6)
    logging = Logging(interval=None, ignore_last=True, window=1, digits=4, level="INFO", backends=())
    assert next_log(clock, logging, 0) is None


def test_an_unknown_length_still_counts_intervals():
    clock = Timeline(by_epoch=False, epoch_length=None, max_epochs=1, max_iters=None)
    logging = Logging(interval=4, ignore_last=True, window=1, digits=4, level="INFO", backends=())
    assert [next_log(clock, logging, after) for after in (0, 3, 4)] == [4, 4, 8]
