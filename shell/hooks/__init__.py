"""Which class carries out which built-in hook."""

from collections.abc import Mapping
from typing import Any

from flexcore import hooks as planned
from shell.hooks.checkpoint import CheckpointHook
from shell.hooks.logger import LoggerHook
from shell.hooks.param_scheduler import ParamSchedulerHook
from shell.hooks.runtime_info import RuntimeInfoHook
from shell.hooks.sampler_seed import SamplerSeedHook
from shell.hooks.timer import IterTimerHook

BUILTIN: Mapping[type, Any] = {
    planned.RuntimeInfo: RuntimeInfoHook,
    planned.IterTimer: IterTimerHook,
    planned.SamplerSeed: SamplerSeedHook,
    planned.Logger: LoggerHook,
    planned.ParamScheduler: ParamSchedulerHook,
    planned.Checkpoint: CheckpointHook,
}
