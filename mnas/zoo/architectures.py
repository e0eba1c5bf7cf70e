"""Named architectures, each with its source.

A name may end with `@` and a width multiplier, and with `/s` and an output stride: `mnasnet-a1@0.5`,
`mnasnet-small/s8`.
"""

import difflib
import re
from dataclasses import dataclass, replace

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.block import Block
from mnas.space.skeleton import MOBILENETV2, Skeleton
from mnas.zoo.cells import CELL_NETWORKS
from mnas.zoo.mobile import MOBILE_NETWORKS


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """A named architecture."""

    arch: Architecture
    source: str
    """Publication of the architecture."""
    scale_head: bool = False
    """Whether a width multiplier above 1 also widens the head; one below 1 never changes it."""


def reference_arch(skeleton: Skeleton) -> Arch:
    """Return MobileNetV2's blocks at the widths, depths, strides and padding of `skeleton`.

    On the default skeleton this is MobileNetV2 itself. Latency targets and ratios of a search refer to this network.
    """
    rows = enumerate(zip(skeleton.filters, skeleton.layers, skeleton.strides, strict=True))
    blocks = [
        Block(
            op="mbconv" if index else "sepconv",
            kernel=3,
            stride=stride,
            filters=filters,
            layers=layers,
            expansion=6 if index else 1,
        )
        for index, (filters, layers, stride) in rows
    ]
    return replace(skeleton.arch(blocks), activation="relu6")


def _published(*strings: str, dropout: float = 0.2) -> Arch:
    return replace(Arch.from_block_strings(strings), dropout=dropout)


def _deeper(width_multiplier: float, layers: tuple[int, ...]) -> Arch:
    """Return MobileNetV2 scaled in width and depth; stem and head keep their width."""
    arch = reference_arch(MOBILENETV2).scale_width(width_multiplier)
    blocks = tuple(replace(b, layers=n) for b, n in zip(arch.blocks, layers, strict=True))
    return replace(arch, blocks=blocks, stem_filters=MOBILENETV2.stem_filters)


def _efficientnet_lite(width_multiplier: float, layers: tuple[int, ...], *, dropout: float) -> Arch:
    """Return EfficientNet-Lite: B0 without squeeze-and-excitation, scaled except for the widths of stem and head."""
    arch = Arch.from_block_strings(
        "r1_k3_s11_e1_i32_o16,r2_k3_s22_e6_o24,r2_k5_s22_e6_o40,r3_k3_s22_e6_o80,r3_k5_s11_e6_o112,r4_k5_s22_e6_o192,"
        "r1_k3_s11_e6_o320"
    ).scale_width(width_multiplier)
    blocks = tuple(replace(b, layers=n) for b, n in zip(arch.blocks, layers, strict=True))
    return replace(arch, blocks=blocks, stem_filters=32, activation="relu6", dropout=dropout)


_CODE = "tensorflow/tpu, models/official/mnasnet/mnasnet_models.py"
_LITE_CODE = "tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py"

ZOO: dict[str, ZooEntry] = {
    "mnasnet-a1": ZooEntry(
        source=f"paper, Figure 7; {_CODE}, mnasnet_a1",
        arch=_published(
            "r1_k3_s11_e1_i32_o16_noskip",
            "r2_k3_s22_e6_i16_o24",
            "r3_k5_s22_e3_i24_o40_se0.25",
            "r4_k3_s22_e6_i40_o80",
            "r2_k3_s11_e6_i80_o112_se0.25",
            "r3_k5_s22_e6_i112_o160_se0.25",
            "r1_k3_s11_e6_i160_o320",
        ),
    ),
    "mnasnet-b1": ZooEntry(
        source=f"{_CODE}, mnasnet_b1",
        arch=_published(
            "r1_k3_s11_e1_i32_o16_noskip",
            "r3_k3_s22_e3_i16_o24",
            "r3_k5_s22_e3_i24_o40",
            "r3_k5_s22_e6_i40_o80",
            "r2_k3_s11_e6_i80_o96",
            "r4_k5_s22_e6_i96_o192",
            "r1_k3_s11_e6_i192_o320_noskip",
        ),
    ),
    "mnasnet-small": ZooEntry(
        source=f"{_CODE}, mnasnet_small",
        arch=_published(
            # Published as r1_k3_s11_e1_i16_o8: the code compares that 16 with 8, and adds no residual although the stem
            # has 8 filters. timm does add it, which is another function of the same parameters.
            "r1_k3_s11_e1_i8_o8_noskip",
            "r1_k3_s22_e3_i8_o16",
            "r2_k3_s22_e6_i16_o16",
            "r4_k5_s22_e6_i16_o32_se0.25",
            "r3_k3_s11_e6_i32_o32_se0.25",
            "r3_k5_s22_e6_i32_o88_se0.25",
            "r1_k3_s11_e6_i88_o144",
            dropout=0.0,
        ),
    ),
    "mnasnet-d1": ZooEntry(
        source=f"{_CODE}, mnasnet_d1 (searched for detection, Mnas-FPN)",
        arch=_published(
            "r1_k3_s11_e9_i32_o24",
            "r3_k3_s22_e9_i24_o36",
            "r5_k3_s22_e9_i36_o48",
            "r4_k5_s22_e9_i48_o96",
            "r5_k7_s11_e3_i96_o96",
            "r3_k3_s22_e9_i96_o80",
            "r1_k7_s11_e6_i80_o320_noskip",
        ),
    ),
    "mnasnet-d1-320": ZooEntry(
        source=f"{_CODE}, mnasnet_d1_320 (searched for detection at 320 x 320)",
        arch=_published(
            "r3_k5_s11_e6_i32_o24",
            "r4_k7_s22_e9_i24_o36",
            "r5_k5_s22_e9_i36_o48",
            "r5_k7_s22_e6_i48_o96",
            "r5_k3_s11_e9_i96_o144",
            "r5_k5_s22_e6_i144_o160",
            "r1_k7_s11_e9_i160_o320",
        ),
    ),
    "mobilenetv2": ZooEntry(
        source="Sandler et al., MobileNetV2 (CVPR 2018, arXiv:1801.04381), Table 2",
        arch=reference_arch(MOBILENETV2),
        scale_head=True,
    ),
    "mobilenetv2-110d": ZooEntry(
        source="timm, models/efficientnet.py, mobilenetv2_110d (width 1.1, depth 1.2)",
        arch=_deeper(1.1, (1, 3, 4, 5, 4, 4, 1)),
    ),
    "mobilenetv2-120d": ZooEntry(
        source="timm, models/efficientnet.py, mobilenetv2_120d (width 1.2, depth 1.4)",
        arch=_deeper(1.2, (1, 3, 5, 6, 5, 5, 1)),
    ),
    "efficientnet-lite0": ZooEntry(
        source=f"{_LITE_CODE}, efficientnet-lite0 (width 1, depth 1)",
        arch=_efficientnet_lite(1.0, (1, 2, 2, 3, 3, 4, 1), dropout=0.2),
    ),
    "efficientnet-lite1": ZooEntry(
        source=f"{_LITE_CODE}, efficientnet-lite1 (width 1, depth 1.1)",
        arch=_efficientnet_lite(1.0, (1, 3, 3, 4, 4, 5, 1), dropout=0.2),
    ),
    "efficientnet-lite2": ZooEntry(
        source=f"{_LITE_CODE}, efficientnet-lite2 (width 1.1, depth 1.2)",
        arch=_efficientnet_lite(1.1, (1, 3, 3, 4, 4, 5, 1), dropout=0.3),
    ),
    **{
        name: ZooEntry(arch=arch, source=source, scale_head=name in ("efficientnet-b0", "tinynet-a"))
        for name, (arch, source) in MOBILE_NETWORKS.items()
    },
    **{name: ZooEntry(arch=arch, source=source) for name, (arch, source) in CELL_NETWORKS.items()},
}
"""Name -> architecture."""


def named_arch(name: str) -> Architecture:
    """Return the architecture of a zoo name: `mnasnet-a1`, `mnasnet-a1@0.5`, `mnasnet-small/s8`, `nasnet-a@0.5/s16`.

    Raises:
        ValueError: the name is unknown (the message lists similar and available ones), or its multiplier or stride is
            invalid.
    """
    match = re.fullmatch(r"([^@/]+)(?:@(\d{1,3}(?:\.\d{1,9})?))?(?:/s(\d{1,4}))?", name, re.ASCII)
    if not match or match[1] not in ZOO:
        base = re.split("[@/]", name)[0]
        if base in ZOO:
            raise ValueError(
                f"{base} may be followed by @ and a width multiplier, then by /s and an output stride "
                f"({base}@0.5/s8), but got {name!r}"
            )
        close = difflib.get_close_matches(base, ZOO, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"architecture must be one of {', '.join(ZOO)}, but got {name!r}{hint}")
    entry = ZOO[match[1]]
    arch = entry.arch
    if match[2]:
        multiplier = float(match[2])
        arch = arch.scale_width(multiplier, scale_head=entry.scale_head and multiplier > 1)
    return arch.with_output_stride(int(match[3])) if match[3] else arch
