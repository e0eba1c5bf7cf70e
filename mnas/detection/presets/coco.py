"""SSDLite on COCO from pretrained backbone weights.

Source: torchvision's reference recipe for ssdlite320_mobilenet_v3_large (pytorch/vision, references/detection): 660
    epochs, SGD with momentum 0.9, 192 images a step, rate 0.15, cosine schedule, weight decay 4e-5, augmentation
    `ssdlite` (crops around boxes, mirroring). Departures: Nesterov momentum, and no weight decay on batch norm.
Expected: 21.3 mAP for that network; 23.0 for MnasNet-A1 with TensorFlow's recipe (the paper's Table 3). Nobody here
    has run it. What is tested: every value of the schedule, the loss, the default boxes.
Cost: 660 epochs of 118,000 images; at N images a second 21,600 / N hours.
Command: torchrun --nproc-per-node 8 -m mnas.cli.main detect train mnasnet-a1 --data COCO --weights timm --preset coco
"""

from mnas.detection.config import DetectionConfig

COCO = DetectionConfig(
    epochs=660,
    batch_size=192,
    optimizer="sgd",
    learning_rate=0.2,  # 0.15 at 192
    schedule="cosine",
    warmup_epochs=0.5,
    ema_decay=0.9998,
    weight_decay=4e-5,
    estimate_statistics=0,
    augmentation="ssd",
    score_every=10,
)
