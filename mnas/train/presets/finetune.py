"""Fine-tune weights on other classes: no layer is frozen, and the classifier is new.

Source: common practice: SGD at a tenth of the rate that training from scratch takes (preset small), gentler crops.
Expected: not measured on a public data set here (no ImageNet weights on our machines).
Cost: a fifteenth of a training from scratch on as many images for 300 epochs.
Command: mnas train mnasnet-a1 --data DIR --weights timm --preset finetune --input-size 224
"""

from mnas.train.config import TrainConfig

FINETUNE = TrainConfig(
    epochs=20,
    batch_size=64,
    fewest_steps=1000,
    optimizer="sgd",
    learning_rate=0.04,  # 0.01 at 64
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
