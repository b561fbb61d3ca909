"""Makes floating-point buffers the mean over ranks at each epoch's end; one rank has nothing to do."""

from typing import Any

import torch
import torch.distributed as dist

from shell.run import Run


class SyncBuffersHook:
    @torch.no_grad()
    def after_train_epoch(self, run: Run, **_: Any) -> None:
        if run.world_size == 1:
            return
        by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in run.model.buffers():
            if buffer.is_floating_point():
                by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for buffers in by_dtype.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.all_reduce(flat)
            flat /= run.world_size
            for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))
