"""Every rule planning can break, and the full text the reader gets; several at once, in the order of the keys given."""

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, GroupFact, HookFact, Supplied
from flexcore.facts import ModuleFact, ParameterFact
from flexcore.rules import RULES
from tests.flexcore.base import DIGITS, KNOWN, base, told, validating
from tests.strategies import checkpoint


def W(**more: Any) -> dict[str, Any]:
    return {"optimizer": {"type": "SGD", "lr": 0.1}, **more}


def L(**more: Any) -> dict[str, Any]:
    return {"dataset": {"type": "pkg.data:Digits"}, "batch_size": 4, **more}


def C(**more: Any) -> dict[str, Any]:
    return {"checkpoint": {"type": "CheckpointHook", **more}}


def S(**more: Any) -> list[dict[str, Any]]:
    return [{"type": "LinearLR", **more}]


def resumed(**more: Any) -> Facts:
    return evolve(KNOWN, checkpoints=(checkpoint(50, **more),))


AMP = {"type": "AmpOptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}}
CUDA = evolve(KNOWN, device_type="cuda", supports_fp16=False, supports_bf16=True)
W4 = evolve(KNOWN, world_size=4)
TWO = evolve(KNOWN, world_size=2)


def deep(settings, **changes):
    """The small config under DeepSpeed, with AdamW."""
    changes = {"optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}}, **changes}
    return base(strategy={"type": "DeepSpeedStrategy", **settings}, **changes)


# name: (config, facts, every error and warning)
CASES: dict[str, tuple[Any, Facts, list[str]]] = {
    "FK010 top": (
        base(train_cgf={}),
        KNOWN,
        [
            'train_cgf: is not a setting of the config. Did you mean "train_cfg"? [FK010]',
        ],
    ),
    "FK010 loader": (
        base(train_dataloader=L(batchsize=3)),
        KNOWN,
        [
            'train_dataloader.batchsize: is not a setting of DataLoader. Did you mean "batch_size"? [FK010]',
        ],
    ),
    "FK010 optim": (
        base(optim_wrapper=W(acumulative_counts=3)),
        KNOWN,
        [
            'optim_wrapper.acumulative_counts: is not a setting of OptimWrapper. Did you mean "accumulative_counts"? [FK010]',
        ],
    ),
    "FK010 clip": (
        base(optim_wrapper=W(clip_grad={"maxnorm": 3})),
        KNOWN,
        [
            'optim_wrapper.clip_grad.maxnorm: is not a setting of ClipGrad. Did you mean "max_norm"? [FK010]',
        ],
    ),
    "FK010 loop": (
        base(train_cfg={"by_epoch": True, "max_epochs": 3, "val_intervall": 1}),
        KNOWN,
        [
            'train_cfg.val_intervall: is not a setting of EpochBasedTrainLoop. Did you mean "val_interval"? [FK010]',
        ],
    ),
    "FK010 schedule": (
        base(param_scheduler=S(start_facto=1)),
        KNOWN,
        [
            'param_scheduler.0.start_facto: is not a setting of LinearLR. Did you mean "start_factor"? [FK010]',
        ],
    ),
    "FK010 sampler": (
        base(train_dataloader=L(sampler={"type": "DefaultSampler", "shufle": True})),
        KNOWN,
        [
            'train_dataloader.sampler.shufle: is not a setting of DefaultSampler. Did you mean "shuffle"? [FK010]',
        ],
    ),
    "FK010 hook": (
        base(default_hooks=C(intervall=1)),
        KNOWN,
        [
            'default_hooks.checkpoint.intervall: is not a setting of CheckpointHook. Did you mean "interval"? [FK010]',
        ],
    ),
    "FK010 env": (
        base(env_cfg={"mp_cfg": {"mp_start_methd": "fork"}}),
        KNOWN,
        [
            'env_cfg.mp_cfg.mp_start_methd: is not a setting of MpCfg. Did you mean "mp_start_method"? [FK010]',
        ],
    ),
    "FK010 strategy": (
        base(strategy={"type": "DDPStrategy", "static_grap": True}, launcher="pytorch"),
        KNOWN,
        [
            'strategy.static_grap: is not a setting of DDPStrategy. Did you mean "static_graph"? [FK010]',
        ],
    ),
    "FK010 far": (
        base(randomness={"zzz": 1}),
        KNOWN,
        [
            "randomness.zzz: is not a setting of Randomness. Remove it; known here: deterministic, diff_rank_seed, seed. [FK010]",
        ],
    ),
    "FK010 preset": (
        base(param_scheduler=S(param_name="lr")),
        KNOWN,
        [
            "param_scheduler.0.param_name: is fixed by the type LinearLR. Remove it. [FK010]",
        ],
    ),
    "FK010 slot": (
        base(default_hooks={"chekpoint": None}),
        KNOWN,
        [
            'default_hooks.chekpoint: is None, and no default hook has that name. Did you mean "checkpoint"? [FK010]',
        ],
    ),
    "FK010 slot far": (
        base(default_hooks={"zzz": None}),
        KNOWN,
        [
            "default_hooks.zzz: is None, and no default hook has that name. Known: runtime_info, timer, sampler_seed, logger, param_scheduler, checkpoint. [FK010]",
        ],
    ),
    "FK010 scaler": (
        base(
            optim_wrapper={
                **AMP,
                "dtype": "float16",
                "loss_scale": {
                    "growth_facto": 2,
                    "zzz": 1,
                    "init_scale": -1,
                    "growth_interval": 1.5,
                    "backoff_factor": 2,
                },
            }
        ),
        KNOWN,
        [
            'optim_wrapper.loss_scale.growth_facto: is not a setting of the loss scaler. Did you mean "growth_factor"? [FK010]',
            "optim_wrapper.loss_scale.zzz: is not a setting of the loss scaler. Remove it; known here: init_scale, growth_factor, backoff_factor, growth_interval. [FK010]",
            "optim_wrapper.loss_scale.init_scale: must be a number above 0, got -1. Correct the value. [FK020]",
            "optim_wrapper.loss_scale.growth_interval: must be an integer above 0, got 1.5. Correct the value. [FK020]",
            "optim_wrapper.loss_scale.backoff_factor: must be a number between 0 and 1, got 2. Correct the value. [FK020]",
        ],
    ),
    "FK010 int key": (
        base(randomness={3: 1}),
        KNOWN,
        [
            "randomness.3: is not a setting of Randomness. Remove it; known here: deterministic, diff_rank_seed, seed. [FK010]",
        ],
    ),
    "FK011 root": (
        [1],
        KNOWN,
        [
            "config: must be a mapping of settings, got [1]. Pass a dict. [FK011]",
        ],
    ),
    "FK011 kinds": (
        base(
            work_dir=3,
            model=5,
            train_dataloader=[1],
            val_dataloader=5,
            optim_wrapper=5,
            param_scheduler=5,
            train_cfg=5,
            resume=5,
            compile=5,
            log_level=5,
            default_hooks=[],
            custom_hooks={},
            launcher="torch",
            global_batch_size=2.5,
        ),
        KNOWN,
        [
            "model: must be a mapping or None, got 5. Correct the value. [FK011]",
            "work_dir: must be text or None, got 3. Correct the value. [FK011]",
            "train_dataloader: must be a mapping or None, got [1]. Correct the value. [FK011]",
            "optim_wrapper: must be a mapping or None, got 5. Correct the value. [FK011]",
            "train_cfg: must be a mapping or None, got 5. Correct the value. [FK011]",
            "val_dataloader: must be a mapping or a list or None, got 5. Correct the value. [FK011]",
            "param_scheduler: must be a mapping or a list or None, got 5. Correct the value. [FK011]",
            "resume: must be true or false or text, got 5. Correct the value. [FK011]",
            "compile: must be true or false or a mapping, got 5. Correct the value. [FK011]",
            'log_level: must be one of "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", got 5. Pick one of them. [FK011]',
            "default_hooks: must be a mapping of hooks by name, got []. Write dict(name=dict(type=...)). [FK011]",
            "custom_hooks: must be a list, got {}. Write it in brackets. [FK011]",
            'launcher: must be "none" or "pytorch" or "slurm" or "mpi" or None, got \'torch\'. Correct the value. [FK011]',
            "global_batch_size: must be an integer or None, got 2.5. Correct the value. [FK011]",
            "val_cfg: is missing while val_dataloader is given; val_dataloader, val_cfg, val_evaluator come together. Add val_cfg and val_evaluator, or remove val_dataloader. [FK018]",
        ],
    ),
    "FK011 inner": (
        base(
            train_dataloader=L(pin_memory=1, timeout="x"),
            optim_wrapper=W(accumulation_tail="cary"),
            train_cfg={"by_epoch": 1, "max_epochs": 1},
            randomness={"seed": 1.0},
            custom_hooks=[{"type": 3}, 5, {"type": "pkg:H", "priority": 1.5}],
            strategy={"type": 4},
        ),
        KNOWN,
        [
            "train_dataloader.pin_memory: must be true or false, got 1. Correct the value. [FK011]",
            "train_dataloader.timeout: must be a number, got 'x'. Correct the value. [FK011]",
            'optim_wrapper.accumulation_tail: must be one of "carry", "step", "drop", got \'cary\'. Did you mean "carry"? [FK011]',
            "train_cfg.by_epoch: must be true or false, got 1. Correct the value. [FK011]",
            "randomness.seed: must be an integer or None, got 1.0. Correct the value. [FK011]",
            'custom_hooks.0.type: must be text, got 3. Known: CheckpointHook, DistSamplerSeedHook, EMAHook, EarlyStoppingHook, EmptyCacheHook, IterTimerHook, LoggerHook, NaNGuardHook, ParamSchedulerHook, ProfilerHook, RuntimeInfoHook, SyncBuffersHook, ThroughputHook, or "pkg.module:Name". [FK011]',
            "custom_hooks.1: must be a mapping, got 5. Correct the value. [FK011]",
            "custom_hooks.2.priority: must be a name or an integer, got 1.5. Use 0-100 or NORMAL. [FK011]",
            "strategy.type: must be text, got 4. Known: DDPStrategy, DeepSpeedStrategy, FSDPStrategy, MMDeepSpeedStrategy, SingleDeviceStrategy, TensorParallelStrategy, auto. [FK011]",
        ],
    ),
    "FK011 dyn": (
        base(train_cfg={"by_epoch": True, "max_epochs": 1, "dynamic_intervals": [[1, 2, 3], 5]}),
        KNOWN,
        [
            "train_cfg.dynamic_intervals.0: must be a list of 2, got [1, 2, 3]. Write it in brackets. [FK011]",
            "train_cfg.dynamic_intervals.1: must be a list of 2, got 5. Write it in brackets. [FK011]",
        ],
    ),
    "FK011 component": (
        base(
            model={"type": ""},
            loss=[1],
            train_dataloader=L(dataset={"a": 1}),
            optim_wrapper={"optimizer": {"type": "SGD", 3: 1}},
        ),
        KNOWN,
        [
            "model.type: must be text, got ''. Write type=\"pkg.module:Name\". [FK011]",
            'train_dataloader.dataset: lacks the key "type". Add type="pkg.module:Name". [FK012]',
            "optim_wrapper.optimizer: has the key 3; argument names are text. Rename the key. [FK011]",
            "loss: must be a mapping or None, got [1]. Correct the value. [FK011]",
        ],
    ),
    "FK011 names": (
        validating(val_dataloader={3: L()}, default_hooks={4: None}),
        KNOWN,
        [
            "val_dataloader: has the key 3; names here are text. Put the name in quotes. [FK011]",
            "default_hooks: has the key 4; names here are text. Put the name in quotes. [FK011]",
        ],
    ),
    "FK012 many": (
        {
            "train_dataloader": {},
            "optim_wrapper": {},
            "train_cfg": {"by_epoch": True},
            "param_scheduler": [{}],
        },
        KNOWN,
        [
            'train_dataloader: lacks the key "dataset". Add "dataset". [FK012]',
            'optim_wrapper: lacks the key "optimizer". Add "optimizer". [FK012]',
            'train_cfg: lacks the key "max_epochs". Add "max_epochs". [FK012]',
            'param_scheduler.0: lacks the key "type". Known: ConstantLR, ConstantMomentum, ConstantParamScheduler, CosineAnnealingLR, CosineAnnealingMomentum, CosineAnnealingParamScheduler, CosineRestartLR, CosineRestartMomentum, CosineRestartParamScheduler, ExponentialLR, ExponentialMomentum, ExponentialParamScheduler, LinearLR, LinearMomentum, LinearParamScheduler, MultiStepLR, MultiStepMomentum, MultiStepParamScheduler, OneCycleLR, OneCycleMomentum, OneCycleParamScheduler, PolyLR, PolyMomentum, PolyParamScheduler, ReduceOnPlateauLR, ReduceOnPlateauMomentum, ReduceOnPlateauParamScheduler, StepLR, StepMomentum, StepParamScheduler. [FK012]',
            'model: is missing. Add model=dict(type="pkg.module:Name"). [FK012]',
        ],
    ),
    "FK012 loop": (
        base(train_cfg={}),
        KNOWN,
        [
            "train_cfg: lacks the length of the run. Add max_epochs (epoch loop) or max_iters (iteration loop). [FK012]",
        ],
    ),
    "FK012 clip": (
        base(optim_wrapper=W(clip_grad={"type": "value"})),
        KNOWN,
        [
            'optim_wrapper.clip_grad: lacks the key "clip_value". Add "clip_value" for type="value". [FK012]',
        ],
    ),
    "FK012 empty": (
        validating(val_dataloader=[]),
        evolve(KNOWN, val_samples=None),
        [
            "val_dataloader: is empty. Give at least one loader, or remove the group. [FK012]",
        ],
    ),
    "FK013": (
        base(
            strategy="DDPStratgy",
            param_scheduler={"type": "LinarLR"},
            optim_wrapper={"type": "pkg:W", "optimizer": "SGD"},
            custom_hooks=[{"type": "MyHook"}],
            visualizer={"vis_backends": ["Zzz"]},
            train_cfg={"type": "Loop"},
            env_cfg={"dist_cfg": {"backend": "ncl"}},
        ),
        KNOWN,
        [
            "optim_wrapper.type: 'pkg:W' is not a known optimizer wrapper. Known: AmpOptimWrapper, DeepSpeedOptimWrapper, OptimWrapper. [FK013]",
            "train_cfg.type: 'Loop' is not a known training loop. Known: EpochBasedTrainLoop, IterBasedTrainLoop, or \"pkg.module:Name\". [FK013]",
            "strategy.type: 'DDPStratgy' is not a known strategy. Did you mean \"DDPStrategy\"? [FK013]",
            "param_scheduler.0.type: 'LinarLR' is not a known schedule. Did you mean \"LinearLR\"? [FK013]",
            "custom_hooks.0.type: 'MyHook' is not a known hook. Did you mean \"EMAHook\"? [FK013]",
            "visualizer.vis_backends.0.type: 'Zzz' is not a known visualizer backend. Known: LocalVisBackend, MLflowVisBackend, TensorboardVisBackend, WandbVisBackend. [FK013]",
            "env_cfg.dist_cfg.backend: 'ncl' is not a torch.distributed backend. Known: nccl, gloo, mpi, ucc. [FK013]",
        ],
    ),
    "FK014 keys": (
        validating(
            optim_wrapper=W(constructor="X"),
        ),
        KNOWN,
        [
            "optim_wrapper.constructor: 'X' is a constructor of your own, and none is called here. Remove it, and write its groups as paramwise_cfg. [FK014]",
        ],
    ),
    "FK020 amp": (
        base(optim_wrapper={**AMP, "use_fsdp": True}),
        KNOWN,
        [
            "optim_wrapper.use_fsdp: shares a loss scale among ranks as FSDPStrategy needs it, and this is another strategy. Remove it, or use FSDPStrategy. [FK020]",
        ],
    ),
    "FK015": (
        base(model={"type": "pkg:M", "a": 2**70, "b": {1.5: 2}, "c": {(1, 2)}, "d": b"x", "e": lambda: 1}),
        KNOWN,
        [
            "model.a: is an integer beyond 64 bits. Use a smaller number. [FK015]",
            "model.b: has the key 1.5; keys are text or integers. Rename the key. [FK015]",
            "model.c: is a set holding more than scalars: {(1, 2)}. Use a list. [FK015]",
            "model.d: is bytes, which no config file can hold. Write text or numbers. [FK015]",
            "model.e: is tests.flexcore.test_messages:<lambda>, which no other process can import. Define it at module level. [FK015]",
        ],
    ),
    "FK016": (
        base(model={"type": "pkg:M", "a": object(), "c": Supplied()}, work_dir=Path("a")),
        KNOWN,
        [
            "model.a: is a live object (builtins.object), and a config holds plain data. Put flexcore.Supplied() here and pass the object to shell.execute(plan, ...). [FK016]",
            "model.c: holds flexcore.Supplied(), which only fills a slot of its own. Supply the model, loader, dataset, optimizer, metric or loss itself. [FK016]",
            "work_dir: is a live object (pathlib.PosixPath), and a config holds plain data. Write the path as text: str(path). [FK016]",
        ],
    ),
    "FK017": (
        base(
            strategy="ColossalAIStrategy",
            optim_wrapper={"type": "ApexOptimWrapper"},
            custom_hooks=[
                "NPUProfilerHook",
                {"type": "PrepareTTAHook", "tta_cfg": {"type": "Mine"}},
                {"type": "mmengine.hooks.NaiveVisualizationHook"},
            ],
            visualizer={"vis_backends": ["AimVisBackend"]},
            tta_model={"type": "Mine"},
        ),
        KNOWN,
        [
            'optim_wrapper.type: "ApexOptimWrapper" is retired. Use AmpOptimWrapper. [FK017]',
            'strategy.type: "ColossalAIStrategy" is retired. Use FSDPStrategy. [FK017]',
            'custom_hooks.0.type: "NPUProfilerHook" is retired. Use ProfilerHook. [FK017]',
            'custom_hooks.1.type: "PrepareTTAHook" is retired. Set test_cfg=dict(tta=dict(transforms=["identity", "hflip"])), with merge="pkg.module:function" for what merge_preds did. [FK017]',
            'custom_hooks.2.type: "NaiveVisualizationHook" is retired. Set test_cfg=dict(predictions="FILE") and draw from that file. [FK017]',
            'visualizer.vis_backends.0.type: "AimVisBackend" is retired. Use TensorboardVisBackend, WandbVisBackend or MLflowVisBackend. [FK017]',
            'tta_model: is retired. Set test_cfg=dict(tta=dict(transforms=["identity", "hflip"])), with merge="pkg.module:function" for what merge_preds did. [FK017]',
        ],
    ),
    "FK018": (
        {
            "model": "pkg:M",
            "train_cfg": {"by_epoch": True, "max_epochs": 1},
            "val_cfg": {},
            "test_evaluator": "pkg:M",
            "test_cfg": {},
        },
        KNOWN,
        [
            "train_dataloader: is missing while train_cfg is given; train_dataloader, train_cfg, optim_wrapper come together. Add train_dataloader and optim_wrapper, or remove train_cfg. [FK018]",
            "val_dataloader: is missing while val_cfg is given; val_dataloader, val_cfg, val_evaluator come together. Add val_dataloader and val_evaluator, or remove val_cfg. [FK018]",
            "test_dataloader: is missing while test_cfg and test_evaluator are given; test_dataloader, test_cfg, test_evaluator come together. Add test_dataloader, or remove test_cfg and test_evaluator. [FK018]",
        ],
    ),
    "FK019": (
        base(
            train_cfg={"by_epoch": True, "type": "EpochBasedTrainLoop", "max_epochs": 1},
            optim_wrapper=W(
                clip_grad={"max_norm": 1, "clip_value": 2}, optimizer={"type": "SGD", "params": 1}
            ),
            param_scheduler=[
                {"type": "CosineAnnealingLR", "eta_min": 0.1, "eta_min_ratio": 0.1},
                {"type": "LinearLR", "by_epoch": False, "convert_to_iter_based": True},
            ],
            custom_hooks=["LoggerHook"],
        ),
        KNOWN,
        [
            "optim_wrapper.optimizer.params: is the model's parameters, which the run fills in. Remove it. [FK019]",
            'optim_wrapper.clip_grad.clip_value: has "clip_value", which type="norm" does not use. Remove it, or choose the other type. [FK019]',
            'train_cfg: has both "type" and "by_epoch". Keep one of them. [FK019]',
            "param_scheduler.0.eta_min_ratio: is given with eta_min; both fix the floor. Keep one of them. [FK019]",
            "param_scheduler.1.convert_to_iter_based: converts epochs to iterations, but the schedule counts iterations already. Remove it. [FK019]",
            "custom_hooks.0: is a second LoggerHook; the run has one of each built-in. Set it in default_hooks under its own key. [FK019]",
        ],
    ),
    "FK019 loop": (
        base(train_cfg={"max_epochs": 1, "max_iters": 1}),
        KNOWN,
        [
            'train_cfg: has both "max_epochs" and "max_iters". Keep one of them. [FK019]',
        ],
    ),
    "FK020 ranges": (
        validating(
            global_batch_size=0,
            env_cfg={
                "hang_timeout": 0,
                "resource_limit": 0,
                "mp_cfg": {"opencv_num_threads": -1},
                "dist_cfg": {"timeout": 0},
            },
            log_processor={"window_size": 0, "num_digits": -1},
            randomness={"seed": -1},
            format_version=2,
            train_cfg={
                "by_epoch": True,
                "max_epochs": -1,
                "val_begin": -1,
                "val_interval": 0,
                "max_time": float("inf"),
                "dynamic_intervals": [[3, 0], [2, 1]],
            },
            optim_wrapper=W(
                accumulative_counts=0,
                clip_grad={"max_norm": -1, "norm_type": -2},
                optimizer={"type": "SGD", "lr": -1},
            ),
            train_dataloader=L(
                batch_size=0,
                num_workers=-1,
                timeout=-1,
                num_batch_per_epoch=0,
                sampler={"type": "DefaultSampler", "seed": -1},
            ),
            val_dataloader=L(sampler="InfiniteSampler"),
            auto_scale_lr={"base_batch_size": 0},
        ),
        KNOWN,
        [
            "train_dataloader.batch_size: must be at least 1, got 0. Correct the value. [FK020]",
            "train_dataloader.num_workers: must be at least 0, got -1. Correct the value. [FK020]",
            "train_dataloader.num_batch_per_epoch: must be at least 1, got 0. Correct the value. [FK020]",
            "train_dataloader.timeout: must be seconds >= 0, got -1.0. Correct the value. [FK020]",
            "train_dataloader.sampler.seed: must be at least 0, got -1. Correct the value. [FK020]",
            "optim_wrapper.accumulative_counts: must be at least 1, got 0. Correct the value. [FK020]",
            "optim_wrapper.optimizer.lr: must be a finite number >= 0, got -1. Correct the LR. [FK020]",
            "optim_wrapper.clip_grad.max_norm: must be a finite number > 0, got -1.0. Correct the value. [FK020]",
            "optim_wrapper.clip_grad.norm_type: must be a finite number > 0, got -2.0. Correct the value. [FK020]",
            "train_cfg.max_epochs: must be at least 0, got -1. Correct the value. [FK020]",
            "train_cfg.val_begin: must be at least 0, got -1. Correct the value. [FK020]",
            "train_cfg.val_interval: must be at least 1, got 0. Correct the value. [FK020]",
            "train_cfg.max_time: must be a finite number > 0, got inf. Correct the value. [FK020]",
            "train_cfg.dynamic_intervals.0.1: must be at least 1, got 0. Correct the value. [FK020]",
            "train_cfg.dynamic_intervals.1: starts at epoch 2, not after the one before (3). List milestones in rising order, from 1. [FK020]",
            "randomness.seed: must be at least 0, got -1. Correct the value. [FK020]",
            "val_dataloader.sampler.type: is endless, and an evaluation must end. Use DefaultSampler. [FK020]",
            "global_batch_size: must be at least 1, got 0. Correct the value. [FK020]",
            "env_cfg.resource_limit: must be at least 1, got 0. Correct the value. [FK020]",
            "env_cfg.mp_cfg.opencv_num_threads: must be at least 0, got -1. Correct the value. [FK020]",
            "env_cfg.dist_cfg.timeout: must be a finite number > 0, got 0.0. Correct the value. [FK020]",
            "env_cfg.hang_timeout: must be a finite number > 0, got 0.0. Correct the value. [FK020]",
            "log_processor.window_size: must be at least 1, got 0. Correct the value. [FK020]",
            "log_processor.num_digits: must be at least 0, got -1. Correct the value. [FK020]",
            "format_version: is 2; this release reads format 1. Update flexcore or write format_version=1. [FK020]",
            "auto_scale_lr.base_batch_size: must be at least 1, got 0. Correct the value. [FK020]",
        ],
    ),
    "FK020 schedules": (
        base(
            param_scheduler=[
                {"type": "LinearLR", "begin": -1, "start_factor": 2},
                {"type": "StepLR", "step_size": 0, "gamma": -1},
                {"type": "ExponentialLR", "gamma": 0, "convert_to_iter_based": True, "by_epoch": True},
                {"type": "MultiStepLR", "milestones": [3, 1]},
                {"type": "CosineAnnealingLR", "T_max": 0, "eta_min": -1},
                {"type": "ConstantLR", "factor": float("nan")},
            ]
        ),
        KNOWN,
        [
            "param_scheduler.0.begin: must be at least 0, got -1. Correct the value. [FK020]",
            "param_scheduler.0.start_factor: must be between 0 and 1, got 2.0. Correct the value. [FK020]",
            "param_scheduler.1.gamma: must be a finite number >= 0, got -1.0. Correct the value. [FK020]",
            "param_scheduler.1.step_size: must be at least 1, got 0. Correct the value. [FK020]",
            "param_scheduler.2.gamma: must be above 0 to be converted. Correct the value. [FK020]",
            "param_scheduler.3.milestones: are not in rising order: (3, 1). Sort them. [FK020]",
            "param_scheduler.4.eta_min: must be a finite number >= 0, got -1.0. Correct the value. [FK020]",
            "param_scheduler.4.T_max: must be at least 1, got 0. Correct the value. [FK020]",
            "param_scheduler.5.factor: must be a finite number >= 0, got nan. Correct the value. [FK020]",
        ],
    ),
    "FK020 hooks": (
        base(
            default_hooks={
                "logger": {"type": "LoggerHook", "interval": 0},
                **C(save_begin=-1, max_keep_ckpts=0, priority="MIDDLE"),
            },
            custom_hooks=[{"type": "pkg:H", "priority": 101}],
        ),
        KNOWN,
        [
            "default_hooks.logger.interval: must be at least 1, got 0. Correct the value. [FK020]",
            "default_hooks.checkpoint.priority: must be 0-100 or a priority's name, got 'MIDDLE'. Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]",
            "default_hooks.checkpoint.save_begin: must be at least 0, got -1. Correct the value. [FK020]",
            "default_hooks.checkpoint.max_keep_ckpts: must be -1 (all) or at least 1, got 0. Correct the value. [FK020]",
            "custom_hooks.0.priority: must be 0-100 or a priority's name, got 101. Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]",
        ],
    ),
    "FK020 own priority": (
        base(custom_hooks=["pkg:H"]),
        evolve(KNOWN, hooks=(HookFact(place=0, stages=(), priority="MIDDLE"),)),
        [
            "custom_hooks.0: has a class of priority 'MIDDLE'; it must be 0-100 or a priority's name. Names: HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST. [FK020]",
        ],
    ),
    "FK020 seed": (
        base(randomness={"seed": 2**32}),
        KNOWN,
        [
            "randomness.seed: must be below 2**32, got 4294967296. Pick a smaller seed. [FK020]",
        ],
    ),
    "FK021": (
        {"model": "pkg:M"},
        KNOWN,
        [
            "train_cfg: is missing, so there is nothing to train. Add train_dataloader, train_cfg and the rest of its group. [FK021]",
        ],
    ),
    "FK022": (
        validating(),
        evolve(KNOWN, val_samples=(1, 2)),
        [
            "val_dataloader: has 1 loaders, and 2 were observed. Observe this config's own datasets. [FK022]",
        ],
    ),
    "FD001": (
        validating(train_dataloader={"dataset": "pkg:D"}, val_dataloader={"a": {"dataset": "pkg:D"}}),
        KNOWN,
        [
            "train_dataloader.batch_size: is missing, and global_batch_size with accumulative_counts does not fix it. Set batch_size: samples per rank and micro-batch. [FD001]",
            "val_dataloader.a.batch_size: is missing. Set batch_size: samples per rank and batch. [FD001]",
        ],
    ),
    "FK020 pattern": (
        base(log_processor={"mean_pattern": "lo(ss"}),
        KNOWN,
        [
            "log_processor.mean_pattern: is not a regular expression: 'lo(ss': missing ), unterminated subpattern at position 2. Correct the pattern. [FK020]",
        ],
    ),
    "FC010 visualizer": (
        base(visualizer={"name": "../up"}),
        KNOWN,
        [
            "visualizer.name: is not a usable directory name: '../up'. Write a plain name. [FC010]",
        ],
    ),
    "FP007": (
        base(strategy="auto"),
        evolve(
            KNOWN,
            device_type="cuda",
            device_memory=2**30,
            parameters=(ParameterFact(name="w", shape=(2**28,)),),
        ),
        [
            'strategy: "auto" finds model states of 2 GiB (parameters, gradients, optimizer) for devices of 1 GiB. Use a smaller model or optimizer state, larger devices, or more ranks. [FP007]',
        ],
    ),
    "FSDP": (
        base(
            strategy={"type": "FSDPStrategy", "wrap": ["Blok"], "shard_size": 3, "skip_init_weights": True},
            optim_wrapper={"optimizer": {"type": "Adafactor", "lr": 0.1}},
        ),
        evolve(
            KNOWN,
            world_size=4,
            environment=(("RANK", "0"), ("WORLD_SIZE", "4")),
            modules=(ModuleFact(path="a", type="Block"),),
            parameters=(ParameterFact(name="a.w", shape=(2,)),),
        ),
        [
            "optim_wrapper.optimizer: Adafactor looks at whole parameters, and a rank holds a share of each. Use an optimizer that goes number by number, or DDPStrategy. [FP021]",
            "strategy.shard_size: 3 ranks cannot share a copy evenly in a world of 4. Use one of 1, 2, 4. [FP020]",
            "strategy.skip_init_weights: changes nothing: neither load_from nor resume brings weights, so they are initialised. Set load_from, or drop the key. [FP022]",
            "strategy.wrap.0: 'Blok' is the class of no module in the model. Did you mean \"Block\"? [FP023]",
            "strategy: gathers the whole model at once: no module is a unit of its own. Name the classes of its blocks in strategy.wrap. [FP024]",
        ],
    ),
    "FD011": (
        base(model={"type": "pkg:M", "data_preprocessor": {"type": "pkg:A"}}, data_preprocessor="pkg:B"),
        KNOWN,
        [
            "data_preprocessor: differs from model.data_preprocessor, which the model takes instead. Keep one of them. [FD011]",
        ],
    ),
    "FD011 equal": (
        base(model={"type": "pkg:M", "data_preprocessor": {"type": "A"}}, data_preprocessor={"type": "A"}),
        KNOWN,
        [],
    ),
    "FK019 batch sampler": (
        base(train_dataloader=L(batch_sampler={"type": "pkg:B", "batch_size": 2})),
        KNOWN,
        [
            "train_dataloader.batch_size: is given in the loader and in its batch_sampler. Keep one of them; the loader's is handed on. [FK019]",
        ],
    ),
    "iterable": (
        base(
            train_dataloader=L(sampler={"type": "DefaultSampler"}, batch_sampler={"type": "pkg:B"}),
            global_batch_size=None,
        ),
        evolve(KNOWN, train_samples=None, train_iterable=True),
        [
            "train_dataloader.num_batch_per_epoch: is missing, and the dataset has no length: its epochs have no end to plan. Set it to micro-batches per rank and epoch, or train by iterations: by_epoch=False. [FK012]",
            "train_dataloader.sampler: is given, and the dataset only iterates, in an order of its own. Remove it. [FK019]",
            "train_dataloader.batch_sampler: is given, and the dataset only iterates, in an order of its own. Remove it. [FK019]",
        ],
    ),
    "iterable global": (
        base(global_batch_size=8, train_cfg={"by_epoch": False, "max_iters": 9}),
        evolve(KNOWN, train_samples=None, train_iterable=True),
        [
            "global_batch_size: sets the clock to global batches, and the dataset only iterates, in an order of its own. Use accumulative_counts. [FD002]",
        ],
    ),
    "FD002 three": (
        base(global_batch_size=9, optim_wrapper=W(accumulative_counts=2)),
        KNOWN,
        [
            "global_batch_size: 9 contradicts micro_batch_size 4 x gradient_accumulation_steps 2 x data_parallel_size 1 = 8. Set global_batch_size=8, or leave one of them out. [FD002]",
        ],
    ),
    "FD002 two": (
        base(global_batch_size=9),
        KNOWN,
        [
            "global_batch_size: 9 is not a multiple of micro_batch_size 4 x data_parallel_size 1 = 4. Nearest valid: 8 or 12. [FD002]",
        ],
    ),
    "FD002 low": (
        base(global_batch_size=3),
        KNOWN,
        [
            "global_batch_size: 3 is not a multiple of micro_batch_size 4 x data_parallel_size 1 = 4. Nearest valid: 4. [FD002]",
        ],
    ),
    "FD002 opaque": (
        base(global_batch_size=9, train_dataloader=Supplied()),
        KNOWN,
        [
            "global_batch_size: sets the clock to global batches, which needs a training order flexcore deals itself. Use a dataset with DefaultSampler, or accumulative_counts. [FD002]",
        ],
    ),
    "FD003": (
        base(train_dataloader=L(batch_size=200, drop_last=True)),
        KNOWN,
        [
            "train_dataloader: gives epochs of no iterations: 0 micro-batches per rank, 1 an update. Lower batch_size or accumulation, or keep the short batch. [FD003]",
        ],
    ),
    "FD003 capped": (
        base(train_dataloader=L(batch_size=200, drop_last=True, num_batch_per_epoch=4)),
        KNOWN,
        [
            "train_dataloader: gives epochs of no iterations: 0 micro-batches per rank, 1 an update. Lower batch_size or accumulation, or keep the short batch. [FD003]",
        ],
    ),
    "FD003 iters": (
        base(
            train_cfg={"by_epoch": False, "max_iters": 3},
            optim_wrapper=W(accumulative_counts=4, accumulation_tail="drop"),
        ),
        KNOWN,
        [
            "train_cfg.max_iters: is 3, less than one accumulation window of 4, and the tail is dropped. Set max_iters to at least 4, or accumulation_tail to another than drop. [FD003]",
        ],
    ),
    "FD004": (
        base(launcher="pytorch", train_dataloader=L(sampler={"type": "DefaultSampler", "round_up": False})),
        evolve(KNOWN, world_size=3),
        [
            "train_dataloader.sampler.round_up: is false with 100 samples on 3 ranks: some ranks would run out first and the rest hang. Set round_up=True. [FD004]",
        ],
    ),
    "FD005": (
        base(train_dataloader=L(persistent_workers=True, prefetch_factor=2, timeout=3)),
        KNOWN,
        [
            "train_dataloader.persistent_workers: is true with num_workers=0. Set num_workers, or remove it. [FD005]",
            "train_dataloader.prefetch_factor: is 2 with num_workers=0. Set num_workers, or remove it. [FD005]",
            "train_dataloader.timeout: is 3.0 with num_workers=0. Set num_workers, or remove it. [FD005]",
        ],
    ),
    "FD006": (
        validating(val_dataloader=[L(sampler="DefaultSampler")]),
        KNOWN,
        [
            "val_dataloader.sampler.shuffle: shuffles an evaluation, which changes its order and nothing else. Set shuffle=False. [FD006]",
        ],
    ),
    "FS001": (
        base(param_scheduler=[{"type": "LinearLR", "begin": 5, "end": 3}, {"type": "LinearLR", "begin": 5}]),
        KNOWN,
        [
            "param_scheduler.0.end: is 3, not after begin=5. Set end above 5. [FS001]",
        ],
    ),
    "FS001 late": (
        base(param_scheduler=[{"type": "LinearLR", "begin": 5}]),
        KNOWN,
        [
            "param_scheduler.0.begin: is epoch 5, and the run ends at 3. Begin it before the run ends. [FS001]",
        ],
    ),
    "FS002": (
        base(
            param_scheduler=[
                {"type": "LinearLR", "start_factor": 0},
                {"type": "CosineAnnealingLR", "eta_min": 0.1},
            ]
        ),
        KNOWN,
        [
            "param_scheduler.0: starts at a factor of 0 while it meets a schedule that steps from value to value: no factor leads up from 0. Start above 0, or let one end where the other begins. [FS002]",
        ],
    ),
    "FS009": (
        base(
            param_scheduler=[
                {
                    "type": "ReduceOnPlateauLR",
                    "monitor": "acc",
                    "factor": 2,
                    "patience": -1,
                    "convert_to_iter_based": True,
                }
            ]
        ),
        KNOWN,
        [
            "param_scheduler.0.factor: must be below 1, or nothing is reduced, got 2.0. Correct the value. [FK020]",
            "param_scheduler.0.patience: must be at least 0, got -1. Correct the value. [FK020]",
            "param_scheduler.0.monitor: watches acc, and nothing is validated. Add val_dataloader, val_evaluator and val_cfg. [FS009]",
            "param_scheduler.0.convert_to_iter_based: converts epochs to iterations, but a plateau moves at validations only. Remove it. [FK019]",
        ],
    ),
    "FS010": (
        base(optim_wrapper=W(paramwise_cfg={"custom_keys": {"heads": {"lr_mult": 0.1}}})),
        evolve(KNOWN, parameters=(ParameterFact(name="head.weight", shape=(1,)),)),
        [
            'optim_wrapper.paramwise_cfg.custom_keys.heads: is in no parameter\'s name, so it changes nothing. Did you mean "head"? [FS010]',
        ],
    ),
    "FS011": (
        base(optim_wrapper=W(paramwise_cfg={"bias_decay_mult": 0.0})),
        KNOWN,
        [
            "optim_wrapper.paramwise_cfg.bias_decay_mult: multiplies weight_decay, which the optimizer's config does not give. Give weight_decay in optim_wrapper.optimizer. [FS011]",
        ],
    ),
    "FK020 cycles": (
        base(
            param_scheduler=[
                {"type": "OneCycleLR", "eta_max": 0, "pct_start": 1.5, "total_steps": 0},
                {
                    "type": "CosineRestartLR",
                    "periods": [3, 0],
                    "restart_weights": [-1.0],
                    "eta_min": 1,
                    "eta_min_ratio": 1,
                },
            ]
        ),
        KNOWN,
        [
            "param_scheduler.0.eta_max: must be a finite number above 0, got 0.0. Correct the value. [FK020]",
            "param_scheduler.0.pct_start: must be between 0 and 1, got 1.5. Correct the value. [FK020]",
            "param_scheduler.0.total_steps: must be at least 1, got 0. Correct the value. [FK020]",
            "param_scheduler.1.eta_min_ratio: is given with eta_min; both fix the floor. Keep one of them. [FK019]",
            "param_scheduler.1.periods: must be whole numbers of at least 1, got (3, 0). Correct the value. [FK020]",
            "param_scheduler.1.restart_weights: are 1 for 2 periods. Give one a period. [FK020]",
            "param_scheduler.1.restart_weights: must be finite numbers >= 0, got (-1.0,). Correct the value. [FK020]",
        ],
    ),
    "FS003": (
        base(
            train_cfg={"by_epoch": False, "max_iters": 3},
            param_scheduler=[{"type": "LinearLR", "by_epoch": True}],
            default_hooks=C(by_epoch=True),
        ),
        KNOWN,
        [
            "param_scheduler.0.by_epoch: counts epochs, and the iteration loop has none. Set by_epoch=False and give begin and end in iterations. [FS003]",
            "default_hooks.checkpoint.by_epoch: counts epochs, and the iteration loop has none. Set by_epoch=False and give the interval in iterations. [FS003]",
        ],
    ),
    "FS004": (
        base(auto_scale_lr={"enable": True}),
        KNOWN,
        [
            "auto_scale_lr: is enabled without base_batch_size, the batch the LR was tuned for. Add base_batch_size. [FS004]",
        ],
    ),
    "FS005": (
        {
            "model": "pkg:M",
            "param_scheduler": [],
            **{k: v for k, v in validating().items() if k.startswith("val")},
        },
        KNOWN,
        [
            "param_scheduler: is given without optim_wrapper, whose parameters it would move. Add optim_wrapper or remove param_scheduler. [FS005]",
            "train_cfg: is missing, so there is nothing to train. Add train_dataloader, train_cfg and the rest of its group. [FK021]",
        ],
    ),
    "FS006": (
        base(param_scheduler=S(), default_hooks={"param_scheduler": None}),
        KNOWN,
        [
            "default_hooks.param_scheduler: removes the hook that sets scheduled values, so no schedule has any effect. Keep the hook or drop param_scheduler. [FS006]",
        ],
    ),
    "FS007": (
        base(param_scheduler=S(begin=5, end=9)),
        KNOWN,
        [
            "param_scheduler.0.begin: is epoch 5, and the run ends at 3. Train for longer, begin it earlier or remove it. [FS007]",
        ],
    ),
    "FS008": (
        base(param_scheduler={"type": "StepMomentum"}),
        evolve(KNOWN, parameter_groups=(GroupFact(values=(("lr", 0.1),)),)),
        [
            "param_scheduler.0: moves 'momentum', and a group of the optimizer has lr. Schedule a key the optimizer has. [FS008]",
        ],
    ),
    "FC001": (
        base(resume="a", load_from="b"),
        KNOWN,
        [
            "resume: names 'a' while load_from names 'b'; a run starts from one. Keep resume, or write resume=True with load_from. [FC001]",
        ],
    ),
    "FC002": (
        validating(default_hooks=C(save_best="fid")),
        KNOWN,
        [
            'default_hooks.checkpoint.save_best: cannot tell whether more or less of \'fid\' is better. Add rule="greater" or rule="less". [FC002]',
        ],
    ),
    "FC002 rules": (
        validating(default_hooks=C(save_best=["a", "b"], rule=["less", "less", "more"])),
        KNOWN,
        [
            'default_hooks.checkpoint.rule: must be "greater" or "less", got \'more\'. Correct the rule. [FC002]',
            "default_hooks.checkpoint.rule: gives 3 rules for 2 metrics. Give one rule, or one per metric. [FC002]",
        ],
    ),
    "FC002 auto": (
        validating(default_hooks=C(save_best=["auto", "b"])),
        KNOWN,
        [
            'default_hooks.checkpoint.save_best: mixes "auto" with names. Use "auto" alone or name all. [FC002]',
        ],
    ),
    "FC002 twice": (
        validating(default_hooks=C(save_best=["acc", "acc"])),
        KNOWN,
        [
            "default_hooks.checkpoint.save_best: names 'acc' twice. Name each metric once. [FC002]",
        ],
    ),
    "FK020 minutes": (
        base(default_hooks=C(interval_minutes=0)),
        KNOWN,
        [
            "default_hooks.checkpoint.interval_minutes: must be a finite number > 0, got 0.0. Correct the value. [FK020]",
        ],
    ),
    "FC004 by time": (
        base(default_hooks=C(filename_tmpl="timed_iter_{}")),
        KNOWN,
        [
            (
                "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got 'timed_iter_{}'. "
                'Write, for example, "epoch_{}". [FC004]'
            ),
        ],
    ),
    "FK010 instead": (
        base(
            strategy={"type": "DDPStrategy", "mixed_precision": {}, "model_wrapper": {}},
            launcher="pytorch",
            cfg={},
        ),
        W4,
        [
            (
                "strategy.mixed_precision: is not a setting of DDPStrategy. "
                """Write optim_wrapper=dict(type="AmpOptimWrapper", ...): autocast is the plan's. [FK010]"""
            ),
            (
                "strategy.model_wrapper: is not a setting of DDPStrategy. "
                "Write its settings, such as find_unused_parameters, in the strategy itself. [FK010]"
            ),
            "cfg: is not a setting of the config. Remove it: the config is what you pass. [FK010]",
        ],
    ),
    "compile": (
        base(compile={"back": "eager", "fullgraph": 1, "mode": "max", "options": {"a": 1}, "target": 3}),
        KNOWN,
        [
            'compile.back: is not a setting of torch.compile. Did you mean "backend"? [FK010]',
            "compile.fullgraph: must be true or false, got 1. Correct the value. [FK011]",
            "compile.target: must be text, got 3. Correct the value. [FK011]",
            (
                "compile.mode: 'max' is not a mode of torch.compile. "
                "Known: default, reduce-overhead, max-autotune, max-autotune-no-cudagraphs. [FK020]"
            ),
            "compile.options: is given with mode, and torch.compile takes one of them. Keep one of them. [FK019]",
        ],
    ),
    "FC010 far away": (
        base(resume=True, load_from="https://host/net.pth"),
        KNOWN,
        [
            (
                "load_from: is 'https://host/net.pth', and what is resumed must be looked at before the run: it is not "
                "fetched. Download it and name the file, or take its weights alone: resume=False. [FC010]"
            ),
        ],
    ),
    "FK020 revise_keys": (
        base(
            load_from={
                "path": "w.pth",
                "revise_keys": [["^a", "b"], ["(", ""], ["(a)", r"\2"], ["a", r"\g<n>"]],
            }
        ),
        KNOWN,
        [
            (
                "load_from.revise_keys.1.0: is not a regular expression: '(': missing ), unterminated subpattern at "
                "position 0. Correct the pattern. [FK020]"
            ),
            (
                "load_from.revise_keys.2.1: does not fit its pattern: '\\\\2': invalid group reference 2 at position 1. "
                "Name the groups that the pattern has. [FK020]"
            ),
            (
                "load_from.revise_keys.3.1: does not fit its pattern: '\\\\g<n>': unknown group name 'n'. "
                "Name the groups that the pattern has. [FK020]"
            ),
        ],
    ),
    "FK019 settings for weights alone": (
        base(resume=True, load_from={"path": "w.pth", "strict": False}),
        KNOWN,
        [
            (
                "load_from: has settings for weights alone, and with resume=True all of a checkpoint is taken as it is. "
                "Name the path alone, or write resume=False. [FK019]"
            ),
        ],
    ),
    "FK010 load_from": (
        base(load_from={"path": " ", "revise": 1}),
        KNOWN,
        ['load_from.revise: is not a setting of LoadFrom. Did you mean "revise_keys"? [FK010]'],
    ),
    "FC005 mmengine": (
        base(resume=True, global_batch_size=16),
        evolve(resumed(), checkpoints=(checkpoint(50, writer="mmengine", trajectory=None),)),
        [
            (
                "resume: 'w/checkpoints/iter_50' is mmengine's, which counts iterations in micro-batches; with "
                "global_batch_size they are global batches. Drop global_batch_size, or take its weights alone with "
                "load_from and resume=False. [FC005]"
            ),
        ],
    ),
    "FS003 buffers": (
        base(train_cfg={"by_epoch": False, "max_iters": 9}, custom_hooks=[{"type": "SyncBuffersHook"}]),
        KNOWN,
        [
            (
                "custom_hooks.0: averages at epochs' ends, and the iteration loop has none. "
                "Remove it; evaluations use rank 0's buffers, which are those that are saved. [FS003]"
            ),
        ],
    ),
    "FC010 out_dir": (
        base(default_hooks=C(out_dir="big"), work_dir="runs/.."),
        KNOWN,
        [
            (
                "default_hooks.checkpoint.out_dir: takes the last part of work_dir, and 'runs/..' ends in none. "
                "Write work_dir with a name at its end. [FC010]"
            ),
        ],
    ),
    "FC010 out_dir empty": (
        base(default_hooks=C(out_dir=" ")),
        KNOWN,
        [
            "default_hooks.checkpoint.out_dir: is not a usable path: ' '. Write a plain path, or remove it. [FC010]",
        ],
    ),
    "FK014 storage": (
        base(default_hooks=C(out_dir="s3://bucket", backend_args={"backend": "petrel", "enable_mc": True})),
        KNOWN,
        [
            (
                "default_hooks.checkpoint.out_dir: is 's3://bucket'; checkpoints are kept in a local file system. "
                "Mount the storage and name a directory of it in out_dir. [FK014]"
            ),
            (
                "default_hooks.checkpoint.backend_args.backend: is 'petrel'; checkpoints are kept in a local file system. "
                "Mount the storage and name a directory of it in out_dir. [FK014]"
            ),
            (
                "default_hooks.checkpoint.backend_args.enable_mc: is True; checkpoints are kept in a local file system. "
                "Mount the storage and name a directory of it in out_dir. [FK014]"
            ),
        ],
    ),
    "FK019 storage": (
        base(default_hooks=C(backend_args={"backend": "local"}, file_client_args={"backend": "disk"})),
        KNOWN,
        [
            (
                "default_hooks.checkpoint.file_client_args: is given with backend_args, and both say where checkpoints are "
                "kept. Keep backend_args, or neither. [FK019]"
            ),
        ],
    ),
    "FK019 schedulers": (
        validating(
            default_hooks=C(save_param_scheduler=False),
            param_scheduler=[{"type": "ReduceOnPlateauLR", "monitor": "top_accuracy", "rule": "greater"}],
        ),
        KNOWN,
        [
            (
                "default_hooks.checkpoint.save_param_scheduler: is false, and what ReduceOnPlateauLR has gathered decides the "
                "LR after a resume. Remove it, or save_optimizer=False for weights alone. [FK019]"
            ),
        ],
    ),
    "FC003": (
        base(default_hooks=C(save_best="acc")),
        KNOWN,
        [
            "default_hooks.checkpoint.save_best: watches 'acc', but the config has no validation. Add val_dataloader, val_cfg and val_evaluator. [FC003]",
        ],
    ),
    "FC004": (
        base(default_hooks=C(filename_tmpl="epoch")),
        KNOWN,
        [
            "default_hooks.checkpoint.filename_tmpl: must be a plain file name with one {}, got 'epoch'. Write, for example, \"epoch_{}\". [FC004]",
        ],
    ),
    "FD012": (
        base(train_dataloader=L(batch_sampler={"type": "pkg:Own"}, batch_size=None)),
        evolve(KNOWN, train_batches=4, most_train_batches=6, world_size=2),
        [
            (
                "train_dataloader: has 4 to 6 micro-batches on a rank; a pass is 4 on each, so that none waits for another, "
                "and what a rank has besides is left out. Give each rank as many. [FD012]"
            ),
        ],
    ),
    "FD012 cut short": (
        base(train_dataloader=L(batch_sampler={"type": "pkg:Own"}, batch_size=None, num_batch_per_epoch=4)),
        evolve(KNOWN, train_batches=4, most_train_batches=6, world_size=2),
        [],
    ),
    "FD012 not as short": (
        base(train_dataloader=L(batch_sampler={"type": "pkg:Own"}, batch_size=None, num_batch_per_epoch=5)),
        evolve(KNOWN, train_batches=4, most_train_batches=6, world_size=2),
        [
            (
                "train_dataloader: has 4 to 6 micro-batches on a rank; a pass is 4 on each, so that none waits for another, "
                "and what a rank has besides is left out. Give each rank as many. [FD012]"
            ),
        ],
    ),
    "FD012 unknown": (
        base(train_dataloader=L(batch_sampler={"type": "pkg:Own"}, batch_size=None)),
        evolve(KNOWN, most_train_batches=6, world_size=2),
        [],
    ),
    "FC005": (
        base(resume=True),
        resumed(trajectory=(("model", '"x"'), ("loss", '"y"'), ("length", "1"))),
        [
            "resume: 'w/checkpoints/iter_50' was trained with loss \"y\", this run has null (trajectory-changing). Nothing to do if meant. [FC005]",
            'resume: \'w/checkpoints/iter_50\' was trained with model "x", this run has {"type":"pkg.models:Net","width":8} (incompatible). Restore the setting, or start in another work_dir. [FC005]',
        ],
    ),
    "FC005 shorter": (
        base(resume=True, train_cfg={"by_epoch": True, "max_epochs": 1}),
        resumed(),
        [
            "resume: 'w/checkpoints/iter_50' has done 50 iterations and this run ends at 25. Train for longer, or start in another work_dir. [FC005]",
        ],
    ),
    "FC006": (
        base(default_hooks=C(interval=-1, save_last=False)),
        KNOWN,
        [
            "default_hooks.checkpoint: saves nothing: no interval, no last, no best. Set interval or save_last=True. [FC006]",
        ],
    ),
    "FC011": (
        base(resume=True, custom_hooks=[{"type": "pkg.hooks:Counter"}]),
        resumed(hooks=("CheckpointHook", "ParamSchedulerHook", "pkg.hooks.Counter", "pkg.hooks.Counter#2")),
        [
            (
                "custom_hooks: has no pkg.hooks.Counter#2, whose state 'w/checkpoints/iter_50' holds; it is left behind. "
                "Register the hook again, or nothing if meant. [FC011]"
            ),
        ],
    ),
    "FC009": (
        base(resume="x"),
        evolve(KNOWN, named_checkpoint=checkpoint(5, resumable=False)),
        [
            "resume: 'w/checkpoints/iter_5' holds weights only: saved inside an accumulation window, or with save_optimizer=False. Resume another checkpoint, or use load_from. [FC009]",
        ],
    ),
    "FC010": (
        base(resume="", load_from="\0", work_dir=" ", experiment_name="a/b"),
        KNOWN,
        [
            "work_dir: is not a usable name: ' '. Write a plain path or name. [FC010]",
            "experiment_name: holds a path separator: 'a/b'. Use work_dir for that. [FC010]",
            "resume: names '' while load_from names '\\x00'; a run starts from one. Keep resume, or write resume=True with load_from. [FC001]",
            "resume: is not a usable path: ''. Name a checkpoint or remove it. [FC010]",
            "load_from: is not a usable path: '\\x00'. Name a checkpoint or remove it. [FC010]",
        ],
    ),
    "FP001": (
        base(strategy="DDPStrategy", launcher="none"),
        KNOWN,
        [
            "strategy: DDPStrategy shares a model among ranks, and no launcher started any. Run with --nproc N or torchrun, or use SingleDeviceStrategy. [FP001]",
        ],
    ),
    "FP002": (
        base(launcher="slurm"),
        evolve(KNOWN, environment=(("RANK", "0"),)),
        [
            'launcher: is "slurm", but its variables are not in the environment. Start with that launcher, or remove the key. [FP002]',
        ],
    ),
    "FP003": (
        base(strategy="SingleDeviceStrategy"),
        W4,
        [
            "strategy: SingleDeviceStrategy in a world of 4 ranks would train 4 unrelated models. Use DDPStrategy, or start one process. [FP003]",
        ],
    ),
    "FP004": (
        validating(optim_wrapper=AMP, val_cfg={"fp16": True}),
        CUDA,
        [
            'optim_wrapper.dtype: float16 autocast is not supported on this cuda device. Set dtype="bfloat16". [FP004]',
            "val_cfg.fp16: float16 is not supported on this cuda device. Set fp16=False. [FP004]",
        ],
    ),
    "FP004 bf16": (
        base(optim_wrapper=AMP),
        evolve(KNOWN, supports_bf16=False),
        [
            "optim_wrapper.dtype: bfloat16 autocast is not supported on this cpu device. Use OptimWrapper. [FP004]",
        ],
    ),
    "FP005": (
        base(env_cfg={"dist_cfg": {"backend": "nccl"}}),
        KNOWN,
        [
            'env_cfg.dist_cfg.backend: "nccl" moves cuda tensors, and this run is on cpu. Leave backend out, or use gloo. [FP005]',
        ],
    ),
    "FP006": (
        base(optim_wrapper={**AMP, "dtype": "bfloat16", "loss_scale": 512}),
        KNOWN,
        [
            "optim_wrapper.loss_scale: is 512.0 with dtype bfloat16, which needs no loss scaling; it has no effect. Remove it, or use float16. [FP006]",
        ],
    ),
    "FP030": (
        deep(
            {
                "config": {
                    "optimizer": {"type": "Adam"},
                    "scheduler": {"type": "WarmupLR"},
                    "dataloader_drop_last": True,
                    "data_efficiency": {},
                    "checkpoint": {},
                    "amp": {"enabled": True},
                    "pipeline": {},
                    "zero_optimization": {"zenflow": {}, "cpu_offload": True},
                }
            },
            optim_wrapper={"type": "AmpOptimWrapper", "optimizer": "AdamW", "dtype": "float16"},
        ),
        evolve(TWO, supports_fp16=True),
        [
            'optim_wrapper.dtype: float16 autocast scales the loss outside the engine, which would not know. Set dtype="bfloat16", or use OptimWrapper and strategy.fp16=dict(enabled=True). [FP030]',
            "strategy.config.optimizer: builds an optimizer of the engine's own. Write it as optim_wrapper.optimizer. [FP030]",
            "strategy.config.scheduler: moves the LR a second time. Write it as param_scheduler. [FP030]",
            "strategy.config.dataloader_drop_last: is of a loader the engine builds. Set train_dataloader.drop_last. [FP030]",
            "strategy.config.data_efficiency: changes which samples are drawn. Remove it. [FP030]",
            "strategy.config.checkpoint: is of DeepSpeed's own checkpoints, which are not written. Set default_hooks.checkpoint. [FP030]",
            "strategy.config.amp: is gone from DeepSpeed. Write bf16=dict(enabled=True), or use AmpOptimWrapper. [FK017]",
            "strategy.config.pipeline: is known but not built yet. Remove it. [FK014]",
            "strategy.config.zero_optimization.zenflow: is known but not built yet. Remove it. [FK014]",
            'strategy.config.zero_optimization.cpu_offload: is deprecated. Write offload_optimizer=dict(device="cpu"). [FK017]',
        ],
    ),
    "FP031": (
        deep(
            {
                "gradient_clipping": "auto",
                "train_micro_batch_size_per_gpu": "auto",
                "bf16": {"enabled": "auto"},
                "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"},
                "config": {"data_types": {"keep_in_fp32_modules": "auto"}, "prescale_gradients": "auto"},
            }
        ),
        TWO,
        [
            'strategy.config.prescale_gradients: "auto" is for a trainer to fill in, and nothing here says how. Write a value, or leave it out for DeepSpeed\'s default. [FP031]',
            'strategy.zero_optimization.reduce_bucket_size: "auto" is for a trainer to fill in, and nothing here says how. Write a value, or leave it out for DeepSpeed\'s default. [FP031]',
        ],
    ),
    "FP032": (
        deep(
            {"zero_optimization": {"stage": 3}},
            optim_wrapper={"optimizer": {"type": "Adafactor"}},
            custom_hooks=[
                {"type": "EMAHook"},
                {"type": "NaNGuardHook", "check": "gradient"},
            ],
        ),
        TWO,
        [
            "optim_wrapper.optimizer.type: Adafactor cannot step flat shares of parameters, which ZeRO gives it. Use AdamW, or zero_optimization=dict(stage=0). [FP032]",
            "custom_hooks.0: EMAHook averages the model's parameters, and they are shared out, at ZeRO stage 3. Use stage 2 or less without bf16 and fp16, or remove the hook. [FP032]",
            'custom_hooks.1: NaNGuardHook can see no gradient and take no update back inside DeepSpeed\'s engine. Use action="stop", check="loss" and interval=1. [FP032]',
        ],
    ),
    "FP032 bf16 and an optimizer of one's own": (
        deep(
            {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}},
            optim_wrapper={"optimizer": {"type": "pkg:Mine", "lr": 0.1}},
            default_hooks={"ema": {"type": "EMAHook"}},
        ),
        TWO,
        [
            "optim_wrapper.optimizer: is not torch's, and ZeRO gives it flat shares of parameters. If it treats each element alone, set zero_allow_untested_optimizer=True in strategy.config. [FP032]",
            "default_hooks.ema: EMAHook averages the model's parameters, and they are in half precision. Use stage 2 or less without bf16 and fp16, or remove the hook. [FP032]",
        ],
    ),
    "DeepSpeed's keys": (
        deep(
            {
                "gradient_acumulation_steps": 4,
            }
        ),
        TWO,
        [
            'strategy.gradient_acumulation_steps: is not a setting of DeepSpeedStrategy. Did you mean "gradient_accumulation_steps"? [FK010]',
        ],
    ),
    "DeepSpeed's keys, in its own configuration": (
        deep(
            {
                "config": {
                    "gradient_acumulation_steps": 4,
                    "zzz": 1,
                    "train_batch_size": 2.5,
                    "communication_data_type": "fp8",
                    "zero_optimization": {
                        "stagee": 1,
                        "stage": 4,
                        "overlap_comm": 1,
                        "leaf_module": {"clases": []},
                        "offload_optimizer": {"device": "nvme"},
                        "offload_param": {"device": "cpu"},
                    },
                    "comms_logger": [],
                },
                "fp16": {"enable": True},
                "activation_checkpointing": {"profile": "x"},
                "aio": {"block_size": 1},
            }
        ),
        TWO,
        [
            'strategy.config.gradient_acumulation_steps: is not a key of DeepSpeed\'s configuration, which would ignore it. Did you mean "gradient_accumulation_steps"? [FK010]',
            "strategy.config.zzz: is not a key of DeepSpeed's configuration, which would ignore it. Remove it. [FK010]",
            "strategy.config.train_batch_size: must be an integer, got 2.5. Correct the value. [FK011]",
            'strategy.config.communication_data_type: must be one of "fp32", "fp16", "bf16", got \'fp8\'. Pick one of them. [FK011]',
            'strategy.config.zero_optimization.stagee: is not a key of DeepSpeed\'s zero_optimization, which would ignore it. Did you mean "stage"? [FK010]',
            "strategy.config.zero_optimization.overlap_comm: must be true or false, got 1. Correct the value. [FK011]",
            'strategy.config.zero_optimization.leaf_module.clases: is not a key of DeepSpeed\'s zero_optimization.leaf_module, which would ignore it. Did you mean "classes"? [FK010]',
            "strategy.config.comms_logger: must be a mapping, got []. Write dict(...). [FK011]",
            'strategy.fp16.enable: is not a key of DeepSpeed\'s fp16, which would ignore it. Did you mean "enabled"? [FK010]',
            "strategy.activation_checkpointing.profile: must be true or false, got 'x'. Correct the value. [FK011]",
            "strategy.aio: is of offloading to NVMe, which is known but not built yet. Remove it. [FK014]",
            "strategy.config.zero_optimization.stage: must be 0, 1, 2 or 3, got 4. Correct the value. [FK020]",
            'strategy.config.zero_optimization.offload_optimizer.device: "nvme" is known but not built yet. Write "cpu". [FK014]',
        ],
    ),
    "DeepSpeed against the plan": (
        deep(
            {
                "config": {
                    "train_batch_size": 9,
                    "gradient_clipping": 2.0,
                    "torch_autocast": {"enabled": True},
                },
                "train_micro_batch_size_per_gpu": 3,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": 0.5,
            },
            optim_wrapper={"optimizer": "AdamW", "clip_grad": {"max_norm": 1.0}},
            compile=True,
        ),
        TWO,
        [
            "optim_wrapper.clip_grad: has max_norm=1.0, and strategy.gradient_clipping is 0.5. Keep one of them. [FK019]",
            "strategy.gradient_clipping: is set here and, differently, in config. Keep one of the two. [FK019]",
            "strategy.config.torch_autocast: has enabled=True, and optim_wrapper says otherwise. Remove it; AmpOptimWrapper switches autocast on. [FK019]",
            "compile: is known but not built yet with DeepSpeedStrategy. Remove it, or use DDPStrategy. [FK014]",
        ],
    ),
    "DeepSpeed's batch": (
        deep(
            {
                "config": {"train_batch_size": 9},
                "train_micro_batch_size_per_gpu": 3,
                "gradient_accumulation_steps": 2,
            }
        ),
        TWO,
        [
            "strategy.config.train_batch_size: is 9, and the plan's is 8. Remove it, or set global_batch_size. [FD002]",
            "strategy.train_micro_batch_size_per_gpu: is 3, and the plan's is 4. Remove it, or set train_dataloader.batch_size. [FD002]",
            "strategy.gradient_accumulation_steps: is 2, and the plan's is 1. Remove it, or set optim_wrapper.accumulative_counts. [FD002]",
        ],
    ),
    "DeepSpeed's precision": (
        deep(
            {
                "bf16": {"enabled": True},
                "fp16": {"enabled": True},
                "zero_optimization": {"offload_param": {"device": "cpu"}},
            },
            optim_wrapper={"type": "AmpOptimWrapper", "optimizer": "AdamW", "dtype": "float16"},
        ),
        evolve(TWO, supports_bf16=False, supports_fp16=False),
        [
            "optim_wrapper.dtype: float16 autocast is not supported on this cpu device. Use OptimWrapper. [FP004]",
            "optim_wrapper.dtype: computes in float16, and strategy.bf16 in bfloat16. Keep one of them. [FK019]",
            "strategy.zero_optimization.offload_param: needs ZeRO stage 3 or more, and the stage is 0. Set stage=3. [FK020]",
            "strategy.bf16: is not supported on this cpu device. Remove bf16. [FP004]",
            "strategy.bf16: is known but not built yet at ZeRO stage 0, where no full-precision copy is shared out. Set zero_optimization=dict(stage=1). [FK014]",
            "strategy.fp16: is not supported on this cpu device. Remove fp16. [FP004]",
            "strategy.fp16: is known but not built yet at ZeRO stage 0, where no full-precision copy is shared out. Set zero_optimization=dict(stage=1). [FK014]",
            "strategy.fp16: is enabled, and so is bf16. Keep one of them. [FK019]",
        ],
    ),
    "DeepSpeed's clipping": (
        deep(
            {"gradient_clipping": -1.0},
            optim_wrapper=W(clip_grad={"type": "value", "clip_value": 0.1, "error_if_nonfinite": True}),
        ),
        TWO,
        [
            "optim_wrapper.clip_grad.type: clips by value, and DeepSpeed clips by the total norm alone. Write clip_grad=dict(max_norm=...). [FK014]",
            "optim_wrapper.clip_grad.error_if_nonfinite: is known but not built yet with DeepSpeedStrategy. Use NaNGuardHook. [FK014]",
            "strategy.gradient_clipping: must be >= 0, got -1.0. Correct it. [FK020]",
        ],
    ),
    "DeepSpeed and several optimizers": (
        deep({"zero_optimization": {"stage": 2}}, optim_wrapper={"one": W(), "other": W()}),
        TWO,
        [
            "strategy: DeepSpeedStrategy with several optimizers is understood but not built yet. Use DDPStrategy or SingleDeviceStrategy. [FK014]",
        ],
    ),
    "DeepSpeed's norm and file": (
        deep({"config": "ds.json"}, optim_wrapper=W(clip_grad={"max_norm": 1.0, "norm_type": 1})),
        TWO,
        [
            "optim_wrapper.clip_grad.norm_type: is 1, and DeepSpeed clips by the norm of type 2. Remove it. [FK014]",
            "strategy.config: is the file 'ds.json', and a plan reads none. Write the file's content as a mapping, or keep the config in a file: what it names is read with it. [FK015]",
        ],
    ),
    "FR002": (
        base(randomness={"seed": 1, "deterministic": True}, env_cfg={"cudnn_benchmark": True}),
        KNOWN,
        [
            "env_cfg.cudnn_benchmark: is true with randomness.deterministic; deterministic wins. Drop one of them. [FR002]",
        ],
    ),
}

INFOS: dict[str, tuple[Any, Facts, list[str]]] = {
    "FK025": (
        base(train_cfg={"type": "pkg:Loop", "max_epochs": 2}),
        KNOWN,
        [
            "train_cfg.type: is a loop of your own: when it validates, ends an epoch and ends is not planned, nor compared. Use by_epoch=True or False for a run planned whole. [FK025]"
        ],
    ),
    "FD007": (
        base(train_dataloader=L(batch_size=64, drop_last=True)),
        KNOWN,
        [
            "train_dataloader: leaves out 36 samples in every epoch. Change batch_size or drop_last if unwanted. [FD007]",
        ],
    ),
    "FD008": (
        base(global_batch_size=64, train_dataloader=L(batch_size=64)),
        KNOWN,
        [
            (
                "train_dataloader: uses 28 samples twice in every epoch to fill the last batch. "
                "Set drop_last=True to leave a short batch out. [FD008]"
            ),
        ],
    ),
    "FD009": (
        base(train_dataloader=L(sampler={"type": "pkg.data:Sampler"})),
        KNOWN,
        [
            (
                "train_dataloader: has an order of its own, which is not planned; a resume replays it from the epoch's start. "
                "Use a dataset with DefaultSampler for exact resume. [FD009]"
            ),
        ],
    ),
    "FK023": (
        base(default_scope="mmdet", runner_type="FlexibleRunner"),
        KNOWN,
        [
            "default_scope: is 'mmdet' and changes nothing: there are no registries, types are import paths. Nothing to do. [FK023]",
            "runner_type: is 'FlexibleRunner' and changes nothing: there are no registries, types are import paths. Nothing to do. [FK023]",
        ],
    ),
    "FD009 workers": (
        base(
            train_dataloader=L(sampler={"type": "pkg.data:Sampler"}, num_workers=1, persistent_workers=True)
        ),
        KNOWN,
        [
            (
                "train_dataloader: has an order of its own, which is not planned; a resume replays it from the epoch's start, "
                "and workers start anew for each pass in spite of persistent_workers. "
                "Use a dataset with DefaultSampler for exact resume. [FD009]"
            ),
        ],
    ),
    "FD010": (
        base(train_cfg={"by_epoch": False, "max_iters": 9}),
        evolve(KNOWN, train_samples=None, train_iterable=True, world_size=2),
        [
            (
                "train_dataloader.dataset: only iterates; what each rank reads of it is the dataset's own business. "
                "Let it yield other samples on each rank. [FD010]"
            ),
        ],
    ),
    "FD010 alone": (
        base(train_cfg={"by_epoch": False, "max_iters": 9}),
        evolve(KNOWN, train_samples=None, train_iterable=True),
        [
            "train_dataloader.dataset: only iterates. Nothing to do on one rank. [FD010]",
        ],
    ),
    "FC005": (
        base(resume=True),
        resumed(trajectory=(("length", "1"),)),
        [
            (
                'resume: \'w/checkpoints/iter_50\' was trained with length 1, this run has {"max_epochs":3,"max_iters":75} (resume-safe). '
                "Nothing to do if meant. [FC005]"
            ),
        ],
    ),
    "FC007": (
        base(resume=True),
        evolve(KNOWN, checkpoints=(checkpoint(75),)),
        [
            (
                "resume: 'w/checkpoints/iter_75' is at the end of the run already; nothing is left to train. "
                "Raise the run's length to go on. [FC007]"
            ),
        ],
    ),
    "FC008": (
        base(resume=True),
        KNOWN,
        [
            "resume: resume=True found no complete checkpoint in work_dir; the run starts fresh. Nothing to do on a first run. [FC008]",
        ],
    ),
    "FC008 unknown": (
        base(resume=True),
        Facts(),
        [
            "resume: resume=True, but work_dir has not been looked at; the run starts fresh. Nothing to do on a first run. [FC008]",
        ],
    ),
    "FK023 schedulers": (
        base(default_hooks=C(save_param_scheduler=False)),
        KNOWN,
        [
            (
                "default_hooks.checkpoint.save_param_scheduler: is false and changes nothing: these schedules are functions of "
                "the iteration and have no state. Nothing to do. [FK023]"
            ),
        ],
    ),
    "FP009": (
        base(strategy="auto"),
        KNOWN,
        [
            (
                'strategy: "auto" chose SingleDeviceStrategy: no launcher started ranks; memory is not counted on a CPU. '
                "Name the strategy to fix it. [FP009]"
            ),
        ],
    ),
    "FC012": (
        base(
            resume=True, custom_hooks=[{"type": "EMAHook"}, {"type": "a:B"}, {"type": "a.B"}, {"type": "a:C"}]
        ),
        evolve(
            resumed(hooks=("CheckpointHook", "LoggerHook", "a.B")),
            hooks=(
                HookFact(place=1, stages=(), stateful=True),
                HookFact(place=2, stages=(), stateful=True),
                HookFact(place=3, stages=()),
            ),
        ),
        [
            (
                "default_hooks.param_scheduler: is ParamSchedulerHook, of which 'w/checkpoints/iter_50' has no state; "
                "it starts anew. Nothing to do if meant. [FC012]"
            ),
            (
                "custom_hooks.0: is EMAHook, of which 'w/checkpoints/iter_50' has no state; it starts anew. "
                "Nothing to do if meant. [FC012]"
            ),
            (
                "custom_hooks.2: is a.B#2, of which 'w/checkpoints/iter_50' has no state; it starts anew. "
                "Nothing to do if meant. [FC012]"
            ),
        ],
    ),
    "FR001": (
        base(randomness=None),
        KNOWN,
        [
            "randomness.seed: is not given and was drawn: 5. Give a seed to repeat runs. [FR001]",
        ],
    ),
    "FR001 unknown": (
        base(randomness={}),
        Facts(),
        [
            "randomness.seed: is not given and will be drawn. Give a seed to repeat runs. [FR001]",
        ],
    ),
    "FR001 resumed": (
        base(randomness={}, resume=True),
        resumed(trajectory=(("seed", "9"),)),
        [
            "randomness.seed: is not given and is the checkpoint's: 9. Give a seed to repeat runs. [FR001]",
        ],
    ),
}

ELSEWHERE = {
    "FC013",
    "FC014",
    "FC015",
    "FC017",
    "FC018",
    "FK024",
    "FP008",
    "FK001",
    "FK002",
    "FK003",
    "FK004",
    "FK005",
    "FK006",
    "FK007",
    "FK024",
    *(code for code in RULES if code.startswith(("FO", "FP01", "FP04", "FP050"))),
}  # files are the shell's, plan files below, facts test_observed's; mmengine has test_starting, what optimizers train test_several, and what is cut
# test_tensor_parallel, room for checkpoints test_storage


@pytest.mark.parametrize("name", CASES)
def test_a_broken_config_is_told_what_and_why(name):
    config, facts, expected = CASES[name]
    assert told(config, facts) == expected


@pytest.mark.parametrize("name", INFOS)
def test_what_a_plan_notes_by_itself(name):
    config, facts, expected = INFOS[name]
    plan = flexcore.plan(config, facts)
    assert [str(notice) for notice in plan.notices if notice.code == name[:5]] == expected


def test_every_rule_is_told_somewhere():
    """And with the severity of its row in the table."""
    seen = set()
    for config, facts, _ in [*CASES.values(), *INFOS.values()]:
        for problem in flexcore.lint(config, facts):
            seen.add(problem.code)
            assert problem.severity == RULES[problem.code].severity or problem.code == "FC005"
            assert problem.message[-1] == "."
            assert problem.remedy[-1] in ".?"
    assert seen == set(RULES) - ELSEWHERE


def test_problems_come_in_the_order_of_the_keys_given():
    broken = {"train_cfg": {"by_epoch": True, "max_epochs": -1}, "zzz": 1, "model": 5, "work_dir": "",
              "train_dataloader": L(batch_size=0), "optim_wrapper": W(), "randomness": {"seed": -1}}  # fmt: skip
    for config in (broken, dict(reversed(broken.items()))):
        with pytest.raises(flexcore.ConfigError) as caught:
            flexcore.plan(config)
        paths = [problem.path[0] for problem in caught.value.problems]
        assert paths == [key for key in config if key != "optim_wrapper"]
        assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)


def test_a_missing_key_is_told_after_those_that_are_there():
    told_first = flexcore.lint({"train_cfg": {"by_epoch": True, "max_epochs": -1}})
    assert [p.path[0] for p in told_first] == ["train_cfg", "train_dataloader", "model"]


def test_a_section_that_does_not_parse_counts_as_given():
    """No "missing" follows from a misfit: one mistake, one problem."""
    for key in DIGITS:
        problems = flexcore.lint({**DIGITS, key: 5.5}, evolve(KNOWN, val_samples=(1, 2)))
        assert {p.path[0] for p in problems if p.severity == "error"} == {key}


def test_what_is_no_plan_file_is_told():
    for text, expected in {
        "[": "config: is not JSON: 'Expecting value: line 1 column 2 (char 1)'. Write it anew with `flexcore plan -o`. [FK002]",
        "{}": "config: is not a flexcore plan. Write it anew with `flexcore plan -o`. [FK002]",
        '{"kind": "flexcore.plan", "format_version": 2}': "config: has format_version 2; this release reads 1. Write it anew with `flexcore plan -o`. [FK002]",
    }.items():
        with pytest.raises(flexcore.ConfigError) as caught:
            flexcore.Plan.from_json(text)
        assert str(caught.value) == expected


def test_an_altered_plan_file_names_the_place():
    text = flexcore.plan(DIGITS).to_json().replace('"max_norm": 1.0', '"max_norm": "much"')
    with pytest.raises(flexcore.ConfigError) as caught:
        flexcore.Plan.from_json(text)
    assert str(caught.value).splitlines() == [
        "optimizers.0.clip_grad.max_norm: must be a number or None, got 'much'. Correct the value. [FK011]",
        "config.optim_wrapper.clip_grad.max_norm: must be a number or None, got 'much'. Correct the value. [FK011]",
    ]
