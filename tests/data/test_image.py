"""Every kind of image file, written by Pillow, is read back with exact pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.data.image import UnreadableImage, read_image, square

QUARTERS = np.zeros((8, 8), np.uint8)  # four flat quarters
QUARTERS[:4, :4], QUARTERS[:4, 4:], QUARTERS[4:, :4], QUARTERS[4:, 4:] = 0, 80, 160, 240


def rgb(size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def saved(folder: Path, image: Image.Image, suffix: str = ".png", **options: object) -> Path:
    path = folder / f"image{suffix}"
    image.save(path, **options)
    return path


def test_an_rgb_image_of_the_right_size_comes_back_exactly(tmp_path: Path) -> None:
    assert np.array_equal(read_image(saved(tmp_path, Image.fromarray(rgb())), 8), rgb())


@pytest.mark.parametrize(("width", "height"), [(14, 8), (8, 14)])
def test_the_centre_square_is_taken(tmp_path: Path, width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left = (height - 8) // 2, (width - 8) // 2
    expected = pixels[top : top + 8, left : left + 8]
    assert np.array_equal(read_image(saved(tmp_path, Image.fromarray(pixels)), 8), expected)


def test_shrinking_averages_instead_of_skipping_pixels(tmp_path: Path) -> None:
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = read_image(saved(tmp_path, Image.fromarray(checkerboard)), 8)
    assert small.min() >= 126
    assert small.max() <= 129


def test_gray(tmp_path: Path) -> None:
    expected = np.repeat(QUARTERS[..., None], 3, 2)
    assert np.array_equal(read_image(saved(tmp_path, Image.fromarray(QUARTERS)), 8), expected)


def test_bilevel(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(QUARTERS > 100))
    assert np.array_equal(read_image(path, 8)[..., 0], np.where(QUARTERS > 100, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(QUARTERS.astype(np.uint16) * 257), suffix)
    assert np.array_equal(read_image(path, 8)[..., 2], QUARTERS)


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray((QUARTERS // 80).astype(np.uint8), "P")
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    image.putpalette([value for colour in colours for value in colour])
    expected = np.array(colours, np.uint8)[QUARTERS // 80]
    for suffix in (".png", ".gif"):
        assert np.array_equal(read_image(saved(tmp_path, image, suffix), 8), expected)
    expected = np.where((QUARTERS == 0)[..., None], 255, expected)
    assert np.array_equal(read_image(saved(tmp_path, image, transparency=0), 8), expected)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    alpha = np.where(QUARTERS == 0, 0, np.where(QUARTERS == 80, 128, 255)).astype(np.uint8)
    rgba = np.dstack([np.full((8, 8, 3), 40, np.uint8), alpha])
    expected = np.where(QUARTERS == 0, 255, np.where(QUARTERS == 80, 147, 40))
    for image in (Image.fromarray(rgba), Image.fromarray(rgba).convert("LA")):
        found = read_image(saved(tmp_path, image), 8).astype(int)
        assert np.abs(found - expected[..., None]).max() <= 1
    opaque = Image.fromarray(np.dstack([rgb(), np.full((8, 8), 255, np.uint8)]))
    assert np.array_equal(read_image(saved(tmp_path, opaque), 8), rgb())


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[..., 0], cmyk[:8, :, 3] = 255, 255  # cyan, its upper half black
    found = read_image(saved(tmp_path, Image.fromarray(cmyk, "CMYK"), ".jpg", quality=100), 16).astype(int)
    assert np.abs(found[:7] - 0).max() <= 3
    assert np.abs(found[9:] - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    # storage of an upright scene by the EXIF standard: the sides of the scene in row 0 and column 0
    stored = {
        1: QUARTERS, 2: QUARTERS[:, ::-1], 3: QUARTERS[::-1, ::-1], 4: QUARTERS[::-1], 5: QUARTERS.T,
        6: np.rot90(QUARTERS), 7: QUARTERS[::-1, ::-1].T, 8: np.rot90(QUARTERS, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored[orientation])), ".png", exif=exif)
    assert np.array_equal(read_image(path, 8)[..., 0], QUARTERS)


def test_a_large_jpeg_is_read_at_a_fraction_and_still_right(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.kron(QUARTERS, np.ones((128, 128), np.uint8))), ".jpg", quality=95)
    found = read_image(path, 8).astype(int)
    with Image.open(path) as whole:
        assert np.abs(found - square(whole.convert("RGB"), 8)).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif"])
def test_a_file_cut_off_is_damaged(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(rgb(64)), suffix)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableImage):
            read_image(path, 8)


def test_text_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_text("not an image")
    with pytest.raises(UnreadableImage):
        read_image(tmp_path / "image.jpg", 8)
