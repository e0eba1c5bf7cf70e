"""Data sets of thousands to tens of thousands of small images, from scratch, in minutes to an hour.

Source: our own trials. On 6,400 images of CIFAR-10 for 5 epochs (mnasnet-small@0.5/s8, batch 64, one seed each) SGD
    with peaks of 0.1, 0.4 and 1.0 gave .38, .40 and .36 on 1,600 validation images, TensorFlow's RMSProp with 0.016,
    0.032, 0.064 and 0.128 .35, .22, .27-.33 and .24, AdamW .31; a weight decay of 5e-4 .36. The average with
    TensorFlow's start was as good as the last weights or a little better. The staircase is made for hundreds of
    epochs, and shifts are what small images and few epochs need.
Expected: see benchmarks/cifar10.py and the README.
Cost: about three times the multiply-adds of all images, times epochs.
Command: mnas train mnasnet-small/s8 --data cifar10 --preset small
"""

from mnas.train.config import TrainConfig

SMALL = TrainConfig(
    epochs=30,
    batch_size=128,
    fewest_steps=3000,
    optimizer="sgd",
    learning_rate=0.4,  # 0.2 at 128
    schedule="cosine",
    warmup_epochs=2,
    ema_decay=0.999,
    label_smoothing=0.1,
    weight_decay=1e-4,
    dropout="arch",
    bn_momentum="arch",
    estimate_statistics=2048,
    augmentation="shift",
    crop=1.0,
)
