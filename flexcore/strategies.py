"""How ranks share one model: each strategy's settings, a closed union; nothing here touches torch."""

from attrs import frozen

from flexcore.components import Data

NO_DATA = Data()


@frozen(kw_only=True)
class SingleDevice:
    """One process, one device (FlexibleRunner's SingleDeviceStrategy)."""

    NAME = "SingleDeviceStrategy"


@frozen(kw_only=True)
class DDP:
    """torch's DistributedDataParallel; settings are its constructor's, with its defaults save one.

    broadcast_buffers defaults to False as in FlexibleRunner: buffers stay each rank's own while training.
    """

    NAME = "DDPStrategy"
    find_unused_parameters: bool = False
    broadcast_buffers: bool = False
    bucket_cap_mb: int | None = None
    gradient_as_bucket_view: bool = False
    static_graph: bool = False


Strategy = SingleDevice | DDP
DISTRIBUTED = (DDP,)


@frozen(kw_only=True)
class Compile:
    """torch.compile with these options; kwargs may hold backend, mode, dynamic, fullgraph, options."""

    kwargs: Data = NO_DATA
