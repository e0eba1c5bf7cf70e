"""Data sets of thousands to tens of thousands of small images, from scratch, in minutes to an hour.

Source: the paper's optimizer, loss and average; a cosine schedule, as the staircase is made for hundreds of epochs, a
    higher peak, and shifts instead of Inception crops, which small images and few epochs do not need.
Expected: see docs/train.md.
Command: mnas train mnasnet-small/s8 --data cifar10 --preset small
"""

from mnas.train.config import TrainConfig

SMALL = TrainConfig(
    epochs=30,
    batch_size=128,
    fewest_steps=3000,
    learning_rate=0.064,
    schedule="cosine",
    warmup_epochs=2,
    ema_decay=0.999,
    label_smoothing=0.1,
    weight_decay=1e-5,
    dropout="arch",
    bn_momentum="arch",
    estimate_statistics=2048,
    augmentation="shift",
    crop=1.0,
)
