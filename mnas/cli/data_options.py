"""Options shared by the commands that read a data set."""

from typing import Annotated

from cyclopts import Parameter

VerifyCache = Annotated[
    bool, Parameter(help="Read the cached decoded images in full, and decode them again where they are damaged.")
]
"""Not part of a run's or training's identity, as no result depends on it."""
