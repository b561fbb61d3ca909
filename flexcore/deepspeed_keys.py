"""Every key of DeepSpeed's configuration (0.17 to 0.19), as data: its kind, or why it is refused. No rule is applied here.

DeepSpeed itself ignores most keys it does not know; a test holds this table against the installed release.
"""

from collections.abc import Mapping
from typing import Any

Kind = Any  # "bool" | "int" | "number" | "text" | "list" | "mapping" | tuple of choices | Mapping[str, Kind]
SHORT = ("fp32", "fp16", "bf16")
MONITOR: Mapping[str, Kind] = {"enabled": "bool", "output_path": "text", "job_name": "text"}

OFFLOAD_PARAM: Mapping[str, Kind] = {
    "device": ("none", "cpu", "nvme"), "nvme_path": "text", "buffer_count": "int", "buffer_size": "int",
    "max_in_cpu": "int", "pin_memory": "bool",
}  # fmt: skip
OFFLOAD_OPTIMIZER: Mapping[str, Kind] = {
    "device": ("none", "cpu", "nvme"), "nvme_path": "text", "buffer_count": "int", "pin_memory": "bool",
    "pipeline_read": "bool", "pipeline_write": "bool", "fast_init": "bool", "ratio": "number",
    "super_offload": "bool", "cpuadam_cores_perc": "number",
}  # fmt: skip
ZERO: Mapping[str, Kind] = {
    "stage": "int",
    "contiguous_gradients": "bool", "reduce_scatter": "bool", "reduce_bucket_size": "int",
    "use_multi_rank_bucket_allreduce": "bool", "allgather_partitions": "bool", "allgather_bucket_size": "int",
    "overlap_comm": "bool", "compute_grad_norm": "bool", "load_from_fp32_weights": "bool", "elastic_checkpoint": "bool",
    "offload_param": OFFLOAD_PARAM, "offload_optimizer": OFFLOAD_OPTIMIZER, "sub_group_size": "int",
    "stage3_prefetch_bucket_size": "int", "stage3_param_persistence_threshold": "int",
    "stage3_model_persistence_threshold": "int", "stage3_max_live_parameters": "int", "stage3_max_reuse_distance": "int",
    "stage3_gather_16bit_weights_on_model_save": "bool", "stage3_module_granularity_threshold": "int",
    "stage3_use_all_reduce_for_fetch_params": "bool", "stage3_allgather_sequential": "bool",
    "prefetch_bucket_size": "int", "param_persistence_threshold": "int", "model_persistence_threshold": "int",
    "max_live_parameters": "int", "max_reuse_distance": "int", "gather_16bit_weights_on_model_save": "bool",
    "module_granularity_threshold": "int", "use_all_reduce_for_fetch_params": "bool", "allgather_sequential": "bool",
    "ignore_unused_parameters": "bool", "round_robin_gradients": "bool", "parameter_alignment": "bool",
    "zero_hpz_partition_size": "int", "zero_quantized_weights": "bool", "zero_quantized_nontrainable_weights": "bool",
    "zero_quantized_gradients": "bool", "memory_efficient_linear": "bool", "pipeline_loading_checkpoint": "bool",
    "override_module_apply": "bool", "log_trace_cache_warnings": "bool", "enable_sanity_checks": "bool",
    "save_muon_momentum_buffer_in_memory": "bool",
    "leaf_module": {"classes": "list", "names": "list", "name_suffixes": "list"},
}  # fmt: skip
BF16: Mapping[str, Kind] = {
    "enabled": "bool", "immediate_grad_update": "bool", "check_grad_overflow": "bool",
}  # fmt: skip
FP16: Mapping[str, Kind] = {
    "enabled": "bool", "auto_cast": "bool", "loss_scale": "number", "initial_scale_power": "int", "loss_scale_window": "int",
    "hysteresis": "int", "consecutive_hysteresis": "bool", "min_loss_scale": "int",
}  # fmt: skip

KEYS: Mapping[str, Kind] = {
    "train_batch_size": "int", "train_micro_batch_size_per_gpu": "int", "gradient_accumulation_steps": "int",
    "gradient_clipping": "number", "zero_optimization": ZERO, "bf16": BF16, "fp16": FP16,
    "torch_autocast": {"enabled": "bool", "dtype": "text", "lower_precision_safe_modules": "list"},
    "zero_allow_untested_optimizer": "bool", "zero_force_ds_cpu_optimizer": "bool",
    "communication_data_type": SHORT, "prescale_gradients": "bool", "gradient_predivide_factor": "number",
    "data_types": {"grad_accum_dtype": SHORT, "param_dtype": SHORT, "buffer_dtype": SHORT, "keep_in_fp32_modules": "list"},
    "activation_checkpointing": {
        "partition_activations": "bool", "number_checkpoints": "int", "contiguous_memory_optimization": "bool",
        "synchronize_checkpoint_boundary": "bool", "profile": "bool", "cpu_checkpointing": "bool",
    },
    "steps_per_print": "int", "wall_clock_breakdown": "bool", "memory_breakdown": "bool", "dump_state": "bool",
    "disable_python_gc": "bool", "log_level": "text", "vocabulary_size": "int",
    "timers": {"throughput": {"enabled": "bool", "synchronized": "bool"}},
    "comms_logger": {"enabled": "bool", "prof_all": "bool", "prof_ops": "list", "verbose": "bool", "debug": "bool"},
    "flops_profiler": {
        "enabled": "bool", "recompute_fwd_factor": "number", "profile_step": "int", "module_depth": "int",
        "top_modules": "int", "detailed": "bool", "output_file": "text",
    },
    "tensorboard": MONITOR, "csv_monitor": MONITOR,
    "wandb": {"enabled": "bool", "group": "text", "team": "text", "project": "text"},
    "comet": {
        "enabled": "bool", "samples_log_interval": "int", "project": "text", "workspace": "text", "api_key": "text",
        "experiment_name": "text", "experiment_key": "text", "online": "bool", "mode": "text",
    },
}  # fmt: skip

# Top-level keys (or "section.key") of DeepSpeed's that are refused: (code, why, what to write instead).
_OWNED, _UNBUILT, _RETIRED = "FP030", "FK014", "FK017"
_GONE = "is gone from DeepSpeed."
REFUSED: Mapping[str, tuple[str, str, str]] = {
    "optimizer": (_OWNED, "builds an optimizer of the engine's own.", "Write it as optim_wrapper.optimizer."),
    "scheduler": (_OWNED, "moves the LR a second time.", "Write it as param_scheduler."),
    "managed_gradient_accumulation": (_OWNED, "moves where windows close.", "Set optim_wrapper.accumulative_counts."),
    "gradient_allreduce_op": (_OWNED, "decides how ranks' gradients add up; the plan has their mean.", "Remove it."),
    "dataloader_drop_last": (_OWNED, "is of a loader the engine builds.", "Set train_dataloader.drop_last."),
    "data_efficiency": (_OWNED, "changes which samples are drawn.", "Remove it."),
    "checkpoint": (_OWNED, "is of DeepSpeed's own checkpoints, which are not written.", "Set default_hooks.checkpoint."),
    "datastates_ckpt": (_OWNED, "is of DeepSpeed's own checkpoints, which are not written.", "Set default_hooks.checkpoint."),
    "autotuning": (_OWNED, "tries other batch sizes than the plan's.", "Remove it."),
    "disable_allgather": (_OWNED, "leaves ranks with stale parameters.", "Remove it."),
    "aio": (_UNBUILT, "is of offloading to NVMe, which is known but not built yet.", "Remove it."),
    "compile": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "tensor_parallel": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "expert_parallel": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "sequence_parallel_size": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "data_parallel_size": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "seq_parallel_communication_data_type": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "use_data_before_expert_parallelism": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "pipeline": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "hybrid_engine": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "weight_quantization": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "zero_optimization.zenflow": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "zero_optimization.legacy_stage1": (_RETIRED, _GONE, "Remove it."),
    "zero_optimization.cpu_offload": (_RETIRED, "is deprecated.", 'Write offload_optimizer=dict(device="cpu").'),
    "zero_optimization.cpu_offload_param": (_RETIRED, "is deprecated.", 'Write offload_param=dict(device="cpu").'),
    "zero_optimization.cpu_offload_use_pin_memory": (_RETIRED, "is deprecated.", "Write pin_memory in offload_optimizer."),
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": (_RETIRED, "is deprecated.", "Remove it."),
    "zero_optimization.mics_shard_size": (_RETIRED, _GONE, "Remove it."),
    "zero_optimization.mics_hierarchical_params_gather": (_RETIRED, _GONE, "Remove it."),
    "zero_optimization.zeropp_loco_param": (_RETIRED, _GONE, "Remove it."),
    "bf16.bf16_master_weights_and_grads": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "bf16.bf16_optimizer_states": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "fp16.fp16_master_weights_and_grads": (_UNBUILT, "is known but not built yet.", "Remove it."),
    "allgather_size": (_RETIRED, _GONE, "Write allgather_bucket_size in zero_optimization."),
    "bfloat16": (_RETIRED, "is ignored by DeepSpeed.", "Write bf16."),
    "amp": (_RETIRED, _GONE, "Write bf16=dict(enabled=True), or use AmpOptimWrapper."),
    "nebula": (_RETIRED, _GONE, "Remove it."),
    "compression_training": (_RETIRED, _GONE, "Remove it."),
    "quantize_training": (_RETIRED, _GONE, "Remove it."),
    "sparse_gradients": (_RETIRED, _GONE, "Remove it."),
    "eigenvalue": (_RETIRED, _GONE, "Remove it."),
    "sparse_attention": (_RETIRED, _GONE, "Remove it."),
    "elasticity": (_RETIRED, _GONE, "Set global_batch_size: accumulation follows the world size."),
    "graph_harvesting": (_RETIRED, _GONE, "Remove it."),
    "curriculum_learning": (_RETIRED, _GONE, "Remove it."),
    "progressive_layer_drop": (_RETIRED, _GONE, "Remove it."),
}  # fmt: skip

RESOLVED = frozenset({
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    "bf16.enabled", "fp16.enabled", "torch_autocast.enabled",
})  # fmt: skip
"""Where "auto" means what the plan says; anywhere else nobody here would decide it."""
OWN_AUTO = "data_types.keep_in_fp32_modules"  # DeepSpeed's own word and default there

ELEMENTWISE = frozenset(
    {"SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "ASGD", "RMSprop", "Rprop"}
)
"""torch.optim's classes that treat every element of a parameter alone, so that a flat share may be stepped.

Adagrad would do, but DeepSpeed builds it anew with one group of settings.
"""
