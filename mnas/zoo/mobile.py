"""Networks for mobile processors by other authors, each with its source.

Padding and batch norm are those of the authors' code, which for MobileNets and EfficientNet is TensorFlow's: SAME
padding and an epsilon of 0.001 (MobileNetV4-Conv-S was trained with 1e-6, which lets channels of almost no variance
explode). Weights from timm bring their own (mnas.nn.pretrained). For the notation see
docs/reference/block-strings.md.
"""

from dataclasses import replace

from mnas.arch import Arch

_SLIM = "tensorflow/models, research/slim/nets"
_MODEL_GARDEN = "tensorflow/models, official/vision/modeling/backbones/mobilenet.py"


def _torch(arch: Arch) -> Arch:
    """Return `arch` with the padding and batch norm of code that is written in PyTorch or Paddle."""
    return replace(arch, padding="symmetric", bn_epsilon=1e-5, bn_momentum=0.1)


def _mobilenetv3(*strings: str, head_filters: int) -> Arch:
    """Return a MobileNetV3: hard swish, ReLU in early blocks, and a hidden layer with a bias after the pool."""
    arch = Arch.from_block_strings(strings)
    return replace(arch, activation="hardswish", head_filters=head_filters, head_pooled=True, head_norm=False)


def _mobilenetv4(*strings: str, dropout: float) -> Arch:
    """Return a MobileNetV4 of convolutions; its hidden layer after the pool has a batch norm."""
    return replace(Arch.from_block_strings(strings), head_pooled=True, dropout=dropout)


def _efficientnet(layers: tuple[int, ...]) -> Arch:
    """Return EfficientNet-B0 with these depths."""
    squeeze = "se0.25_sesilu"
    widths = ("k3_s11_e1_o16", "k3_s22_e6_o24", "k5_s22_e6_o40", "k3_s22_e6_o80", "k5_s11_e6_o112", "k5_s22_e6_o192")
    blocks = [f"r{n}_{block}_{squeeze}" for n, block in zip(layers, (*widths, "k3_s11_e6_o320"), strict=True)]
    return replace(Arch.from_block_strings(blocks), activation="silu")


MOBILE_NETWORKS: dict[str, tuple[Arch, str]] = {
    "mobilenetv1": (
        replace(
            Arch.from_block_strings(
                "r1_k3_s11_e1_i32_o64_act_noskip,r2_k3_s22_e1_o128_act_noskip,r2_k3_s22_e1_o256_act_noskip,"
                "r6_k3_s22_e1_o512_act_noskip,r2_k3_s22_e1_o1024_act_noskip"
            ),
            activation="relu6",
            head_filters=0,
            dropout=0.001,
        ),
        f"Howard et al., MobileNets (arXiv:1704.04861), Table 1; {_SLIM}/mobilenet_v1.py",
    ),
    "mobilenetv3-small": (
        _mobilenetv3(
            "r1_k3_s22_e1_i16_o16_se0.25_semid_sehard_relu",
            "r1_k3_s22_e4.5_o24_relu",
            "r1_k3_s11_e3.67_o24_relu",
            "r1_k5_s22_e4_o40_se0.25_semid_sehard",
            "r2_k5_s11_e6_o40_se0.25_semid_sehard",
            "r2_k5_s11_e3_o48_se0.25_semid_sehard",
            "r3_k5_s22_e6_o96_se0.25_semid_sehard",
            "r1_k1_s11_e1_o576_noskip_conv",
            head_filters=1024,
        ),
        f"Howard et al., MobileNetV3 (ICCV 2019, arXiv:1905.02244), Table 2; {_SLIM}/mobilenet/mobilenet_v3.py",
    ),
    "mobilenetv3-large": (
        _mobilenetv3(
            "r1_k3_s11_e1_i16_o16_relu",
            "r1_k3_s22_e4_o24_relu",
            "r1_k3_s11_e3_o24_relu",
            "r3_k5_s22_e3_o40_se0.25_semid_sehard_relu",
            "r1_k3_s22_e6_o80",
            "r1_k3_s11_e2.5_o80",
            "r2_k3_s11_e2.3_o80",
            "r2_k3_s11_e6_o112_se0.25_semid_sehard",
            "r3_k5_s22_e6_o160_se0.25_semid_sehard",
            "r1_k1_s11_e1_o960_noskip_conv",
            head_filters=1280,
        ),
        f"Howard et al., MobileNetV3 (ICCV 2019, arXiv:1905.02244), Table 1; {_SLIM}/mobilenet/mobilenet_v3.py",
    ),
    "mobilenetv4-conv-small": (
        _mobilenetv4(
            "r1_k3_s22_e1_i32_o32_noskip_conv",
            "r1_k1_s11_e1_o32_noskip_conv",
            "r1_k3_s22_e1_o96_noskip_conv",
            "r1_k1_s11_e1_o64_noskip_conv",
            "r1_a5_k5_s22_e3_o96_uib",
            "r4_k3_s11_e2_o96_uib",
            "r1_a3_k0_s11_e4_o96_uib",
            "r1_a3_k3_s22_e6_o128_uib",
            "r1_a5_k5_s11_e4_o128_uib",
            "r1_k5_s11_e4_o128_uib",
            "r1_k5_s11_e3_o128_uib",
            "r2_k3_s11_e4_o128_uib",
            "r1_k1_s11_e1_o960_noskip_conv",
            dropout=0.3,
        ),
        f"Qin et al., MobileNetV4 (ECCV 2024, arXiv:2404.10518), MNv4-Conv-S; {_MODEL_GARDEN}",
    ),
    "mobilenetv4-conv-medium": (
        _mobilenetv4(
            "r1_k3_s22_e4_i32_o48_fused",
            "r1_a3_k5_s22_e4_o80_uib",
            "r1_a3_k3_s11_e2_o80_uib",
            "r1_a3_k5_s22_e6_o160_uib",
            "r2_a3_k3_s11_e4_o160_uib",
            "r1_a3_k5_s11_e4_o160_uib",
            "r1_a3_k3_s11_e4_o160_uib",
            "r1_a3_k0_s11_e4_o160_uib",
            "r1_k0_s11_e2_o160_uib",
            "r1_a3_k0_s11_e4_o160_uib",
            "r1_a5_k5_s22_e6_o256_uib",
            "r1_a5_k5_s11_e4_o256_uib",
            "r2_a3_k5_s11_e4_o256_uib",
            "r1_k0_s11_e4_o256_uib",
            "r1_a3_k0_s11_e4_o256_uib",
            "r1_a3_k5_s11_e2_o256_uib",
            "r1_a5_k5_s11_e4_o256_uib",
            "r2_k0_s11_e4_o256_uib",
            "r1_a5_k0_s11_e2_o256_uib",
            "r1_k1_s11_e1_o960_noskip_conv",
            dropout=0.2,
        ),
        f"Qin et al., MobileNetV4 (ECCV 2024, arXiv:2404.10518), MNv4-Conv-M; {_MODEL_GARDEN}",
    ),
    "lcnet": (
        _torch(
            replace(
                Arch.from_block_strings(
                    "r1_k3_s11_e1_i16_o32_act_noskip,r2_k3_s22_e1_o64_act_noskip,r2_k3_s22_e1_o128_act_noskip,"
                    "r1_k3_s22_e1_o256_act_noskip,r5_k5_s11_e1_o256_act_noskip,"
                    "r2_k5_s22_e1_o512_se0.25_sehard_act_noskip"
                ),
                activation="hardswish",
                head_pooled=True,
                head_norm=False,
            )
        ),
        "Cui et al., PP-LCNet (arXiv:2109.15099), Table 1; PaddlePaddle/PaddleClas, "
        "ppcls/arch/backbone/legendary_models/pp_lcnet.py; its hidden layer has a bias, as in timm's lcnet_100",
    ),
    "efficientnet-b0": (
        _efficientnet((1, 2, 2, 3, 3, 4, 1)),
        "Tan and Le, EfficientNet (ICML 2019, arXiv:1905.11946), Table 1; "
        "tensorflow/tpu, models/official/efficientnet/efficientnet_builder.py",
    ),
    "tinynet-a": (
        _torch(_efficientnet((1, 2, 2, 4, 4, 5, 1))),
        "Han et al., Model Rubik's Cube (NeurIPS 2020, arXiv:2010.14819), TinyNet-A (width 1, depth 1.2); "
        "huawei-noah/Efficient-AI-Backbones, tinynet_pytorch",
    ),
    "fbnet-c": (
        _torch(
            replace(
                Arch.from_block_strings(
                    "r1_k3_s11_e1_i16_o16_mbconv,r1_k3_s22_e6_o24,r2_k3_s11_e1_o24_mbconv,r1_k5_s22_e6_o32,"
                    "r1_k5_s11_e3_o32,r1_k5_s11_e6_o32,r1_k3_s11_e6_o32,r1_k5_s22_e6_o64,r1_k5_s11_e3_o64,"
                    "r2_k5_s11_e6_o64,r3_k5_s11_e6_o112,r1_k5_s11_e3_o112,r4_k5_s22_e6_o184,r1_k3_s11_e6_o352"
                ),
                head_filters=1984,
            )
        ),
        "Wu et al., FBNet (CVPR 2019, arXiv:1812.03443), FBNet-C; timm, models/efficientnet.py, fbnetc_100",
    ),
}
"""Name -> (architecture, publication)."""
