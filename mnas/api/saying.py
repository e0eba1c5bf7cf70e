"""Output of the Python functions while they work: none, or lines of text passed to their `say` argument."""

import contextlib
import inspect
from collections.abc import Callable, Iterator

import optuna

Say = Callable[[str], None]
"""Function that receives a line of text, such as `print`."""


def silence(text: str) -> None:
    """Print nothing."""


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging each new study; restore the caller's log level at the end."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


SAY = inspect.Parameter("say", inspect.Parameter.KEYWORD_ONLY, default=silence, annotation=Say)
"""Parameter `say` in the form that signatures show."""
