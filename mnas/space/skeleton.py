"""The fixed part of a space, which all its members and the reference model share."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mnas.arch import Arch, Padding, with_product
from mnas.block import Block
from mnas.ops import Activation


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Widths, depths and strides that a space's choices are relative to, and the fields of `Arch` that it fixes.

    Raises ValueError if a field is out of range. The defaults are MobileNetV2's (Sandler et al., Table 2), as in
    the paper, section 4.1, and the published code's activation and normalisation.
    """

    filters: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
    """Filters of each block; a choice multiplies them."""
    layers: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    """Number of layers of each block; a choice adds to it."""
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    """Stride of each block's first layer."""
    stem_filters: int = 32
    stem_stride: int = 2
    head_filters: int = 1280
    """Channels of the head; 0 without one."""
    activation: Activation = "relu"
    dropout: float = 0.2
    bn_epsilon: float = 1e-3
    bn_momentum: float = 0.01
    padding: Padding = "same"
    head_pooled: bool = False
    """Whether the head follows the average pool, as a hidden layer."""
    head_norm: bool = True
    """Whether the head has a batch norm, instead of a bias."""

    def __post_init__(self) -> None:
        for name in ("filters", "layers", "strides"):
            if not isinstance(getattr(self, name), list | tuple):
                raise ValueError(
                    f"{name} must be a list with one number for each block, but got {getattr(self, name)!r}"
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lengths = len(self.filters), len(self.layers), len(self.strides)
        if len(set(lengths)) != 1:
            raise ValueError(
                "filters, layers and strides must have one number for each block, "
                f"but got {lengths[0]}, {lengths[1]} and {lengths[2]}"
            )
        blocks = []
        for number, (filters, layers, stride) in enumerate(
            zip(self.filters, self.layers, self.strides, strict=True), 1
        ):
            try:
                blocks.append(Block(op="sepconv", kernel=3, stride=stride, filters=filters, layers=layers))
            except ValueError as error:
                raise ValueError(f"block {number} of the skeleton: {error}") from None
        checked = self.arch(blocks)  # an architecture's rules apply
        for name in ("dropout", "bn_epsilon", "bn_momentum"):
            object.__setattr__(self, name, getattr(checked, name))

    def arch(self, blocks: Sequence[Block]) -> Arch:
        """Return the architecture with `blocks` between this skeleton's stem and head."""
        return Arch(
            blocks=tuple(blocks),
            stem_filters=self.stem_filters,
            stem_stride=self.stem_stride,
            head_filters=self.head_filters,
            activation=self.activation,
            dropout=self.dropout,
            bn_epsilon=self.bn_epsilon,
            bn_momentum=self.bn_momentum,
            padding=self.padding,
            head_pooled=self.head_pooled,
            head_norm=self.head_norm,
        )

    @property
    def output_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        return self.stem_stride * math.prod(self.strides)

    def with_output_stride(self, output_stride: int) -> "Skeleton":
        """Return the skeleton with its earliest strides set to 1 (see `Arch.with_output_stride`).

        Raises ValueError if the stride is not a power of 2, or larger than the skeleton's own.
        """
        strides = with_product((self.stem_stride, *self.strides), output_stride)
        return replace(self, stem_stride=strides[0], strides=strides[1:])

    def scaled(self, width_multiplier: float, *, scale_head: bool = False) -> "Skeleton":
        """Return the skeleton with stem and blocks scaled in width, to multiples of 4.

        A block keeps at least 12 filters (or its own number, if that is smaller): below 12, the multiples 0.75, 1 and
        1.25 would not round to three different widths.

        Args:
            scale_head: also scale the head.

        Raises ValueError unless the multiplier is a number from 0.01 to 100.
        """
        if not 0.01 <= width_multiplier <= 100:
            raise ValueError(f"width multiplier must be a number from 0.01 to 100, but got {width_multiplier!r}")
        head = self.head_filters
        return replace(
            self,
            stem_filters=multiple_of_4(self.stem_filters * width_multiplier),
            filters=tuple(max(min(12, f), multiple_of_4(f * width_multiplier)) for f in self.filters),
            head_filters=multiple_of_4(head * width_multiplier) if scale_head and head else head,
        )

    @property
    def text(self) -> str:
        """Return `filters (16, ...), layers (1, ...), strides 2+(1, ...)`; the first stride is the stem's."""
        return f"filters {self.filters}, layers {self.layers}, strides {self.stem_stride}+{self.strides}"

    def unrolled(self) -> "Skeleton":
        """Return the skeleton with one block for each layer. Raises ValueError if these are too many blocks."""
        blocks = list(zip(self.filters, self.strides, self.layers, strict=True))
        filters = tuple(width for width, _, count in blocks for _ in range(count))
        strides = tuple(stride if index == 0 else 1 for _, stride, count in blocks for index in range(count))
        return replace(self, filters=filters, layers=(1,) * len(filters), strides=strides)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values, from which `Skeleton(**values)` restores an equal object.

        The fields of the head that came after the first files are left out where they have their defaults.
        """
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {name: v for name, v in values.items() if name not in _LATER or v != _LATER[name]}


_LATER = {"head_pooled": False, "head_norm": True}


MOBILENETV2 = Skeleton()
"""The paper's skeleton: MobileNetV2's."""
MOBILENETV4 = Skeleton(
    filters=(32, 64, 96, 96, 96, 128, 128, 128, 128, 128, 960),
    layers=(1, 1, 1, 4, 1, 1, 1, 1, 1, 2, 1),
    strides=(2, 2, 2, 1, 1, 2, 1, 1, 1, 1, 1),
    head_pooled=True,
)
"""Skeleton of MobileNetV4-Conv-S (Qin et al., arXiv:2404.10518; timm, mobilenetv4_conv_small).

Equal layers in a row form a block, and so do the two convolutions of each of its first two stages.
"""


def multiple_of_4(filters: float) -> int:
    """Return the nearest multiple of 4, at least 4; ties round up."""
    return max(4, int(filters + 2) // 4 * 4)


def output_stride_for(input_size: int) -> int:
    """Return the largest output stride of 32, 16, 8 and 4 whose last feature map has at least 3 pixels per side.

    The limit of 3 is the smallest last map in the paper's table of input sizes (section 5, 96 pixels at stride 32).
    An input size of 96 gives 32, 64 gives 16, 32 gives 8, and 16 gives 4.

    Raises:
        ValueError: even stride 4 leaves fewer than 3 pixels (input_size below 9).
    """
    for stride in (32, 16, 8, 4):
        if -(-input_size // stride) >= 3:
            return stride
    raise ValueError(f"--input-size must be at least 9 (3 pixels at an output stride of 4), but got {input_size!r}")
