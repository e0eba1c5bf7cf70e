"""Find the weights in a checkpoint: averaged ones first, without the prefixes of wrappers."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mnas.nn.checkpoint import Placeholder, StoredTensor, WouldRunError
from mnas.nn.layouts import LAYOUTS, layout_of

Weights = dict[str, StoredTensor | Tensor]

_NESTS = (
    "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "averaged_model", "state_dict",
    "model_state_dict", "model", "net", "network", "module", "weights", "params",
)  # fmt: skip  # averaged weights first, as in timm
_WRAPPERS = ("module.", "_orig_mod.")  # DDP's and torch.compile's
_PREFIXES = ("ema_model.", "model_ema.", "ema.", "module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_DEEPEST = 4
_SHOWN = 3


def find_weights(saved: Any, source: str) -> Weights:
    """Return the tensors by their names in a supported layout, or by those in the file if no layout fits.

    Raises:
        ValueError: there is no state dict, or there are several networks under unusual names.
    """
    first: Weights | None = None
    others: dict[str, Weights] = {}
    for name, tensors in _candidates(saved, "", 0, set()):
        weights = _unwrapped(tensors)
        if layout_of(weights) is None:
            first = first or weights
        elif name:
            others.setdefault(name, weights)
        else:
            return weights
    if len(others) > 1:  # such as a teacher and a student
        raise ValueError(
            f"weights file {source!r} must contain one network, but got several ({', '.join(map(repr, others))}); "
            "save the state_dict() of one of them"
        )
    if others or first is not None:
        return next(iter(others.values())) if others else first or {}
    if isinstance(saved, Placeholder):
        raise WouldRunError(saved.name)
    kind = type(saved).__name__
    if isinstance(saved, Mapping) and saved:
        names = [str(key) for key in saved]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ValueError(
            f"weights file {source!r} must contain a state dict of tensors only, "
            f"but got {', '.join(names[:_SHOWN])}{more}"
        )
    raise ValueError(f"weights file {source!r} must contain a state dict, but got {kind}")


def _candidates(saved: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Weights]]:
    """Yield state dicts, the most likely first: those under a usual name, this one, then those under other names.

    Each comes with the unusual name that contains it, empty if all names are usual.
    """
    if not isinstance(saved, Mapping) or depth > _DEEPEST or id(saved) in seen:
        return
    seen.add(id(saved))  # a mapping may contain itself
    for nest in _NESTS:
        yield from _candidates(saved.get(nest), name, depth + 1, seen)
    # Numbers and settings may be stored beside the tensors.
    here: Weights = {str(key): value for key, value in saved.items() if isinstance(value, StoredTensor | Tensor)}
    here.pop("n_averaged", None)  # a counter of torch's AveragedModel
    if here:
        yield name, here
    for key, value in saved.items():
        if key not in _NESTS and not str(key).startswith(("optim", "lr_", "sched", "callback", "loop")):
            yield from _candidates(value, name or str(key)[:60], depth + 1, seen)


def _unwrapped(named: Weights) -> Weights:
    while prefix := next((p for p in _WRAPPERS if all(key.startswith(p) for key in named)), None):
        named = {key.removeprefix(prefix): value for key, value in named.items()}
    if layout_of(named) is not None:
        return named
    for prefix in _PREFIXES:  # the module of a training may contain several networks and losses
        part = {key.removeprefix(prefix): value for key, value in named.items() if key.startswith(prefix)}
        if part and len(part) < len(named) and layout_of(inner := _unwrapped(part)) is not None:
            return inner
    marked = {key.removesuffix(layout.mark) for layout in LAYOUTS for key in named if key.endswith(f".{layout.mark}")}
    outermost = [prefix for prefix in marked if not any(prefix.startswith(other) for other in marked - {prefix})]
    if len(outermost) == 1:  # an unusual one, beside the tensors of a loss or a metric
        part = {key.removeprefix(outermost[0]): value for key, value in named.items() if key.startswith(outermost[0])}
        if len(part) < len(named):
            return _unwrapped(part)
    first = next(iter(named)).partition(".")[0] + "."
    if first != "." and all(key.startswith(first) and len(key) > len(first) for key in named):
        inner = _unwrapped({key.removeprefix(first): value for key, value in named.items()})
        return inner if layout_of(inner) is not None else named
    return named
