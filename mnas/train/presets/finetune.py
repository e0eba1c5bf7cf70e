"""Fine-tune weights on other classes: no layer is frozen, the classifier begins at 0, and batch norm is recentred.

Source: benchmarks/finetune_recipe.py, which changes one part of the recipe at a time.
Expected: efficientnet-lite0 on CIFAR-10 with 100 images a class: 73 % at 64 px and 79 % at 96 px, in one and two
    minutes of a core (docs/measurements/training.md).
Command: mnas train efficientnet-lite0 --data DIR --weights pretrained --input-size 96
"""

from mnas.train.config import TrainConfig

FINETUNE = TrainConfig(
    epochs="auto",
    batch_size=32,
    retries=3,
    optimizer="adamw",
    learning_rate=0.004,  # 5e-4 at 32
    schedule="cosine",
    warmup_epochs=1,
    ema_decay=0.0,
    label_smoothing=0.0,
    weight_decay=0.05,
    dropout=0.2,
    bn_momentum="arch",
    batch_norm="recentred",  # otherwise the first steps already compute another function than the weights'
    estimate_statistics=0,
    augmentation="shift",
    crop=1.0,
)
