"""The closed unions and how their members are named in configs: one table a union, with what is not built."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from attrs import field, frozen

from flexcore import config, hooks, log_specs, loops, schedules, strategies
from flexcore.components import Component, Data, freeze, holds_supplied, is_import_path, last_segment
from flexcore.hooks import UserHook
from flexcore.loops import OwnEvalLoop, OwnTrainLoop
from flexcore.problems import did_you_mean, shown
from flexcore.run_plan import Fresh, LoadWeights, Resume

KEY_OF_FIELD: Mapping[str, str] = {"factor_value": "factor", "param": "param_name"}
SCHEDULE_SUFFIXES: Mapping[str, Mapping[str, str]] = {
    "LR": {"param_name": "lr"},
    "Momentum": {"param_name": "momentum"},
    "ParamScheduler": {},
}
"""How a schedule's type ends, and what that fixes."""
OPTIM_WRAPPER = "optimizer wrapper"
Error = Callable[..., Exception]


@frozen
class Tagged:
    """How one union is read.

    Attributes:
        what: the union's name in messages.
        members: type name -> (class, preset fields).
        default: the type taken when none is given.
        retired: name -> what to use instead.
        other: reads a mapping whose type is an import path; None refuses those.
    """

    what: str
    members: Mapping[str, tuple[type, Mapping[str, Any]]]
    default: str | None = None
    retired: Mapping[str, str] = field(factory=dict)
    other: Callable[[dict[str, Any], Error], Any] | None = None

    def __call__(self, value: dict[str, Any] | str, converter: Any, error: Error) -> Any:
        value = {"type": value} if isinstance(value, str) else value
        given = value.get("type", self.default)
        if given is None:
            raise error("FK012", 'lacks the key "type".', f"Known: {self._known()}.")
        if not isinstance(given, str):
            raise error("FK011", f"must be text, got {shown(given)}.", f"Known: {self._known()}.", "type")
        tag = last_segment(given) if given.startswith(("mmengine.", "mmengine:", "torch.")) else given
        if tag in self.members:
            cls, preset = self.members[tag]
            rest = {key: item for key, item in value.items() if key != "type"}
            for key in preset.keys() & rest.keys():
                raise error("FK010", f"is fixed by the type {tag}.", "Remove it.", key)
            return converter.structure({**rest, **preset}, cls)
        self._refuse_known(tag, error)
        if self.other is not None and is_import_path(given):
            return self.other(value, error)
        guess = did_you_mean(tag, self.members)
        raise error(
            "FK013",
            f"{shown(given)} is not a known {self.what}.",
            guess.strip() or f"Known: {self._known()}.",
            "type",
        )

    def _refuse_known(self, tag: str, error: Error) -> None:
        if tag in self.retired:
            raise error("FK017", f'"{tag}" is retired.', self.retired[tag], "type")

    def _known(self) -> str:
        names = ", ".join(sorted(self.members))
        return names if self.other is None else f'{names}, or "pkg.module:Name"'


def component(value: Any, error: Error) -> Component:
    """A mapping with a type, or a bare type name, as a Component."""
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, dict):
        raise error(
            "FK011",
            f"must be a mapping with a type, got {shown(value)}.",
            'Write dict(type="pkg.module:Name", ...).',
        )
    if "type" not in value:
        raise error("FK012", 'lacks the key "type".', 'Add type="pkg.module:Name".')
    if not isinstance(value["type"], str) or not value["type"]:
        raise error(
            "FK011", f"must be text, got {shown(value['type'])}.", 'Write type="pkg.module:Name".', "type"
        )
    kwargs = {key: item for key, item in value.items() if key != "type"}
    bad = next((key for key in kwargs if not isinstance(key, str)), None)
    if bad is not None:
        raise error("FK011", f"has the key {bad}; argument names are text.", "Rename the key.")
    return Component(type=value["type"], kwargs=data(kwargs, error))


def data(value: dict[Any, Any], error: Error) -> Data:
    """Plain data as it is handed to its owner; nothing inside it can be supplied later."""
    for key, item in value.items():
        if holds_supplied(item):
            text = "holds flexcore.Supplied(), which only fills a slot of its own."
            raise error(
                "FK016", text, "Supply the model, loader, dataset, optimizer, metric or loss itself.", key
            )
    frozen_value: Data = freeze(value)
    return frozen_value


def _user_hook(value: dict[str, Any], error: Error) -> UserHook:
    priority = value.get("priority")
    if priority is not None and type(priority) not in (int, str):
        raise error(
            "FK011",
            f"must be a name or an integer, got {shown(priority)}.",
            "Use 0-100 or NORMAL.",
            "priority",
        )
    rest = {key: item for key, item in value.items() if key != "priority"}
    return UserHook(component=component(rest, error), priority=priority)


def _by_name(*classes: Any) -> dict[str, tuple[type, Mapping[str, Any]]]:
    return {cls.NAME: (cls, {}) for cls in classes}


def _own_train_loop(value: dict[str, Any], error: Error) -> OwnTrainLoop:
    return OwnTrainLoop(component=component(value, error))


def _own_eval_loop(value: dict[str, Any], error: Error) -> OwnEvalLoop:
    return OwnEvalLoop(component=component(value, error))


TTA_INSTEAD = (
    'Set test_cfg=dict(tta=dict(transforms=["identity", "hflip"])), with merge="pkg.module:function" for what '
    "merge_preds did."
)
RETIRED_KEYS: Mapping[str, str] = {"tta_model": TTA_INSTEAD, "tta_pipeline": TTA_INSTEAD}
"""Top-level keys that FlexibleRunner's tools read besides its own."""

TAGGED: tuple[Tagged, ...] = (
    Tagged(
        "strategy",
        {
            "MMDeepSpeedStrategy": (strategies.DeepSpeed, {}),
            **_by_name(*get_args(strategies.Strategy), strategies.Auto),
        },
        retired={"ColossalAIStrategy": "Use FSDPStrategy."},
    ),
    Tagged(
        "hook",
        _by_name(*hooks.BUILTIN_HOOKS),
        retired={
            "NPUProfilerHook": "Use ProfilerHook.",
            "NaiveVisualizationHook": 'Set test_cfg=dict(predictions="FILE") and draw from that file.',
            "PrepareTTAHook": TTA_INSTEAD,
        },
        other=_user_hook,
    ),
    Tagged("sampler", _by_name(*get_args(config.Sampler)), other=component),
    Tagged(
        OPTIM_WRAPPER,
        {"DeepSpeedOptimWrapper": (config.PlainOptim, {}), **_by_name(*get_args(config.OptimWrapper))},
        default="OptimWrapper",
        retired={"ApexOptimWrapper": "Use AmpOptimWrapper.", "ColossalAIOptimWrapper": "Use OptimWrapper."},
    ),
    Tagged(
        "schedule",
        {
            form.FORM + suffix: (form, fixed)  # type: ignore[attr-defined]
            for form in schedules.FORMS
            for suffix, fixed in SCHEDULE_SUFFIXES.items()
        },
    ),
    Tagged(
        "visualizer backend",
        _by_name(*get_args(log_specs.VisBackend)),
        retired=dict.fromkeys(
            ("ClearMLVisBackend", "NeptuneVisBackend", "DVCLiveVisBackend", "AimVisBackend"),
            "Use TensorboardVisBackend, WandbVisBackend or MLflowVisBackend.",
        ),
    ),
    Tagged("starting point", _by_name(Fresh, LoadWeights, Resume)),
    Tagged("trace handler", _by_name(*get_args(hooks.TraceHandler))),
    Tagged("validation loop", _by_name(loops.ValLoop), default="ValLoop", other=_own_eval_loop),
    Tagged("test loop", _by_name(loops.TestLoop), default="TestLoop", other=_own_eval_loop),
    Tagged("test-time augmentation", _by_name(loops.TTA), default="TTA", other=component),
)


def _train_loop(value: Any, converter: Any, error: Error) -> Any:
    """FlexibleRunner's train_cfg: exactly one of by_epoch and type chooses the loop."""
    if not isinstance(value, dict):
        raise error(
            "FK011", f"must be a mapping, got {shown(value)}.", "Write dict(by_epoch=True, max_epochs=...)."
        )
    if "type" in value and "by_epoch" in value:
        raise error("FK019", 'has both "type" and "by_epoch".', "Keep one of them.")
    by_epoch = value.get("by_epoch", "max_epochs" in value)
    if "type" not in value and "by_epoch" not in value:
        _one_length(value, error)
    if type(by_epoch) is not bool:
        raise error(
            "FK011", f"must be true or false, got {shown(by_epoch)}.", "Correct the value.", "by_epoch"
        )
    chosen = value.get("type", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    rest = {key: item for key, item in value.items() if key != "by_epoch"}
    return _LOOPS({**rest, "type": chosen}, converter, error)


def _optim_wrapper(value: Any, converter: Any, error: Error) -> Any:
    """One optimizer wrapper, or several by name: a mapping of mappings without an optimizer of its own."""
    if isinstance(value, dict) and _is_several(value):
        named = {key: item for key, item in value.items() if key != "type"}
        return converter.structure(named, config.OptimDict)
    return next(tagged for tagged in TAGGED if tagged.what == OPTIM_WRAPPER)(value, converter, error)


def _is_several(value: dict[Any, Any]) -> bool:
    given = value.get("type")
    if given is not None:
        return isinstance(given, str) and last_segment(given) == config.OptimDict.NAME
    own = [item for key, item in value.items() if key != "constructor"]
    return "optimizer" not in value and all(isinstance(item, dict) for item in own) and any(
        "optimizer" in item for item in own
    )  # fmt: skip


def is_by_name(value: Any) -> bool:
    """Whether schedules are written by optimizer name: a mapping of lists that is no schedule itself."""
    if not isinstance(value, dict) or not value or "type" in value:
        return False
    return all(item is None or isinstance(item, list | tuple | dict) for item in value.values())


def _one_length(value: dict[str, Any], error: Error) -> None:
    """Without type and by_epoch the length given chooses the loop, so there must be exactly one."""
    given = [name for name in ("max_epochs", "max_iters") if name in value]
    if len(given) == 2:
        raise error("FK019", 'has both "max_epochs" and "max_iters".', "Keep one of them.")
    if not given:
        raise error(
            "FK012",
            "lacks the length of the run.",
            "Add max_epochs (epoch loop) or max_iters (iteration loop).",
        )


_LOOPS = Tagged("training loop", _by_name(loops.EpochLoop, loops.IterLoop), other=_own_train_loop)
_TAG_OF_CLASS = {cls: name for tagged in (*TAGGED, _LOOPS) for name, (cls, _) in tagged.members.items()}


def tagged_for(args: tuple[Any, ...]) -> Callable[[Any, Any, Error], Any] | None:
    """The reader of the closed union whose members `args` holds, if any."""
    if loops.EpochLoop in args:
        return _train_loop
    if config.OptimDict in args:
        return _optim_wrapper
    for tagged in TAGGED:
        if any(cls in args for cls, _ in tagged.members.values()):
            return tagged
    return component_reader if Component in args else None


def component_reader(value: Any, _: Any, error: Error) -> Component:
    return component(value, error)


def tag_of(value: Any) -> str | None:
    """The type name a union's member is written with; None for classes that stand alone."""
    if isinstance(value, schedules.ScheduleBase):
        own = {"param_name": value.param}
        suffix = next(suffix for suffix, fixed in SCHEDULE_SUFFIXES.items() if fixed in (own, {}))
        return f"{value.FORM}{suffix}"  # type: ignore[attr-defined]
    return _TAG_OF_CLASS.get(type(value))


def without_type(value: dict[str, Any], cls: type, error: Error) -> dict[str, Any]:
    """A lone section's mapping without its type, which may only name the section itself."""
    if "type" not in value or not hasattr(cls, "NAME"):
        return value
    given = value["type"]
    if not isinstance(given, str) or last_segment(given) != cls.NAME:
        raise error(
            "FK014",
            f"{shown(given)}: a type of your own here is known but not built yet.",
            f"Use {cls.NAME}.",
            "type",
        )
    return {key: item for key, item in value.items() if key != "type"}


def label(cls: type) -> str:
    """How a section is called in messages."""
    form = getattr(cls, "FORM", None)
    return getattr(cls, "NAME", cls.__name__) if form is None else f"{form}LR"
