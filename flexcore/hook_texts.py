"""What a hook does as it is set, in a line for the reader of a plan; None where its stages say it all."""

from flexcore.averaging import GAMMA, MOMENTUM
from flexcore.hooks import EMA, EarlyStopping, Hook, NaNGuard, Profiler, Throughput
from flexcore.stopping_early import rule_of


def text_of(hook: Hook) -> str | None:
    match hook:
        case EMA():
            return _ema(hook)
        case NaNGuard():
            every = "each update" if hook.interval == 1 else f"every {hook.interval} updates"
            what = "loss and gradient are" if hook.check == "both" else f"{hook.check} is"
            return f"{every} waits for the device to see that the {what} finite"
        case Profiler():
            unit = "epoch" if hook.by_epoch else "iteration"
            return (
                f"profiles {hook.profile_times} {unit}{'' if hook.profile_times == 1 else 's'} on every rank"
            )
        case Throughput(peak_flops=None):
            return "samples per second at each log line, counted over all ranks"
        case Throughput():
            return "samples per second and MFU at each log line, counted over all ranks"
        case _:
            return None


def _ema(hook: EMA) -> str:
    momentum = MOMENTUM if hook.momentum is None else hook.momentum
    what = {
        "ExponentialMovingAverage": f"exponential average, momentum {momentum:g}",
        "MomentumAnnealingEMA": f"annealed average, momentum {momentum:g}, gamma {hook.gamma or GAMMA}",
        "StochasticWeightAverage": "running mean",
    }[hook.ema_type]
    begin = f" from iteration {hook.begin_iter}" if hook.begin_iter else ""
    begin = f" from epoch {hook.begin_epoch}" if hook.begin_epoch else begin
    often = "every iteration" if hook.interval == 1 else f"every {hook.interval} iterations"
    return f"{what}, {often}{begin}; evaluations use the average"


def end_of(hook: Hook) -> str | None:
    """The condition on which the hook ends the run before its planned length."""
    match hook:
        case EarlyStopping():
            past = "" if hook.stopping_threshold is None else f", or past {hook.stopping_threshold:g}"
            finite = ", or not finite" if hook.check_finite else ""
            better = f"{'+' if rule_of(hook) == 'greater' else '-'}{hook.min_delta:g}"
            return f"{hook.monitor} without {better} for {hook.patience} validations{past}{finite}"
        case NaNGuard(action="stop"):
            what = "loss or gradient" if hook.check == "both" else hook.check
            return f"{what} not finite"
        case _:
            return None
