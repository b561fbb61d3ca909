"""Rules of launcher, strategy, device and randomness."""

from collections.abc import Iterator

from flexcore import launchers
from flexcore.backends import amp_dtype
from flexcore.components import Data
from flexcore.config import AmpOptim, Config
from flexcore.environment import chosen_launcher, chosen_strategy, known_world_size
from flexcore.facts import Facts
from flexcore.memory import model_states
from flexcore.problems import Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.strategies import COMPILE_KEYS, COMPILE_MODES, DISTRIBUTED, Auto, SingleDevice
from flexcore.wrappers import asked

BACKENDS = {"nccl": "cuda", "gloo": None, "mpi": None, "ucc": None}


def environment(config: Config, facts: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    yield from _launching(config, facts, broken)
    yield from _precision(config, facts)
    yield from _memory(config, facts)
    if isinstance(config.compile, Data):
        yield from _compiling(config.compile)
    backend, device = config.env_cfg.dist_cfg.backend, facts.device_type
    if backend is not None and backend not in BACKENDS:
        text = f"{shown(backend)} is not a torch.distributed backend."
        yield problem("FK013", ("env_cfg", "dist_cfg", "backend"), text, f"Known: {', '.join(BACKENDS)}.")
    elif backend is not None and device is not None and BACKENDS[backend] not in (None, device):
        text = f'"{backend}" moves {BACKENDS[backend]} tensors, and this run is on {device}.'
        yield problem("FP005", ("env_cfg", "dist_cfg", "backend"), text, "Leave backend out, or use gloo.")
    if config.randomness.deterministic and config.env_cfg.cudnn_benchmark:
        text = "is true with randomness.deterministic; deterministic wins."
        yield problem("FR002", ("env_cfg", "cudnn_benchmark"), text, "Drop one of them.")


def _launching(config: Config, facts: Facts, broken: frozenset[str]) -> Iterator[Problem]:
    launcher, strategy, world = (
        chosen_launcher(config, facts),
        chosen_strategy(config, facts),
        known_world_size(config, facts),
    )
    seen = dict(facts.environment or ())
    if "strategy" in broken or "launcher" in broken:
        return
    if isinstance(strategy, DISTRIBUTED) and launcher == "none":
        text = f"{strategy.NAME} shares a model among ranks, and no launcher started any."
        yield problem(
            "FP001", ("strategy",), text, "Run with --nproc N or torchrun, or use SingleDeviceStrategy."
        )
    if (
        config.launcher is not None
        and facts.environment is not None
        and not launchers.present(launcher, seen)
    ):
        text = f'is "{launcher}", but its variables are not in the environment.'
        yield problem("FP002", ("launcher",), text, "Start with that launcher, or remove the key.")
    if isinstance(strategy, SingleDevice) and world is not None and world > 1:
        text = f"{SingleDevice.NAME} in a world of {world} ranks would train {world} unrelated models."
        yield problem("FP003", ("strategy",), text, "Use DDPStrategy, or start one process.")


def _memory(config: Config, facts: Facts) -> Iterator[Problem]:
    """strategy="auto" takes what fits: the whole on each rank, or shares of it, of which there are as many as ranks."""
    needed, there, ranks = model_states(config, facts), facts.device_memory, known_world_size(config, facts)
    if not isinstance(config.strategy, Auto) or needed is None or there is None or ranks is None:
        return
    if needed > there * ranks:
        shares = "" if ranks == 1 else f", in {ranks} shares"
        text = (
            f'"auto" finds model states of {needed / 2**30:.3g} GiB (parameters, gradients, optimizer){shares} for devices of '
            f"{there / 2**30:.3g} GiB."
        )
        remedy = "Use a smaller model or optimizer state, larger devices, or more ranks."
        yield problem("FP007", ("strategy",), text, remedy)


def _compiling(settings: Data) -> Iterator[Problem]:
    """Each key reaches torch.compile as it is, so each is one of its own; what takes its place is told."""
    for key, value in settings.entries:
        if key not in COMPILE_KEYS:
            guess = did_you_mean(str(key), COMPILE_KEYS).strip() or f"Known: {', '.join(COMPILE_KEYS)}."
            yield problem("FK010", ("compile", key), "is not a setting of torch.compile.", guess)
        elif not isinstance(value, COMPILE_KEYS[str(key)]):
            words = {str: "text", bool: "true or false", Data: "a mapping", type(None): "None"}
            wanted = " or ".join(words[kind] for kind in COMPILE_KEYS[str(key)])
            text = f"must be {wanted}, got {shown(value)}."
            yield problem("FK011", ("compile", key), text, "Correct the value.")
    mode = settings.get("mode")
    if isinstance(mode, str) and mode not in COMPILE_MODES:
        guess = did_you_mean(mode, COMPILE_MODES).strip() or f"Known: {', '.join(COMPILE_MODES)}."
        yield problem("FK020", ("compile", "mode"), f"{shown(mode)} is not a mode of torch.compile.", guess)
    if mode is not None and settings.get("options") is not None:
        text = "is given with mode, and torch.compile takes one of them."
        yield problem("FK019", ("compile", "options"), text, "Keep one of them.")


def _precision(config: Config, facts: Facts) -> Iterator[Problem]:
    for one in asked(config):
        wrapper = one.wrapper
        if not isinstance(wrapper, AmpOptim):
            continue
        dtype = amp_dtype(wrapper, facts)
        supports = {"float16": facts.supports_fp16, "bfloat16": facts.supports_bf16}[dtype]
        if supports is False:
            text = f"{dtype} autocast is not supported on this {facts.device_type} device."
            other = "bfloat16" if dtype == "float16" and facts.supports_bf16 else None
            remedy = f'Set dtype="{other}".' if other else "Use OptimWrapper."
            yield problem("FP004", (*one.place, "dtype"), text, remedy)
