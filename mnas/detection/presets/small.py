"""Fine-tune a detector with a pretrained backbone on hundreds of images.

Source: the first values that we tried; benchmarks/blood_cells.py compares the rows that it names, not the values.
Expected: on 205 images of blood cells (BCCD), with efficientnet-lite0 and fitted boxes, an AP50 of 91 % and a mAP of
    57 % on the 72 test images (docs/measurements/training.md).
Cost: about 0.17 s of a core for each image and epoch at 320 px, with scoring (AMD EPYC).
Command: mnas detect train efficientnet-lite0 --data DIR --weights pretrained
"""

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
    estimate_statistics=128,  # few steps leave those of training far behind, where the weights began at random
    augmentation="small",
)
