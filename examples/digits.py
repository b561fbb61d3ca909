# A small CNN on scikit-learn's digits. Try: flexcore plan examples/digits.py --probe

model = dict(type="examples.digits_model:Net", width=32)
loss = dict(type="torch.nn:CrossEntropyLoss")

train_dataloader = dict(
    dataset=dict(type="examples.digits_model:Digits", split="train"),
    batch_size=16,
)
train_cfg = dict(by_epoch=True, max_epochs=12)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50),
]

val_dataloader = dict(
    dataset=dict(type="examples.digits_model:Digits", split="val"),
    batch_size=64,
)
val_evaluator = dict(accuracy=dict(type="torchmetrics:Accuracy", task="multiclass", num_classes=10))
val_cfg = dict()

default_hooks = dict(
    logger=dict(type="LoggerHook", interval=15),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_best="accuracy"),
)
randomness = dict(seed=0)
resume = True  # go on where an interrupted run left off
