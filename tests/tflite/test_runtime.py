import numpy as np
import pytest

from mnas.arch import Arch
from mnas.block import Block
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes

ARCH = Arch(blocks=(Block(op="mbconv", expansion=3, kernel=3, stride=2, filters=8),), stem_filters=8, head_filters=16)
IMAGES = np.random.default_rng(0).standard_normal((3, 16, 16, 3), np.float32)


def test_images_one_at_a_time_give_their_own_rows() -> None:
    model = graph_bytes(ARCH, 16, 7)
    together = run_tflite(model, IMAGES)
    assert together.shape == (3, 7)
    assert together.dtype == np.float32
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for i in range(3):
        np.testing.assert_array_equal(run_tflite(model, IMAGES[i : i + 1])[0], together[i])
    assert run_tflite(model, IMAGES[:0]).shape == (0, 7)


def test_two_threads_compute_the_same() -> None:
    model = graph_bytes(ARCH, 16, 7)
    np.testing.assert_allclose(run_tflite(model, IMAGES, threads=2), run_tflite(model, IMAGES), rtol=1e-5, atol=1e-5)


def test_bad_inputs() -> None:
    model = graph_bytes(ARCH, 16, 7)
    with pytest.raises(ValueError, match=r"float32 \(N, 16, 16, 3\), but got float32 \(3, 3, 16, 16\)"):
        run_tflite(model, IMAGES.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"but got float64"):
        run_tflite(model, IMAGES.astype(np.float64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads must be 1 or more, but got"):
        run_tflite(model, IMAGES, threads=0)
    for damaged in (b"not a model", model[: len(model) // 2]):
        with pytest.raises(ValueError, match="not a valid Flatbuffer"):
            run_tflite(damaged, IMAGES)
