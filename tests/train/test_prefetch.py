"""Values that a thread prepares in advance come in order, and so do errors; closing ends the thread."""

import itertools
import threading

import pytest

from mnas.train.prefetch import prefetched


def test_order_and_end() -> None:
    assert list(prefetched(iter(range(1, 100)), lambda x: 2 * x)) == list(range(2, 200, 2))
    assert list(prefetched(iter(()), lambda x: x)) == []


def test_an_error_comes_where_its_value_would_have() -> None:
    def source():
        yield 1
        yield 2
        raise ValueError("unreadable")

    found = prefetched(source(), lambda x: x)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="unreadable"):
        next(found)
    divided = prefetched(iter((1, 0)), lambda x: 1 // x)
    assert next(divided) == 1
    with pytest.raises(ZeroDivisionError):
        next(divided)


def test_closing_ends_the_thread_and_little_was_made_in_vain() -> None:
    before = threading.active_count()
    made = []
    found = prefetched(itertools.count(1), made.append, ahead=2)
    with pytest.raises(AssertionError):  # None is not a batch
        next(found)
    found = prefetched(itertools.count(1), lambda x: made.append(x) or x, ahead=2)
    assert [next(found) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert threading.active_count() == before + 1
    found.close()
    assert threading.active_count() == before
    assert max(made) <= 5 + 4
