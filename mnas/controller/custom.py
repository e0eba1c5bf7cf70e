"""Custom controllers: `module:factory` names a function or class that returns an Optuna sampler."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from optuna.samplers import BaseSampler

from mnas.imports import described

PARAMETERS = ("space", "seed", "reward", "batch_size")
"""Parameters that a factory may have; it receives only those."""


def parameters_of(factory: Callable[..., object]) -> list[str]:
    """Return which of `PARAMETERS` the factory has."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in PARAMETERS if name in parameters]


def sampler_of(name: str, factory: Callable[..., object], values: Mapping[str, Any]) -> BaseSampler:
    """Return a new sampler of `factory`, called with the `values` that it takes.

    Raises:
        ValueError: the call fails or returns something else; the message is one line.
    """
    try:
        sampler = factory(**{parameter: values[parameter] for parameter in parameters_of(factory)})
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise ValueError(f"calling {name} failed: {described(error)}") from error
    if not isinstance(sampler, BaseSampler):
        raise ValueError(f"{name} must return an optuna.samplers.BaseSampler, but got {type(sampler).__name__}")
    return sampler
