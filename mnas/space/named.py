"""Spaces by name, and users' spaces in TOML files (docs/reference/space-toml.md)."""

import difflib
import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from mnas.cell_arch import CellSkeleton
from mnas.imports import described, imported
from mnas.readers import TOML_BYTES, parse_toml, read_regular
from mnas.require import require_choice
from mnas.space.cell import SEARCHED, CellSpace
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.per_layer import PerLayerSpace
from mnas.space.skeleton import MOBILENETV2, MOBILENETV4, Skeleton
from mnas.space.space import Space

# Widths are fixed within the stages of UIB, as in the second, fine-grained search of MobileNetV4 (arXiv:2404.10518):
# most blocks have one layer, which another width would deprive of its residual.
_FUSED = BlockChoices(
    op=("fused1", "fused2", "fused3", "fused4"),
    kernel=(3,),
    se_ratio=(0.0,),
    skip=("none",),
    layers=(0,),
    projection_activation=(True,),  # as after both convolutions of the published network's first stages
)
_UIB = BlockChoices(
    op=("uib2", "uib3", "uib4", "uib6"),
    kernel=(0, 3, 5),
    se_ratio=(0.0,),
    skip=("identity",),
    filters=(1.0,),
    layers=(0, 1),
    start_kernel=(0, 3, 5),
)
_UIB_STRIDED = replace(_UIB, kernel=(3, 5), layers=(0,))
_UIB_REPEATED = replace(_UIB, layers=(-1, 0, 1))
_LAST = replace(_UIB, op=("conv",), kernel=(1,), skip=("none",), layers=(0,), start_kernel=(0,))

SPACES: dict[str, Space] = {
    "mnasnet": FactorizedSpace(name="mnasnet", skeleton=MOBILENETV2, block_choices=(BlockChoices(),) * 7),
    # paper, Table 2: B1 was searched without squeeze-and-excitation
    "mnasnet-no-se": FactorizedSpace(
        name="mnasnet-no-se", skeleton=MOBILENETV2, block_choices=(BlockChoices(se_ratio=(0.0,)),) * 7
    ),
    "per-layer": PerLayerSpace(name="per-layer", skeleton=MOBILENETV2, block_choices=(BlockChoices(layers=(0,)),) * 7),
    "mobilenetv4": FactorizedSpace(
        name="mobilenetv4",
        skeleton=MOBILENETV4,
        block_choices=(
            *(_FUSED, _FUSED),
            *(_UIB_STRIDED, _UIB_REPEATED, _UIB),
            *(_UIB_STRIDED, _UIB, _UIB, _UIB, _UIB_REPEATED),
            _LAST,
        ),
    ),
    "cell": CellSpace(name="cell"),
}
"""Name -> space."""


def load_space(name: str, *, option: str = "--space") -> Space:
    """Return the space of that name, of the TOML file at that path, or that `module:factory` returns.

    Args:
        option: option or argument that names the space, for errors.

    Raises:
        ValueError: the space or file does not exist, the file is invalid, or the factory fails or returns no space; one
            line that names it.
    """
    if name in SPACES:
        return SPACES[name]
    if ":" in name and not name.endswith(".toml") and not os.path.exists(name):
        return _space_of_factory(name, option)
    if not name.endswith(".toml") and not os.path.isfile(name):
        close = difflib.get_close_matches(name, SPACES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"{option} must be one of {', '.join(SPACES)}, the path of a .toml file or module:factory, "
            f"but got {name!r}{hint}"
        )
    try:
        text = read_regular(name, TOML_BYTES).decode("utf-8-sig")
        return space_from_toml(text)
    except OSError as error:
        raise ValueError(f"space file {name!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"space file {name!r} must be UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"space file {name!r}: {error}") from None


def _space_of_factory(name: str, option: str) -> Space:
    """Return the space that `module:factory` returns. Raises ValueError unless a run can store and reload it."""
    factory = imported(name, option, f"one of {', '.join(SPACES)}, the path of a .toml file or module:factory")
    try:
        space = factory()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ValueError(f"{option} {name}: calling {name.partition(':')[2]} failed: {described(error)}") from error
    if not isinstance(space, FactorizedSpace | PerLayerSpace | CellSpace):
        raise ValueError(
            f"{option} {name} must return a FactorizedSpace, PerLayerSpace or CellSpace of mnas, but got "
            f"{type(space).__name__}"
        )
    return space


def space_from_toml(text: str) -> Space:
    """Return the space of a TOML text. Raises ValueError if it is not TOML, or not a space."""
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise ValueError(f"not valid TOML: {error}") from None
    return space_from_dict(values)


def space_from_dict(values: object) -> Space:
    """Return the space of `Space.to_dict`'s values or a TOML file's; defaults are those of the `mnasnet` space.

    Raises:
        ValueError: a key is unknown, or a value has the wrong type or is out of range.
    """
    kind = values.get("kind", "factorized") if isinstance(values, dict) else "factorized"
    require_choice("kind", kind, ("factorized", "per-layer", "cell"))
    return _cell_space(values) if kind == "cell" else _space_of_blocks(values, kind)


def _space_of_blocks(values: object, kind: str) -> Space:
    table = _named_table(values, ["name", "skeleton", "choices", "block", "kind"])
    skeleton = Skeleton(**_table(table.get("skeleton", {}), "[skeleton]", _names(Skeleton)))
    default = BlockChoices() if kind == "factorized" else BlockChoices(layers=(0,))
    common = _choices(default, table.get("choices", {}), "[choices]")
    choices = [common] * len(skeleton.filters)
    blocks = table.get("block", {})
    for key, changed in _table(blocks, "[block]", [str(number + 1) for number in range(len(choices))]).items():
        choices[int(key) - 1] = _choices(common, changed, f"[block.{key}]")
    space = FactorizedSpace if kind == "factorized" else PerLayerSpace
    return space(name=table["name"], skeleton=skeleton, block_choices=tuple(choices))


def _cell_space(values: object) -> CellSpace:
    table = _named_table(values, ["name", "skeleton", "pairs", "ops", "concat", "kind"])
    skeleton = replace(SEARCHED, **_table(table.get("skeleton", {}), "[skeleton]", _names(CellSkeleton)))
    fields_given = {name: value for name, value in table.items() if name not in ("skeleton", "kind")}
    return CellSpace(skeleton=skeleton, **fields_given)


def _named_table(values: object, keys: Sequence[str]) -> dict[str, Any]:
    table = _table(values, "a space", keys)
    if "name" not in table:
        raise ValueError("a space must have a name (name = ...)")
    return table


def _choices(common: BlockChoices, changed: object, where: str) -> BlockChoices:
    try:
        return replace(common, **_table(changed, where, _names(BlockChoices)))
    except ValueError as error:
        raise ValueError(str(error) if where in str(error) else f"{where}: {error}") from None


def _names(cls: type) -> list[str]:
    return [field.name for field in fields(cls)]


def _table(values: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return `values` if it is a table with only these keys. Raises ValueError otherwise."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table, but got {reprlib.repr(values)}")
    for key in values:
        if key not in keys:
            quoted = key if isinstance(key, str) and re.fullmatch(r"[\w-]{1,40}", key) else reprlib.repr(key)
            raise ValueError(f"{where} has no key {quoted}; its keys are {', '.join(keys)}")
    return values
