"""Fine-tune weights on other classes: no layer is frozen, and the classifier is new and begins at 0.

Source: AdamW (Loshchilov and Hutter, ICLR 2019) at 5e-4 for 32 images, the best of a few tries here.
Expected: efficientnet-lite0 at 96 px, CIFAR-10 with 100 images a class, --epochs 6: 62 %, and 68 % with --augmentation
    shift --label-smoothing 0 --ema-decay 0 (docs/measurements/training.md).
Command: mnas train efficientnet-lite0 --data DIR --weights pretrained --input-size 96
"""

from mnas.train.config import TrainConfig

FINETUNE = TrainConfig(
    epochs=20,
    batch_size=32,
    optimizer="adamw",
    learning_rate=0.004,  # 5e-4 at 32
    schedule="cosine",
    warmup_epochs=1,
    ema_decay=0.999,
    label_smoothing=0.1,
    weight_decay=0.05,
    dropout=0.2,
    bn_momentum="arch",
    estimate_statistics=0,  # statistics of training serve as well after fine-tuning, and better without any
    augmentation="inception",
    scale_low=0.25,
    crop=0.875,
)
