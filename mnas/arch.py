"""Architectures as plain values: blocks of equal layers between a stem and a head.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1,
and its published code (tensorflow/tpu, models/official/mnasnet). Departure (docs/explanation/departures.md): blocks do
not repeat their input's width (it is derived).
"""

import dataclasses
import functools
import hashlib
import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mnas.block import LATER, MAX_FILTERS, Block, round_filters
from mnas.block_strings import block_string, parse_block
from mnas.ops import Activation, Convolution, Layer, Mean, NetworkPart, Residual, Visit
from mnas.require import checked_fields, require_choice, require_input_size, require_int, require_number

Padding = Literal["same", "symmetric"]

MAX_BLOCKS = 100
_PLAIN_SQUEEZE = tuple(LATER[name] for name in ("se_width", "se_activation", "se_gate"))


@dataclass(frozen=True, kw_only=True)
class Arch:
    """A network without its number of classes: stem convolution, blocks, 1x1 head, average pool, classifier.

    Raises ValueError if a field is out of range.
    """

    blocks: tuple[Block, ...]
    stem_filters: int = 32
    stem_stride: int = 2
    head_filters: int = 1280
    """Channels of the 1x1 convolution before the classifier; 0 without one."""
    activation: Activation = "relu"
    """Activation of stem and head, and of blocks that do not name their own."""
    dropout: float = 0.2
    """Dropout probability before the classifier (paper, section 5)."""
    bn_epsilon: float = 1e-3
    """Epsilon of batch norm, from the published code."""
    bn_momentum: float = 0.01
    """Momentum of batch norm as torch defines it, the weight of the new batch; the paper's 0.99 is one minus this."""
    padding: Padding = "same"
    """Padding rule: `same` as in TensorFlow and LiteRT, or `symmetric` as in timm and torchvision."""
    head_pooled: bool = False
    """Whether the head follows the average pool, as a hidden layer on one vector (MobileNetV3), instead of preceding
    it."""
    head_norm: bool = True
    """Whether the head has a batch norm, instead of a bias."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        for block in self.blocks:
            if not isinstance(block, Block):
                raise ValueError(f"blocks must be Blocks, but got {reprlib.repr(block)}")
        if not 1 <= len(self.blocks) <= MAX_BLOCKS:
            raise ValueError(f"an architecture must have 1 to {MAX_BLOCKS} blocks, but got {len(self.blocks)}")
        require_int("stem_filters", self.stem_filters, 1, MAX_FILTERS)
        require_choice("stem_stride", self.stem_stride, (1, 2))
        require_int("head_filters", self.head_filters, 0, MAX_FILTERS)
        require_choice("activation", self.activation, get_args(Activation))
        require_number("dropout", self.dropout, 0, 0.99)
        require_number("bn_epsilon", self.bn_epsilon, 1e-9, 1)
        require_number("bn_momentum", self.bn_momentum, 1e-9, 1)
        require_choice("padding", self.padding, get_args(Padding))
        require_choice("head_pooled", self.head_pooled, (False, True))
        require_choice("head_norm", self.head_norm, (False, True))
        for name in ("dropout", "bn_epsilon", "bn_momentum"):
            object.__setattr__(self, name, float(getattr(self, name)))

    # Derived values

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Layers of all blocks in order, with derived widths; stem and head are not included."""
        layers = []
        in_filters = self.stem_filters
        for number, block in enumerate(self.blocks, 1):
            for index in range(block.layers):
                stride = block.stride if index == 0 else 1
                skip = block.skip
                if skip == "identity" and (stride != 1 or in_filters != block.filters):
                    skip = "none"
                layers.append(
                    Layer(
                        name=f"block{number}.{index}",
                        op=block.op,
                        kernel=block.kernel,
                        start_kernel=block.start_kernel,
                        stride=stride,
                        in_filters=in_filters,
                        mid_filters=block.inside(in_filters),
                        out_filters=block.filters,
                        activation=self.activation if block.activation == "network" else block.activation,
                        projection_activation=block.projection_activation,
                        se_filters=block.squeezed(in_filters),
                        se_activation=block.se_activation,
                        se_gate=block.se_gate,
                        skip=skip,
                    )
                )
                in_filters = block.filters
        return tuple(layers)

    @property
    def features(self) -> int:
        """Number of values that enter the classifier."""
        return self.head_filters or self.blocks[-1].filters

    @functools.cached_property
    def stem(self) -> Convolution:
        return Convolution("stem", 3, self.stem_filters, 3, self.stem_stride, activation=self.activation)

    @functools.cached_property
    def head(self) -> Convolution | None:
        """The convolution before the classifier, if there is one."""
        if not self.head_filters:
            return None
        shape = self.blocks[-1].filters, self.head_filters
        return Convolution("head", *shape, activation=self.activation, norm=self.head_norm)

    @functools.cached_property
    def places(self) -> tuple[tuple[str, str, NetworkPart, str], ...]:
        """Parts from stem to classifier in order of computation: name, layer, part and source, as in `Visit`."""
        places: list[tuple[str, str, NetworkPart, str]] = [("stem", "stem", self.stem, "")]
        for layer in self.layers:
            entry = places[-1][0]
            for part in layer.parts:
                source = entry if isinstance(part, Residual) else places[-1][0]
                places.append((f"{layer.name}.{part.name}", layer.name, part, source))
        last: list[tuple[str, NetworkPart]] = [("head.mean", Mean())]
        if self.head:
            last.insert(1 if self.head_pooled else 0, ("head", self.head))
        for name, tail in last:
            places.append((name, "head", tail, places[-1][0]))
        return tuple(places)

    def visit(self, input_size: int) -> Iterator[Visit]:
        """Yield all parts from stem to head in order of computation, for an input_size x input_size image."""
        shapes = {"": (3, input_size, input_size)}
        for name, layer, part, source in self.places:
            before = shapes[source]
            shape = shapes[name] = part.output_shape(before)
            yield Visit(name, layer, part, source, before, shape)

    @property
    def output_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        stride = self.stem_stride
        for block in self.blocks:
            stride *= block.stride
        return stride

    def check_input_size(self, input_size: int, name: str = "--input-size") -> None:
        """Raise ValueError, naming `name`, if an image of `input_size` x `input_size` is too small for the strides."""
        require_input_size(name, input_size, self.output_stride)

    def canonical(self) -> "Arch":
        """Return the same network with one spelling for choices that make no difference.

        `identity` becomes `none` where no layer of a block can have it: one layer, with a stride or a change of width.
        An activation that is the network's becomes `network`. Without squeeze-and-excitation, its rules are the
        defaults; without a head, so are the head's.
        """
        blocks = []
        in_filters = self.stem_filters
        for block in self.blocks:
            if block.activation == self.activation:
                block = replace(block, activation="network")
            if block.se_ratio == 0 and (block.se_width, block.se_activation, block.se_gate) != _PLAIN_SQUEEZE:
                block = replace(block, **{name: LATER[name] for name in ("se_width", "se_activation", "se_gate")})
            if block.skip == "identity" and block.layers == 1 and (block.stride != 1 or in_filters != block.filters):
                block = replace(block, skip="none")
            blocks.append(block)
            in_filters = block.filters
        pooled, norm = (self.head_pooled, self.head_norm) if self.head_filters else (False, True)
        return replace(self, blocks=tuple(blocks), head_pooled=pooled, head_norm=norm)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of `canonical()`: 16 hexadecimal digits, the same on every machine and Python version."""
        text = json.dumps(self.canonical().to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    # Variants

    def scale_width(self, width_multiplier: float, *, scale_head: bool = False) -> "Arch":
        """Return the network with stem and blocks scaled in width by the published rounding rule.

        Args:
            scale_head: also scale the head.
        """
        require_number("width multiplier", width_multiplier, 0.01, 100)

        def scaled(filters: int) -> int:
            return round_filters(filters, width_multiplier)

        return replace(
            self,
            stem_filters=scaled(self.stem_filters),
            blocks=tuple(
                replace(b, filters=scaled(b.filters), mid_filters=b.mid_filters and scaled(b.mid_filters))
                for b in self.blocks
            ),
            head_filters=scaled(self.head_filters) if scale_head and self.head_filters else self.head_filters,
        )

    def with_output_stride(self, output_stride: int) -> "Arch":
        """Return the network with its earliest strides (the stem's first) set to 1 until `output_stride` remains.

        Early strides go first because small images have no resolution to lose before the first features exist.

        Raises:
            ValueError: the stride is not a power of 2, or larger than the network's own.
        """
        strides = with_product((self.stem_stride, *(b.stride for b in self.blocks)), output_stride)
        blocks = tuple(replace(b, stride=s) for b, s in zip(self.blocks, strides[1:], strict=True))
        return replace(self, stem_stride=strides[0], blocks=blocks)

    # Text forms

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values, from which `from_dict` restores an equal object.

        Fields that came after the first files are left out where they have their defaults, so that the fingerprints of
        older networks stay.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("head_pooled", "head_norm"):
            if values[name] == (name == "head_norm"):
                del values[name]
        # asdict would take twenty times as long
        values["blocks"] = [
            {name: value for name, value in vars(block).items() if name not in LATER or value != LATER[name]}
            for block in self.blocks
        ]
        return values

    @staticmethod
    def from_dict(values: object) -> "Arch":
        """Return the architecture of `to_dict`'s values. Raises ValueError on an unknown, missing or invalid field."""
        record = checked_fields(Arch, values, "architecture")
        if not isinstance(record["blocks"], list | tuple):
            raise ValueError(f"blocks must be a list, but got {reprlib.repr(record['blocks'])}")
        blocks = tuple(Block(**checked_fields(Block, b, f"block {i}")) for i, b in enumerate(record["blocks"], 1))
        return Arch(**{**record, "blocks": blocks})

    def to_json(self) -> str:
        """Return the architecture as JSON, one line per field."""
        return json.dumps(self.to_dict(), indent=1)

    @property
    def block_strings(self) -> tuple[str, ...]:
        """Blocks in the published notation, such as `r3_k5_s22_e3_i24_o40_se0.25_noskip`, with our extensions."""
        strings = []
        in_filters = self.stem_filters
        for block in self.blocks:
            strings.append(block_string(block, in_filters))
            in_filters = block.filters
        return tuple(strings)

    @property
    def lines(self) -> tuple[str, ...]:
        """Description of the network for people: its block strings."""
        return self.block_strings

    @property
    def not_in_strings(self) -> dict[str, Any]:
        """Fields that differ from their defaults, and that the block strings leave out."""
        default = Arch(blocks=self.blocks, stem_filters=self.stem_filters)
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Arch)}
        return {name: value for name, value in values.items() if value != getattr(default, name)}

    @staticmethod
    def from_block_strings(strings: str | Sequence[str]) -> "Arch":
        """Return the architecture of block strings (a sequence, or one text joined by commas), other fields by default.

        The stem is as wide as the first block's `i`, or 32 without one; every other `i` must equal the width before it.

        Raises:
            ValueError: a part is unknown, repeated or missing, or an `i` does not fit.
        """
        texts = strings.split(",") if isinstance(strings, str) else list(strings)
        parsed = [parse_block(text.strip()) for text in texts]
        if not parsed:
            raise ValueError("block strings must name at least one block, but got none")
        stem_filters = 32 if parsed[0][1] is None else parsed[0][1]
        in_filters = stem_filters
        for text, (block, stated) in zip(texts, parsed, strict=True):
            if stated is not None and stated != in_filters:
                raise ValueError(f"block string {text!r} has i{stated}, but its input has {in_filters} filters")
            in_filters = block.filters
        return Arch(blocks=tuple(block for block, _ in parsed), stem_filters=stem_filters)


def with_product(strides: Sequence[int], output_stride: int) -> tuple[int, ...]:
    """Return `strides` (each 1 or 2) with the earliest 2s replaced by 1 until their product is `output_stride`.

    Raises ValueError if `output_stride` is not a power of 2, or larger than their product.
    """
    product = math.prod(strides)
    if type(output_stride) is not int or output_stride < 1 or product % output_stride:
        raise ValueError(
            f"output stride must be a power of 2 up to the network's own {product}, but got {output_stride!r}"
        )
    surplus = product // output_stride
    reduced = []
    for stride in strides:
        if stride == 2 and surplus > 1:
            stride, surplus = 1, surplus // 2
        reduced.append(stride)
    return tuple(reduced)
