"""Train on thousands to tens of thousands of small images, from scratch, in minutes to an hour.

Source: our own trials, which are thin: 6,400 images of CIFAR-10, 5 epochs, batch 64, mnasnet-small@0.5/s8, one seed
    each, scored on 1,600 validation images. In one script (no dropout, weight decay 2e-5) SGD with peaks of 0.1, 0.4
    and 1.0 gave .38, .40 and .36, TensorFlow's RMSProp with 0.064 .27, AdamW .31; SGD with a weight decay of 5e-4
    .36. With dropout and weight decay 1e-5, RMSProp with 0.016, 0.032, 0.064 and 0.128 gave .35, .22, .33 and .24.
    The weight decay below lies between those values. On 40,000 images (mnasnet-small/s8, batch 128, 3 epochs, a third
    of one warm-up) a peak of 0.4 diverged at the start for one of two seeds, hence 0.1. The staircase is made for
    hundreds of epochs, and shifts are what small images and few epochs need.
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
    learning_rate=0.1,  # 0.05 at 128; timm's own default for SGD
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
