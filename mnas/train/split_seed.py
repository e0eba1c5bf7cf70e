"""Find the split's seed for model files of earlier versions, which do not record it, in the settings beside them."""

from pathlib import Path

from mnas.readers import stored_settings
from mnas.train.folder import CONFIG_NAME

_RUN_CONFIG = "config.json"


def seed_beside(model: Path) -> int | None:
    """Return the seed in the settings of the run or training whose folder holds a model file; None without settings.

    Full trainings of a run hold out the images that the search held out, whatever their own seed is.
    """
    for folder in list(model.resolve().parents)[1:3]:  # RUN/models/3.safetensors, RUN/trained/3/model.safetensors
        if (folder / "study.db").is_file():
            return _seed(folder / _RUN_CONFIG)
    return _seed(model.parent / CONFIG_NAME, "identity")


def _seed(path: Path, *keys: str) -> int | None:
    seed = (stored_settings(path, *keys) or {}).get("seed")
    return seed if type(seed) is int and 0 <= seed < 2**63 else None
