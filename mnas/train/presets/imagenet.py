"""The paper's training on ImageNet.

Source: Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), section 5; what the paper leaves out (350 epochs, weight
    decay, label smoothing, moving average) is the published code's (tensorflow/tpu, models/official/mnasnet).
Expected: the paper's top-1 at 224 px, 75.2 % for MnasNet-A1, 74.5 % for B1. Nobody here has run it: there is no
    ImageNet on our machines. What is tested: every value of the schedule, the optimizer's rule, the average's decay.
Cost: 350 epochs of 1.28M images; at N images a second 124,000 / N hours.
Command: torchrun --nproc-per-node 8 -m mnas.cli.main train mnasnet-a1 --data imagenet --data-dir DIR --preset imagenet
    Fewer images a step (--batch-size 1024 for one GPU) scale the learning rate along.
"""

from mnas.train.config import TrainConfig

IMAGENET = TrainConfig(
    epochs=350,
    batch_size=4096,
    optimizer="rmsprop",
    learning_rate=0.016,  # 0.256 at 4096
    schedule="step",
    warmup_epochs=5,
    decay_rate=0.97,
    decay_epochs=2.4,
    ema_decay=0.9999,
    label_smoothing=0.1,
    weight_decay=1e-5,
    dropout="arch",  # 0.2, except for MnasNet-small
    bn_momentum="arch",  # 0.01: the paper's 0.99
    estimate_statistics=0,
    augmentation="inception",
    scale_low=0.08,
    crop=0.875,
)
