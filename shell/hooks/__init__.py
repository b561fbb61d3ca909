"""Which class carries out which built-in hook."""

from collections.abc import Mapping
from typing import Any

from flexcore import hooks as planned
from shell.hooks.checkpoint import CheckpointHook
from shell.hooks.early_stopping import EarlyStoppingHook
from shell.hooks.ema import EMAHook
from shell.hooks.empty_cache import EmptyCacheHook
from shell.hooks.logger import LoggerHook
from shell.hooks.nan_guard import NaNGuardHook
from shell.hooks.param_scheduler import ParamSchedulerHook
from shell.hooks.profiler import ProfilerHook
from shell.hooks.runtime_info import RuntimeInfoHook
from shell.hooks.sampler_seed import SamplerSeedHook
from shell.hooks.sync_buffers import SyncBuffersHook
from shell.hooks.throughput import ThroughputHook
from shell.hooks.timer import IterTimerHook

BUILTIN: Mapping[type, Any] = {
    planned.RuntimeInfo: RuntimeInfoHook,
    planned.IterTimer: IterTimerHook,
    planned.SamplerSeed: SamplerSeedHook,
    planned.Logger: LoggerHook,
    planned.ParamScheduler: ParamSchedulerHook,
    planned.Checkpoint: CheckpointHook,
    planned.EMA: EMAHook,
    planned.EarlyStopping: EarlyStoppingHook,
    planned.NaNGuard: NaNGuardHook,
    planned.SyncBuffers: SyncBuffersHook,
    planned.EmptyCache: EmptyCacheHook,
    planned.Profiler: ProfilerHook,
    planned.Throughput: ThroughputHook,
}
"""Executor of each built-in hook."""

SET_UP_BY_SPEC: tuple[type, ...] = (
    planned.EMA, planned.EarlyStopping, planned.NaNGuard, planned.Profiler, planned.Throughput,
)  # fmt: skip
"""Hooks whose executor takes their settings as they are."""
