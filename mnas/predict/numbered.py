"""Match classes whose names are numbers, or begin with one, to outputs."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NUMBER = re.compile(r"[0-9]{1,9}")
_PREFIX = re.compile(r"([0-9]{1,9})[ _.-]+\S.*", re.DOTALL)


def by_number(classes: Sequence[str]) -> tuple[NDArray[np.int64], str] | None:
    """Return the output of each class, and how it was found, where names are 0 to N - 1 or 1 to N, or begin so.

    Folders are listed as text, in which 10 comes before 2.
    """
    for pattern, what in ((_NUMBER, "their names"), (_PREFIX, "the numbers that their names begin with")):
        matches = [pattern.fullmatch(name) for name in classes]
        numbers = [int(match[match.re.groups]) for match in matches if match is not None]
        for first in (0, 1):
            if sorted(numbers) == list(range(first, first + len(classes))):
                words = f"classes matched by {what}, {first} to {first + len(classes) - 1}"
                if first:
                    words += "; output 0 is class 1"
                return np.array(numbers, np.int64) - first, words
    return None


def same_numbers(names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the index in `names` of each class, where all are numbers that differ only in leading zeros; else None."""
    if not all(map(_NUMBER.fullmatch, [*names, *classes])):
        return None
    indices = {int(name): index for index, name in reversed(list(enumerate(names)))}
    distinct = len({int(name) for name in classes}) == len(classes) and len(indices) == len(names)
    places = [indices.get(int(name)) for name in classes]
    return np.array(places, np.int64) if distinct and None not in places else None
