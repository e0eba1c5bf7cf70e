"""Match the classes of a data set to a model's outputs: by name, by ImageNet's own names, or by order."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnas.labels import same_name
from mnas.predict.info import ModelInfo
from mnas.predict.numbered import by_number, same_numbers

_WORDNET = re.compile(r"n\d{8}")


def match_classes(info: ModelInfo, classes: Sequence[str], *, in_order: bool = True) -> tuple[NDArray[np.int64], str]:
    """Return the output of each of the data's classes, and how they were matched, in words (empty: equal names).

    Names match in any order; the data may have fewer classes than the model. ImageNet's folders (`n01440764`) match
    models with 1000 outputs, and with 1001 including a background. A model without names matches data with as many
    classes: by number, where the classes are 0 to N - 1 or 1 to N, else in order.

    Args:
        in_order: whether the data's order has a meaning, from a list of classes or an option of the user. Otherwise it
            is that of folders, sorted as text, and only a guess for a model without names.

    Raises:
        ValueError: the data has more or other classes than the model, or their order would be a guess.
    """
    if (by_name := _indices(info, classes)) is not None:
        return by_name, _by_name(info, classes)
    if info.classes is not None and (numbers := same_numbers(info.classes, classes)) is not None:
        return numbers, "classes matched by number"
    has_own = info.classes is not None and any(_WORDNET.fullmatch(name) for name in info.classes)
    if not has_own and info.outputs in (1000, 1001) and all(_WORDNET.fullmatch(name) for name in classes):
        return _imagenet(classes, info.outputs - 1000), "classes matched by ImageNet's order"
    if len(classes) > info.outputs:
        raise ValueError(
            f"--data must have at most the model's {info.outputs} classes, but got {len(classes)}; "
            "score a model that was trained on these classes"
        )
    if info.classes is not None:
        own_names = set(map(same_name, info.classes))
        unknown = [name for name in classes if same_name(name) not in own_names]
        raise ValueError(
            f"the data's classes must be the model's ({_some(info.classes)}), but got {_some(unknown)}; "
            "rename the folders, or name the outputs with --class-file"
        )
    if len(classes) != info.outputs:
        raise ValueError(
            f"--data must have {info.outputs} classes, because the model has no class names, but got "
            f"{len(classes)}; name the outputs with --class-file"
        )
    if (numbered := by_number(classes)) is not None:
        return numbered
    if not in_order:
        raise ValueError(
            "the order of the classes is unknown, because the model has no class names and folders are sorted as "
            f"text ({_some(classes)}); name the outputs with --class-file, or use --class-order data"
        )
    return np.arange(len(classes)), "the model has no class names; classes matched in the data's order"


def _by_name(info: ModelInfo, classes: Sequence[str]) -> str:
    """Return how classes were matched by name; empty where the names are equal."""
    words = "" if tuple(classes) == info.classes else "classes matched by name"
    if len(classes) < info.outputs:
        words = f"the data has {len(classes)} of the model's {info.outputs} classes, matched by name"
    return words if set(classes) <= set(info.classes or ()) else f"{words} (some differ in their Unicode form)"


def _indices(info: ModelInfo, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the output of each class by its name, in any Unicode form; None where the model lacks a name."""
    outputs = {same_name(name): index for index, name in reversed(list(enumerate(info.classes or ())))}
    indices = [outputs.get(same_name(name)) for name in classes]
    return None if info.classes is None or None in indices else np.array(indices, np.int64)


def _imagenet(classes: Sequence[str], first: int) -> NDArray[np.int64]:
    from timm.data import ImageNetInfo

    order = {name: index for index, name in enumerate(ImageNetInfo().label_names(), first)}
    if unknown := [name for name in classes if name not in order]:
        raise ValueError(f"the data's classes must be among ImageNet's 1000, but got {_some(unknown)}")
    return np.array([order[name] for name in classes], np.int64)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
