"""The networks that can be cut from a parent, as decisions relative to it, so that several parents share them.

A choice is a share of the parent's channels or expansion, a number of layers more or less, or the parent's own value.
Which of these is sound for a block follows from its op: what cannot be cut keeps the value of the parent, always.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.block import Block
from mnas.ops import OPS
from mnas.space.space import Choice, Decision

WIDTHS = (1.0, 0.75, 0.5)
"""Shares of the parent's channels, of stem, blocks and head."""
LAYERS = (0, -1, -2)
"""Layers more than the parent's block has; one is kept."""
EXPANSIONS = (1.0, 0.67, 0.5, 0.33)
"""Shares of the parent's expansion."""
SAME = "parent"
KERNELS = (SAME, 3, 5)
SQUEEZES = (SAME, 0.25)
_MULTIPLE = 4  # of channels
_LEAST_CHANNELS = 8


_BLOCK = (
    Decision("layers", LAYERS),
    Decision("kernel", KERNELS),
    Decision("expansion", EXPANSIONS),
    Decision("se_ratio", SQUEEZES),
    Decision("width", WIDTHS),
)
"""Decisions about each block, without its number."""


def can_be_cut(arch: Architecture) -> bool:
    """Return whether smaller networks can be cut from one of this architecture."""
    return isinstance(arch, Arch)


def decisions_of_cuts(parents: Sequence[Architecture]) -> tuple[Decision, ...]:
    """Return the decisions about what is cut from these parents; those of later blocks serve the deepest ones."""
    blocks = max((len(arch.blocks) for arch in parents if isinstance(arch, Arch)), default=0)
    if not blocks:
        return ()
    inner = (Decision(f"cut.block{n}.{d.name}", d.choices) for n in range(1, blocks + 1) for d in _BLOCK)
    return (Decision("cut.stem.width", WIDTHS), *inner, Decision("cut.head.width", WIDTHS))


def cut_arch(parent: Architecture, params: Mapping[str, Any]) -> Architecture:
    """Return the network that the choices cut from a parent, in canonical form; the parent itself where nothing is cut.

    Args:
        params: decision -> choice, of all decisions at least for the parent's blocks; others are ignored.
    """
    if not isinstance(parent, Arch):
        return parent
    blocks = []
    for number, block in enumerate(parent.blocks, 1):
        fields = dict(_cut(block, decision.name, params[f"cut.block{number}.{decision.name}"]) for decision in _BLOCK)
        blocks.append(replace(block, **fields))
    changed = replace(
        parent,
        blocks=tuple(blocks),
        stem_filters=narrowed(parent.stem_filters, params["cut.stem.width"]),
        head_filters=narrowed(parent.head_filters, params["cut.head.width"]) if parent.head_filters else 0,
    )
    return parent if changed == parent else changed.canonical()


def uniform_cut(parent: Architecture, *, width: float, expansion: float, layers: int = 0) -> Architecture:
    """Return the network with the same share of channels and expansion, and as many layers less, in every block."""
    if not isinstance(parent, Arch):
        return parent
    choices: dict[str, Choice] = {
        "layers": layers,
        "kernel": SAME,
        "expansion": expansion,
        "se_ratio": SAME,
        "width": width,
    }
    params = {
        f"cut.block{n}.{name}": choice for n in range(1, len(parent.blocks) + 1) for name, choice in choices.items()
    }
    return cut_arch(parent, {**params, "cut.stem.width": width, "cut.head.width": 1.0})


def smallest_cut(parent: Architecture) -> Architecture:
    """Return the network with the fewest multiply-accumulates that can be cut from a parent, kernels aside."""
    return uniform_cut(parent, width=WIDTHS[-1], expansion=EXPANSIONS[-1], layers=LAYERS[-1])


def params_of_cut(parent: Architecture, arch: Architecture) -> dict[str, Choice]:
    """Return the first choices, decision -> choice, that cut `arch` from the parent. Raises ValueError if none do."""
    if not isinstance(parent, Arch) or not isinstance(arch, Arch) or len(arch.blocks) != len(parent.blocks):
        raise ValueError("it has other blocks than the parent")
    params: dict[str, Choice] = {}
    for place, whole, channels in (
        ("stem", parent.stem_filters, arch.stem_filters),
        ("head", parent.head_filters, arch.head_filters),
    ):
        params[f"cut.{place}.width"] = _first(
            f"channels of the {place}", channels, [(width, narrowed(whole, width)) for width in WIDTHS]
        )
    for number, (theirs, ours) in enumerate(zip(parent.blocks, arch.blocks, strict=True), 1):
        for decision in _BLOCK:
            field = _cut(theirs, decision.name, decision.choices[0])[0]
            offered = [(choice, _cut(theirs, decision.name, choice)[1]) for choice in decision.choices]
            params[f"cut.block{number}.{decision.name}"] = _first(
                f"{field} of block {number}", getattr(ours, field), offered
            )
    if cut_arch(parent, params).canonical() != arch.canonical():
        raise ValueError("it differs from what can be cut from the parent")
    return params


def values_of_cuts(parent: Arch) -> list[tuple[str, dict[str, tuple[Any, ...]]]]:
    """Return each place (`stem`, block number, `head`) with the different values of each field that can be chosen."""
    rows: list[tuple[str, dict[str, tuple[Any, ...]]]] = []
    for number, block in enumerate(parent.blocks, 1):
        fields: dict[str, tuple[Any, ...]] = {}
        for decision in _BLOCK:
            results = [_cut(block, decision.name, choice) for choice in decision.choices]
            fields[results[0][0]] = tuple(dict.fromkeys(value for _, value in results))
        rows.append((str(number), fields))
    stem, head = (
        {"filters": tuple(dict.fromkeys(narrowed(channels, width) for width in WIDTHS))}
        for channels in (parent.stem_filters, parent.head_filters)
    )
    return [("stem", stem), *rows, *([("head", head)] if parent.head_filters else [])]


def count_cuts(parent: Architecture) -> int:
    """Return the number of different networks that can be cut from a parent, itself included, or an upper bound."""
    if not isinstance(parent, Arch):
        return 1
    return math.prod(len(values) for _, fields in values_of_cuts(parent) for values in fields.values())


def narrowed(channels: int, share: float) -> int:
    """Return the share of the channels, as the nearest multiple of 4, at least 8 and at most all."""
    if share == 1:
        return channels
    return min(channels, max(_LEAST_CHANNELS, int(channels * share / _MULTIPLE + 0.5) * _MULTIPLE))


def _cut(block: Block, name: str, choice: Any) -> tuple[str, Any]:
    """Return the field of a block that a decision sets, and its value; the parent's where a cut is not sound.

    The output channels of a `conv` are its channels inside, and those of a block with a nonlinear result are all read:
    they stay.
    """
    row = OPS[block.op]
    if name == "layers":
        return "layers", max(1, block.layers + choice)
    if name == "kernel":
        allowed = choice != SAME and block.kernel > 1 and choice in row.kernels
        return "kernel", choice if allowed else block.kernel
    if name == "se_ratio":
        return "se_ratio", block.se_ratio if choice == SAME or not row.projects or block.se_ratio else choice
    if name == "width":
        linear = row.projects and not block.projection_activation
        return "filters", narrowed(block.filters, choice) if linear else block.filters
    if block.mid_filters:
        return "mid_filters", narrowed(block.mid_filters, choice)
    return "expansion", max(1, round(block.expansion * choice)) if row.expands and choice != 1 else block.expansion


def _first(what: str, value: object, offered: Sequence[tuple[Choice, object]]) -> Choice:
    """Return the first choice that gives the value. Raises ValueError if none does."""
    for choice, result in offered:
        if result == value:
            return choice
    raise ValueError(f"{what} must be one of {', '.join(str(result) for _, result in offered)}, but got {value}")
