"""From given weights to other classes: nothing is frozen, the classifier is new.

Source: the paper's optimizer at a quarter of its learning rate, with a cosine schedule and gentler crops.
Expected: not measured on a public data set here (no ImageNet weights on our machines).
Command: mnas train mnasnet-a1 --data DIR --weights timm --preset finetune --input-size 224
"""

from mnas.train.config import TrainConfig

FINETUNE = TrainConfig(
    epochs=20,
    batch_size=64,
    fewest_steps=1000,
    learning_rate=0.004,
    schedule="cosine",
    warmup_epochs=1,
    ema_decay=0.999,
    label_smoothing=0.1,
    weight_decay=1e-5,
    dropout=0.2,
    bn_momentum="arch",
    estimate_statistics=2048,
    augmentation="inception",
    scale_low=0.25,
    crop=0.875,
)
