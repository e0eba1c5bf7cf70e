"""Options that several commands have because they read a data set."""

from typing import Annotated

import tyro

VerifyCache = Annotated[
    bool, tyro.conf.arg(help="Read the cached decoded images in full, and decode them again where they are damaged.")
]
"""It decides nothing about a result, so no run's or training's identity contains it."""
