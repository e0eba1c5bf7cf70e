"""Fine-tune a detector with a pretrained backbone on hundreds of images."""

from mnas.detection.config import DetectionConfig

SMALL = DetectionConfig(
    epochs=40,
    batch_size=16,
    optimizer="adamw",
    learning_rate=0.016,  # 1e-3 at 16
    schedule="cosine",
    warmup_epochs=1,
    ema_decay=0.998,
    weight_decay=0.05,
    augmentation="small",
)
