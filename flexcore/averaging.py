"""How much of the new weights goes into an average at each step: mmengine's three kinds as one function."""

from flexcore.hook_specs import EMA

MOMENTUM = 0.0002
GAMMA = 100


def weight(hook: EMA, steps: int) -> float:
    """Share of the new weights in the average after `steps` earlier ones; the first step, 0, copies them.

    Source: mmengine 0.10.7, model/averaged_model.py.
    """
    if steps == 0:
        return 1.0
    momentum = MOMENTUM if hook.momentum is None else hook.momentum
    if hook.ema_type == "MomentumAnnealingEMA":
        gamma = GAMMA if hook.gamma is None else hook.gamma
        return max(momentum, gamma / (gamma + steps))
    if hook.ema_type == "StochasticWeightAverage":
        return 1 / (steps // hook.interval + 1)
    return momentum
