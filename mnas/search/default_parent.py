"""The choice of `--parent auto`: published weights, where they are more accurate than a search from scratch.

Networks trained from random weights did not catch up with fine-tuned ones at 40,000 images (docs/measurements/
training.md).
"""

import dataclasses
from pathlib import Path

from mnas.data.named import NAMED
from mnas.nn.packaged import packaged_file
from mnas.readers import stored_settings
from mnas.scaling import input_sizes
from mnas.search.settings import SMALLEST_SIZE, SearchSettings
from mnas.study import read_run
from mnas.zoo.weights import PACKAGES

DEFAULT = "efficientnet-lite0"
"""Network whose published weights a search begins from."""
FEW_IMAGES = 50_000
"""Number of training images below which pretrained weights are likely to serve better than a search from scratch."""


def with_parent(settings: SearchSettings) -> tuple[SearchSettings, str]:
    """Return the settings with the parent that `auto` stands for, empty where the search begins from random weights.

    A run that has begun keeps what it began with. A new run begins with the parents of the run from which it imports
    trials. The images are listed but not decoded.

    Returns:
        settings, and a line about the choice; empty where there is nothing to say.

    Raises:
        ValueError: the study of a run that began with parents is damaged.
    """
    if settings.parent != "auto":
        return settings, ""
    scratch = dataclasses.replace(settings, parent="")
    if settings.from_scratch or settings.space_options:
        return scratch, ""
    if (settings.run / "config.json").exists():
        return _as_in(settings.run, settings), ""
    if settings.start_from != "auto":
        earlier = [Path(name) for name in settings.start_names if (Path(name) / "config.json").exists()]
        return (_as_in(earlier[0], settings) if earlier else scratch), ""
    images = _few_large_images(settings)
    if not images or not weights_at_hand():
        return scratch, ""
    line = (
        f"with {images:,} training images, the search begins from the published weights of {DEFAULT} and cuts smaller "
        "networks from it; to begin from random weights, use --from-scratch"
    )
    return dataclasses.replace(settings, parent=DEFAULT), line


def weights_at_hand() -> bool:
    """Return whether the package with the weights is installed."""
    try:
        packaged_file(PACKAGES[DEFAULT])
    except ImportError:
        return False
    except ValueError:  # damaged: reading it reports the fault
        return True
    return True


def _as_in(run: Path, settings: SearchSettings) -> SearchSettings:
    """Return the settings with the parents of a run, and with a search from random weights if the run has one."""
    config = stored_settings(run / "config.json") or {}
    parents = config.get("parents")
    if not parents:
        return dataclasses.replace(settings, parent="")
    weights = read_run(run).attributes.get("parent_weights", {})
    names = [parent["name"] for parent in parents]
    named = ",".join(f"{name}={weights[name]}" if name in weights else name for name in names)
    return dataclasses.replace(settings, parent=named, from_scratch="space" in config)


def _few_large_images(settings: SearchSettings) -> int:
    """Return the number of training images, or 0 where they are too many or too small for published weights."""
    images = settings.images
    if images.data in NAMED:
        return 0
    count = images.count_training(settings.seed)
    side = max(input_sizes(settings.input_size), default=0) or images.native_size()
    return count if count < FEW_IMAGES and side >= SMALLEST_SIZE else 0
