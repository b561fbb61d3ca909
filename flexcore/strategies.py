"""How ranks share one model: each strategy's settings, a closed union; nothing here touches torch."""

from collections.abc import Mapping

from attrs import frozen

from flexcore.components import Data

NO_DATA = Data()


@frozen(kw_only=True)
class SingleDevice:
    """One process, one device (FlexibleRunner's SingleDeviceStrategy)."""

    NAME = "SingleDeviceStrategy"


@frozen(kw_only=True)
class _DDPSettings:
    find_unused_parameters: bool = False
    broadcast_buffers: bool = False
    bucket_cap_mb: int | None = None
    gradient_as_bucket_view: bool = False
    static_graph: bool = False


@frozen(kw_only=True)
class DDP(_DDPSettings):
    """torch's DistributedDataParallel; settings are its constructor's, with its defaults save one.

    broadcast_buffers defaults to False as in FlexibleRunner: buffers stay each rank's own while training.
    """

    NAME = "DDPStrategy"


@frozen(kw_only=True)
class Auto(_DDPSettings):
    """Whatever fits: DDP with these settings where a launcher started ranks, a single device elsewhere."""

    NAME = "auto"


Strategy = SingleDevice | DDP
DISTRIBUTED = (DDP,)


COMPILE_KEYS: Mapping[str, tuple[type, ...]] = {
    "backend": (str,), "mode": (str, type(None)), "dynamic": (bool, type(None)), "fullgraph": (bool,),
    "options": (Data, type(None)), "disable": (bool,), "target": (str,),
}  # fmt: skip
"""What a compile mapping may hold, and its kinds. target is FlexibleRunner's: the method that is compiled."""

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@frozen(kw_only=True)
class Compile:
    """torch.compile of the model's forward, or its `target`, with these arguments: see COMPILE_KEYS."""

    kwargs: Data = NO_DATA
