import numpy as np

from mnas.counts import class_counts, largest_class, majority_share


def test_each_class_is_counted_also_one_without_images() -> None:
    assert class_counts(np.array([2, 0, 2], np.int64), 4) == (1, 0, 2, 0)
    assert class_counts([], 2) == (0, 0)


def test_the_first_of_equal_classes_is_the_largest() -> None:
    assert largest_class([1, 3, 3]) == 1


def test_the_majority_share_is_of_all_images() -> None:
    assert majority_share([19, 1]) == 0.95
