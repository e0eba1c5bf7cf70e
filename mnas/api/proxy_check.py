"""`mnas.proxy_check`: find a short training that ranks networks as a long one does, from Python."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, silence
from mnas.proxycheck.check import ProxyCheck
from mnas.proxycheck.run import run_proxy_check
from mnas.proxycheck.settings import ProxyCheckSettings
from mnas.settings import from_options, signature_of


@names_keywords
def proxy_check(*, say: Say = silence, **options: Any) -> ProxyCheck:
    """Train various architectures briefly and at length, and find the cheapest training that ranks them alike.

    The same call resumes an interrupted check, also with more architectures, seeds or settings. A script needs the
    usual `if __name__ == "__main__":`.

    Args:
        say: function that receives a line of text for each training, such as `print`.
        options: options of `mnas proxy-check --help-all`, with underscores: `data`, `architectures`, `seeds`, ...

    Returns:
        The comparison: `agreements` of all settings with the long training, and the `recommended` setting.

    Raises:
        ValueError: an option is unknown or out of range, the images cannot be used, or the folder contains another
            check.

    Examples:
        >>> check = mnas.proxy_check(
        ...     data="digits", width=0.25, input_size=8, output_stride=8, max_images_per_class=10, workers=1,
        ...     architectures=3, seeds=1, epochs=2, fewest_steps=1, reference_epochs=3, out="check",
        ...     try_epochs=[1], try_image_shares=[0.5], try_input_sizes=[8],
        ... )
        >>> [(setting.epochs, setting.image_share) for setting in check.settings]
        [(2, 1.0), (2, 0.5), (1, 1.0)]
    """

    @contextlib.contextmanager
    def counting(total: int) -> Iterator[Callable[[int, str], None]]:
        yield lambda done, line: say(f"[{done}/{total}] {line}") if line else None

    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    lists = ("also", "try_epochs", "try_image_shares", "try_input_sizes")
    settings = from_options(ProxyCheckSettings, joined(options, *lists))
    return run_proxy_check(
        settings, say=say, progress=silence, counting=counting, command=f"mnas.proxy_check({arguments})"
    )


proxy_check.__signature__ = signature_of(  # type: ignore[attr-defined]
    ProxyCheckSettings, returns=ProxyCheck, more=(SAY,)
)
