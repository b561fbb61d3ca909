# A character-level GPT on Python's own documentation. The same job under any engine, by one key:
#   flexcore run examples/chargpt.py
#   flexcore run examples/chargpt.py strategy.type=DDPStrategy --nproc 2        # or FSDPStrategy, DeepSpeedStrategy

model = dict(type="examples.chargpt_model:GPT", width=64, depth=2, heads=4, context=64, dropout=0.0)
loss = dict(type="torch.nn:CrossEntropyLoss")
strategy = dict(type="SingleDeviceStrategy")
work_dir = "work_dirs/chargpt"

global_batch_size = 32  # windows to an update, on any number of ranks
train_dataloader = dict(
    dataset=dict(type="examples.chargpt_model:Windows", split="train", context=64),
    batch_size=8,
)
train_cfg = dict(by_epoch=False, max_iters=300, val_interval=100)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.1, by_epoch=False, begin=50),
]

val_dataloader = dict(
    dataset=dict(type="examples.chargpt_model:Windows", split="val", context=64),
    batch_size=64,
)
val_evaluator = dict(loss=dict(type="examples.chargpt_model:MeanLoss"))
val_cfg = dict()

default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=100, max_keep_ckpts=1, save_best="loss", rule="less"),
)
randomness = dict(seed=0)
resume = True  # go on where an interrupted run left off, under whichever engine
