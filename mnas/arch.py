"""Architectures as plain values: blocks of equal layers between a stem and a head.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1,
and the block strings of its published code (tensorflow/tpu, models/official/mnasnet). Departures
(docs/explanation/departures.md): blocks do not repeat their input's width (it is derived); names of ops, activations
and rules of squeeze-and-excitation extend the notation (docs/reference/block-strings.md).
"""

import dataclasses
import functools
import hashlib
import json
import math
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from mnas.ops import (
    KERNELS,
    MAX_EXPANSION,
    MIN_EXPANSION,
    OPS,
    Activation,
    Convolution,
    Gate,
    Layer,
    Mean,
    NetworkPart,
    Op,
    Residual,
    Skip,
    Visit,
    implied_op,
    plain_number,
)

Padding = Literal["same", "symmetric"]
BlockActivation = Literal["network", "relu", "relu6", "hardswish", "silu"]
SqueezedWidth = Literal["input", "middle"]

# These limits exceed every published network; they keep a typo from filling the memory.
MAX_FILTERS = 16384
MAX_LAYERS = 100
MAX_BLOCKS = 100
MOST_INPUT_SIZE = 8192
"""Largest side of an input image, in pixels."""


def require_int(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ValueError unless `value` is an int (not a bool) from `low` to `high`; None: no upper bound."""
    if type(value) is not int or value < low or (high is not None and value > high):
        rule = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {rule}, but got {reprlib.repr(value)}")


def require_number(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless `value` is an int or float (not a bool, not NaN) from `low` to `high`."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} must be a number from {low} to {high}, but got {reprlib.repr(value)}")


def require_input_size(name: str, value: object, output_stride: int = 1) -> None:
    """Raise ValueError unless `value` is an image side in pixels that is at least the output stride."""
    require_int(name, value, 1, MOST_INPUT_SIZE)
    if value < output_stride:  # type: ignore[operator]
        raise ValueError(
            f"{name} must be at least the output stride {output_stride}, but got {value}; "
            "use larger images or a smaller output stride (NAME/s8)"
        )


def require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless `value` is one of `choices` and has their type."""
    if type(value) not in {type(c) for c in choices} or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, but got {reprlib.repr(value)}")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A repeated layer; only its first repetition has the block's stride and changes the width.

    Raises ValueError if a field is out of range.
    """

    op: Op
    """Kind of layer, a row of `mnas.ops.OPS`: `conv` (k x k), `sepconv` (depthwise-separable), `mbconv` (mobile
    inverted bottleneck), `fused` (one whose k x k convolution also expands) or `uib` (universal inverted
    bottleneck)."""
    kernel: int
    """Side of the (depthwise) kernel: 3, 5 or 7; for a `conv` also 1; 0 for a `uib` without middle depthwise."""
    stride: int
    """Stride of the first layer: 1 or 2."""
    filters: int
    """Output channels of every layer."""
    layers: int = 1
    """Number of layers."""
    expansion: float = 1
    """Channels inside an `mbconv`, `fused` or `uib`, as a multiple of its input channels; 1 for the other ops. The
    product with a fraction is rounded to a multiple of 8 (`round_filters`)."""
    se_ratio: float = 0.0
    """Squeeze-and-excitation width as a share of the channels that `se_width` names; 0 disables it."""
    skip: Skip = "identity"
    """Addend of a layer's output: its input where shapes agree, a 3x3 average pool of the input, or nothing."""
    mid_filters: int = 0
    """Channels inside every layer, in place of an expansion; 0: those of the expansion."""
    start_kernel: int = 0
    """Side of the depthwise kernel of a `uib` before its expansion; 0 without one."""
    activation: BlockActivation = "network"
    """Activation of the block's layers; `network`: the architecture's."""
    projection_activation: bool = False
    """Whether an activation follows the projection too, as in MobileNetV1."""
    se_width: SqueezedWidth = "input"
    """Channels that `se_ratio` refers to: the layer's `input`, as in MnasNet and EfficientNet, or those in its
    `middle`, then rounded to a multiple of 8, as in MobileNetV3."""
    se_activation: Activation = "relu"
    """Activation between both convolutions of squeeze-and-excitation."""
    se_gate: Gate = "sigmoid"
    """Gate of squeeze-and-excitation."""

    def __post_init__(self) -> None:
        require_choice("op", self.op, tuple(OPS))
        row = OPS[self.op]
        _require_for_op("kernel", self.op, self.kernel, row.kernels)
        _require_for_op("start_kernel", self.op, self.start_kernel, row.start_kernels)
        require_choice("stride", self.stride, (1, 2))
        require_int("filters", self.filters, 1, MAX_FILTERS)
        require_int("layers", self.layers, 1, MAX_LAYERS)
        require_number("expansion", self.expansion, MIN_EXPANSION, MAX_EXPANSION)
        require_number("se_ratio", self.se_ratio, 0, 1)
        require_choice("skip", self.skip, get_args(Skip))
        require_int("mid_filters", self.mid_filters, 0, MAX_FILTERS)
        require_choice("activation", self.activation, get_args(BlockActivation))
        require_choice("projection_activation", self.projection_activation, (False, True))
        require_choice("se_width", self.se_width, get_args(SqueezedWidth))
        require_choice("se_activation", self.se_activation, get_args(Activation))
        require_choice("se_gate", self.se_gate, get_args(Gate))
        if not row.expands and (self.expansion != 1 or self.mid_filters):
            name = "expansion" if self.expansion != 1 else "mid_filters"
            rule = "1" if self.expansion != 1 else "0"
            raise ValueError(f"{name} must be {rule} for op {self.op}, but got {getattr(self, name)}")
        if self.mid_filters and self.expansion != 1:
            raise ValueError(f"expansion must be 1 where mid_filters is given, but got {self.expansion}")
        if self.projection_activation and not row.projects:
            raise ValueError(f"projection_activation must be False for op {self.op}, which has no projection")
        # 0 and 0.0, 4 and 4.0 must give the same JSON and hash
        object.__setattr__(self, "se_ratio", float(self.se_ratio))
        object.__setattr__(self, "expansion", plain_number(self.expansion))

    def inside(self, in_filters: int) -> int:
        """Return the channels inside a layer with `in_filters` input channels."""
        if self.mid_filters:
            return self.mid_filters
        if isinstance(self.expansion, int):
            return in_filters * self.expansion
        return round_filters(in_filters, self.expansion)

    def squeezed(self, in_filters: int) -> int:
        """Return the squeezed channels of a layer with `in_filters` input channels, 0 without squeeze-and-excitation.

        As in the published code, the ratio is relative to the layer's input by default, not to its expansion.
        """
        if self.se_ratio == 0:
            return 0
        if self.se_width == "input":
            return max(1, int(in_filters * self.se_ratio))
        width = self.filters if self.op == "conv" else self.inside(in_filters)
        return round_filters(width, self.se_ratio)


_LATER: dict[str, Any] = {field.name: field.default for field in fields(Block)[8:]}
"""Fields of a block that came after the first files, which contain them only if they differ from these defaults."""


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
                block = replace(block, **{name: _LATER[name] for name in ("se_width", "se_activation", "se_gate")})
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
            {name: value for name, value in vars(block).items() if name not in _LATER or value != _LATER[name]}
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
        for b in self.blocks:
            parts = [f"r{b.layers}", *([f"a{b.start_kernel}"] if b.start_kernel else []), f"k{b.kernel}"]
            parts += [f"s{b.stride}{b.stride}", f"m{b.mid_filters}" if b.mid_filters else f"e{b.expansion!r}"]
            parts += [f"i{in_filters}", f"o{b.filters}"]
            parts += [f"se{b.se_ratio!r}"] if b.se_ratio > 0 else []
            parts += [flag for flag, (name, value) in _FLAGS.items() if getattr(b, name) == value and name in _LATER]
            parts += {"identity": [], "none": ["noskip"], "pool": ["pool"]}[b.skip]
            parts += [b.op] if b.op != implied_op(b.expansion, b.mid_filters) else []
            strings.append("_".join(parts))
            in_filters = b.filters
        return tuple(strings)

    @property
    def lines(self) -> tuple[str, ...]:
        """Description of the network for people: its block strings."""
        return self.block_strings

    @staticmethod
    def from_block_strings(strings: str | Sequence[str]) -> "Arch":
        """Return the architecture of block strings (a sequence, or one text joined by commas), other fields by default.

        The stem is as wide as the first block's `i`, or 32 without one; every other `i` must equal the width before it.

        Raises:
            ValueError: a part is unknown, repeated or missing, or an `i` does not fit.
        """
        texts = strings.split(",") if isinstance(strings, str) else list(strings)
        parsed = [_parse_block(text.strip()) for text in texts]
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


def round_filters(filters: int, multiplier: float) -> int:
    """Return `filters` scaled by the published rounding rule; a multiplier of 1.0 changes nothing.

    The result is the nearest multiple of 8 and at least 8; 8 more if rounding would lose over 10 %.
    """
    if multiplier == 1.0:
        return filters
    scaled = filters * multiplier
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def checked_fields(cls: type, values: object, what: str) -> dict[str, Any]:
    """Return `values`; raise ValueError unless it maps all required fields of dataclass `cls`, and only its fields."""
    if not isinstance(values, dict):
        raise ValueError(f"{what} must be a mapping of fields, but got {reprlib.repr(values)}")
    fields_by_name = {f.name: f for f in fields(cls)}
    if unknown := [reprlib.repr(name) for name in values if name not in fields_by_name]:
        raise ValueError(f"{what} has unknown fields {', '.join(unknown)}; its fields are {', '.join(fields_by_name)}")
    required = (name for name, f in fields_by_name.items() if f.default is dataclasses.MISSING)
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{what} lacks the fields {', '.join(missing)}")
    return values


_PLAIN_SQUEEZE = tuple(_LATER[name] for name in ("se_width", "se_activation", "se_gate"))
_ACTIVATIONS = get_args(Activation)
_FLAGS: dict[str, tuple[str, Any]] = {
    "semid": ("se_width", "middle"),
    **{f"se{name}": ("se_activation", name) for name in _ACTIVATIONS if name != "relu"},
    "sehard": ("se_gate", "hardsigmoid"),
    **{name: ("activation", name) for name in _ACTIVATIONS},
    "act": ("projection_activation", True),
    "noskip": ("skip", "none"),
    "pool": ("skip", "pool"),
    **{name: ("op", name) for name in OPS},
}
"""Part of a block string without a number -> field and value."""
_NUMBERS = {
    "r": "layers",
    "a": "start_kernel",
    "k": "kernel",
    "s": "stride",
    "e": "expansion",
    "m": "mid_filters",
    "o": "filters",
    "se": "se_ratio",
}
_REQUIRED = ("r", "k", "s", "e", "o")
_EXAMPLE = "an example is r3_k5_s22_e3_i24_o40"
_PART = re.compile(
    r"(se)(\d{1,3}(?:\.\d{1,25})?(?:e-\d{1,3})?)|(e)(\d{1,2}(?:\.\d{1,25})?)|([rakseimo])(\d{1,6})", re.ASCII
)


def _parse_block(text: str) -> tuple[Block, int | None]:
    """Return the block of one block string, and the input width in it (None if absent)."""
    numbers: dict[str, str] = {}
    flags: dict[str, str] = {}  # field -> flag
    for part in text.split("_"):
        match = _PART.fullmatch(part)
        if not match and part not in _FLAGS:
            raise ValueError(f"block string {text!r} has an unknown part {part!r}; {_EXAMPLE}")
        key, number = (found for found in match.groups() if found) if match else (part, "")
        if key in numbers or key in flags.values():
            raise ValueError(f"block string {text!r} has {key!r} twice")
        if match:
            numbers[key] = number
        elif other := flags.get(field := _FLAGS[part][0]):
            raise ValueError(f"block string {text!r} has both {other} and {part}")
        else:
            flags[field] = part
    required = [key for key in _REQUIRED if key != "e" or "m" not in numbers]
    if missing := [key for key in required if key not in numbers]:
        raise ValueError(f"block string {text!r} lacks {', '.join(missing)}; {_EXAMPLE}")
    if {"e", "m"} <= numbers.keys():
        raise ValueError(f"block string {text!r} has both e{numbers['e']} and m{numbers['m']}")
    if numbers["s"] not in ("11", "22"):
        raise ValueError(f"block string {text!r} must have stride s11 or s22, but got s{numbers['s']}")
    stated = numbers.pop("i", None)
    numbers["s"] = numbers["s"][0]
    values: dict[str, Any] = {_NUMBERS[key]: plain_number(float(number)) for key, number in numbers.items()}
    values |= {field: _FLAGS[flag][1] for field, flag in flags.items()}
    values.setdefault("op", implied_op(values.get("expansion", 1), values.get("mid_filters", 0)))
    try:
        block = Block(**values)
    except ValueError as error:
        raise ValueError(f"block string {text!r}: {error}") from None
    return block, None if stated is None else int(stated)


def _require_for_op(name: str, op: Op, value: object, choices: Sequence[int]) -> None:
    """Raise ValueError unless `value` is one of `choices`, those of the op."""
    if type(value) is not int or value not in choices:
        listed = ", ".join(map(str, choices))
        limit = "" if len(choices) == len(KERNELS) else f" for op {op}"
        raise ValueError(f"{name} must be one of {listed}{limit}, but got {reprlib.repr(value)}")
