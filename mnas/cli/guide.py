"""What people need first of each command: its most used options, and two examples."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What the help of a command shows beside its options."""

    examples: tuple[str, ...] = ()
    """Whole command lines."""
    first: tuple[str, ...] = ()
    """Options that `--help` shows, the most used first; empty: all, where a command has few."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Heading -> options, in `--help-all`; options in none stand under the name of their dataclass's group."""


GUIDES: Mapping[str, Guide] = {}
