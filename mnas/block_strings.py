"""Block strings: the notation of the published MnasNet code for blocks (tensorflow/tpu, models/official/mnasnet).

Departure (docs/explanation/departures.md): names of ops, activations and rules of squeeze-and-excitation extend the
notation (docs/reference/block-strings.md).
"""

import re
from typing import Any, get_args

from mnas.block import LATER, Block
from mnas.ops import OPS, Activation, implied_op, plain_number

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


def block_string(block: Block, in_filters: int) -> str:
    """Return the block in this notation, such as `r3_k5_s22_e3_i24_o40_se0.25_noskip`."""
    parts = [f"r{block.layers}", *([f"a{block.start_kernel}"] if block.start_kernel else []), f"k{block.kernel}"]
    parts += [
        f"s{block.stride}{block.stride}",
        f"m{block.mid_filters}" if block.mid_filters else f"e{block.expansion!r}",
    ]
    parts += [f"i{in_filters}", f"o{block.filters}"]
    parts += [f"se{block.se_ratio!r}"] if block.se_ratio > 0 else []
    parts += [flag for flag, (name, value) in _FLAGS.items() if getattr(block, name) == value and name in LATER]
    parts += {"identity": [], "none": ["noskip"], "pool": ["pool"]}[block.skip]
    parts += [block.op] if block.op != implied_op(block.expansion, block.mid_filters) else []
    return "_".join(parts)


def parse_block(text: str) -> tuple[Block, int | None]:
    """Return the block of one block string, and the input width in it (None if absent)."""
    numbers: dict[str, str] = {}
    flags: dict[str, str] = {}  # field -> flag
    for part in text.split("_"):
        match = _PART.fullmatch(part)
        if not match and part not in _FLAGS:
            raise ValueError(f"block string {text!r} has an unknown part {part!r}; {_EXAMPLE}")
        key, number = (group for group in match.groups() if group) if match else (part, "")
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
    if "m" in numbers and int(numbers["m"]) == 0:
        raise ValueError(f"block string {text!r} must have m1 or more, but got m{numbers['m']}")
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
