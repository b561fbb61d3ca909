"""Tells a user's own sampler or loader which epoch starts; the planned order needs no telling."""

from typing import Any


class SamplerSeedHook:
    def set_epoch(self, loader: Any, epoch: int) -> None:
        """Calls set_epoch wherever the loader, its dataset, its samplers or their sampler has one."""
        batches = getattr(loader, "batch_sampler", None)
        owners = (
            loader, getattr(loader, "dataset", None), getattr(loader, "sampler", None), batches,
            getattr(batches, "sampler", None),
        )  # fmt: skip
        for owner in {id(one): one for one in owners}.values():
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)
