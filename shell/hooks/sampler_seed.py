"""Tells a user's own sampler or loader which epoch starts; the planned order needs no telling."""

from typing import Any


class SamplerSeedHook:
    def set_epoch(self, loader: Any, epoch: int) -> None:
        """Calls set_epoch wherever the loader, its sampler or its batch sampler's sampler has one."""
        for owner in (loader, getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None)):
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)
