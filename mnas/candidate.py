"""The record that a search decides about: a network, its input size, and the weights that its training begins with."""

from dataclasses import dataclass

from mnas.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network at an input size, with the parent of its initial weights."""

    arch: Architecture
    input_size: int
    """Side of its square input in pixels."""
    parent: str = ""
    """Name of the pretrained network whose weights its training begins with; empty: random weights."""
