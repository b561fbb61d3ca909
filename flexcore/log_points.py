"""When training values are logged, as arithmetic on completed iterations."""

from flexcore.reporting import Logging
from flexcore.timeline import Timeline


def next_log(timeline: Timeline, logging: Logging, after: int) -> int | None:
    """The first count of completed iterations above `after` at which a log line is due; None: never again.

    In the epoch loop intervals restart with each epoch, as in mmengine; ignore_last leaves an epoch's short
    last group out. In the iteration loop they count from the start, and the end closes the last group; in a loop of
    the user's own they only count.
    """
    interval, total = logging.interval, timeline.max_iters
    if interval is None or (total is not None and after >= total and not timeline.opaque):
        return None
    if timeline.opaque:
        return after // interval * interval + interval
    base, length = 0, total
    if timeline.by_epoch and timeline.epoch_length:
        base, length = after // timeline.epoch_length * timeline.epoch_length, timeline.epoch_length
    due = (after - base) // interval * interval + interval
    if length is None or due <= length:
        return base + due
    if not logging.ignore_last:
        return base + length
    if not timeline.by_epoch or interval > length:
        return None
    following = base + length
    return following + interval if total is None or following < total else None
