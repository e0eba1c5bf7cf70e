"""The `say` argument of the Python functions: what takes lines while they work."""

import inspect
from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line, as `print` does."""


def silence(text: str) -> None:
    """Print nothing."""


SAY = inspect.Parameter("say", inspect.Parameter.KEYWORD_ONLY, default=silence, annotation=Say)
"""The parameter as signatures show it."""
