"""What a gallery collects: exact counts, the most confident mistakes in order, and samples spread over each class."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mnas.pages.confusion import frequent_errors, most_confused, used_classes
from mnas.pages.gallery import MISTAKE_SIDE, MISTAKES, SAMPLE_SIDE, SAMPLES, SAMPLES_OF_MANY, Gallery


def decoded(picture: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def numbered(count: int, side: int = 8, first: int = 0) -> np.ndarray:
    """Images whose first pixels hold their number."""
    images = np.zeros((count, side, side, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(first, first + count) % 256
    images[:, 0, 0, 1] = np.arange(first, first + count) // 256
    return images


def number_of(picture: str) -> int:
    red, green, _ = decoded(picture)[0, 0].tolist()
    return red + 256 * green


def filled(count: int, classes: int, batch: int, seed: int = 0) -> tuple[Gallery, np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels, predictions = (draw.integers(0, classes, count) for _ in range(2))
    confidences = draw.choice(np.linspace(0.1, 1, 40, dtype=np.float32), count)  # with many ties
    gallery = Gallery(classes)
    images = numbered(count)
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        gallery.add(images[rows], labels[rows], predictions[rows], confidences[rows])
    return gallery, labels, predictions, confidences


@pytest.mark.parametrize("batch", [1, 7, 64, 400])
def test_counts_and_mistakes_are_those_found_by_hand(batch: int) -> None:
    gallery, labels, predictions, confidences = filled(400, 5, batch)
    by_hand = np.zeros((5, 5), int)
    for truth, prediction in zip(labels, predictions, strict=True):
        by_hand[truth, prediction] += 1
    assert gallery.images == 400
    assert {pair: count for pair, count in np.ndenumerate(by_hand) if count} == dict(gallery.pairs)

    wrong = [i for i in range(400) if labels[i] != predictions[i]]
    expected = sorted(wrong, key=lambda i: (-confidences[i], i))[:MISTAKES]
    mistakes = gallery.mistakes()
    assert [seen.position for seen in mistakes] == expected
    assert [number_of(seen.picture) for seen in mistakes] == expected
    for seen in mistakes:
        i = seen.position
        assert (seen.truth, seen.prediction) == (labels[i], predictions[i])
        assert seen.confidence == pytest.approx(confidences[i])


def test_samples_are_spread_over_each_class_and_independent_of_batches() -> None:
    galleries = [filled(400, 5, batch)[0] for batch in (1, 64, 400)]
    labels = filled(400, 5, 400)[1]
    for label in range(5):
        samples = galleries[0].samples(label)
        assert [gallery.samples(label) for gallery in galleries[1:]] == [samples, samples]
        positions = [seen.position for seen in samples]
        assert len(samples) == SAMPLES
        assert positions == sorted(set(positions))
        assert all(labels[position] == label for position in positions)
        assert [number_of(seen.picture) for seen in samples] == positions

    alone = Gallery(2)  # 1,000 images of one class
    for start in range(0, 1000, 50):
        zeros = np.zeros(50, np.int64)
        alone.add(numbered(50, first=start), zeros, zeros, np.ones(50, np.float32))
    positions = [seen.position for seen in alone.samples(0)]
    gaps = np.diff([0, *positions, 1000])
    assert max(gaps) < 2.7 * 1000 / (SAMPLES + 1)  # a random choice has gaps of half of the images
    assert alone.samples(1) == []
    assert alone.mistakes() == []


def test_few_images_are_all_samples() -> None:
    gallery = Gallery(3)
    gallery.add(numbered(3), np.array([2, 0, 2]), np.array([2, 2, 0]), np.array([0.9, 0.4, 0.8], np.float32))
    assert [seen.position for seen in gallery.samples(2)] == [0, 2]
    assert [seen.position for seen in gallery.samples(0)] == [1]
    assert [(seen.position, seen.truth, seen.prediction) for seen in gallery.mistakes()] == [(2, 2, 0), (1, 0, 2)]


def test_small_images_keep_their_pixels_and_large_ones_are_shrunk() -> None:
    draw = np.random.default_rng(0)
    for side, exact in ((8, True), (32, True), (224, False), (400, False)):
        smooth = np.linspace(0, 255, side)[None, :, None, None] * np.ones((1, 1, side, 3))
        images = draw.integers(0, 256, (1, side, side, 3), np.uint8) if exact else smooth.astype(np.uint8)
        gallery = Gallery(2)
        gallery.add(images, np.array([0]), np.array([1]), np.array([0.5], np.float32))
        [mistake], [sample] = gallery.mistakes(), gallery.samples(0)
        assert (mistake.side, sample.side) == (min(side, MISTAKE_SIDE), min(side, SAMPLE_SIDE))
        if exact:
            np.testing.assert_array_equal(decoded(mistake.picture), images[0])
            np.testing.assert_array_equal(decoded(sample.picture), images[0])
        elif side == MISTAKE_SIDE:
            assert np.abs(decoded(mistake.picture).astype(int) - images[0]).mean() < 2


def test_memory_is_bounded_by_classes_not_images() -> None:
    gallery, labels, *_ = filled(3000, 50, 100)
    assert {len(gallery.samples(label)) for label in range(50)} == {SAMPLES_OF_MANY}
    assert len(gallery.mistakes()) == MISTAKES
    assert sum(gallery.pairs.values()) == 3000 == len(labels)


def test_errors_and_the_most_confused_classes() -> None:
    pairs = {(0, 0): 9, (0, 1): 3, (1, 0): 3, (2, 2): 5, (3, 1): 4, (5, 5): 1}
    assert used_classes(pairs) == [0, 1, 2, 3, 5]
    assert frequent_errors(pairs, 2) == [(3, 1, 4), (0, 1, 3)]
    assert most_confused(pairs, 2) == [0, 1]  # 6 errors; 1 and 3 have 4
    assert most_confused(pairs, 4) == [0, 1, 3]
    assert most_confused({(4, 5): 3, (7, 8): 2, (5, 7): 1}, 3) == [4, 5, 7]  # 7 and 8 together would be too many
    assert most_confused({(0, 0): 3}, 3) == []
