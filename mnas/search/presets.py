"""Named presets of `mnas search`: sets of defaults that other options may override.

Source: Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), sections 4.2 and 5: PPO, the soft reward with w = -0.07,
    8,000 architectures, each trained for 5 epochs; batches of 20 from NASNet's appendix A.1 (the paper names none);
    no networks to start from, and no known weights.
Expected: docs/measurements/controllers.md gives results on a benchmark. This preset has not been run on images.
Cost: 8,000 trainings, 80 times the standard search's.
Command: mnas search --data DIR --preset paper
"""

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "standard": {},
    "paper": {
        "controller": "ppo",
        "reward": "soft",
        "trials": 8000,
        "candidates_per_update": 20,
        "epochs": 5,
        "start_from": "none",
        "parent": "",
    },
}
"""Preset -> option -> value; an option that is absent has the command's own default."""
