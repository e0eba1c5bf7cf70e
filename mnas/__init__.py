"""Platform-aware neural architecture search: MnasNet (Tan et al., CVPR 2019), and beyond."""

from typing import TYPE_CHECKING

from mnas.version import __version__

if TYPE_CHECKING:
    from mnas.predict.model import load_model as load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    if name == "load":
        from mnas.predict.model import load_model  # imports no runtime before there is a file to open

        return load_model
    raise AttributeError(f"module 'mnas' has no attribute {name!r}")
