"""Every range of values in people's files: the right 8 bits, or the reason why the file is rejected."""

import io

import numpy as np
import pytest
from image_files import png, tiff
from PIL import Image

from mnas.data.decoding.decoders import opened
from mnas.data.decoding.depth import UnreadableImage
from mnas.data.image import read_image

QUARTERS = np.zeros((8, 8), np.uint8)
QUARTERS[:4, :4], QUARTERS[:4, 4:], QUARTERS[4:, :4], QUARTERS[4:, 4:] = 0, 80, 160, 240
FULL = QUARTERS.astype(np.uint16) * 257
RGB, SIGNED, FLOAT = {262: (3, 2)}, {339: (3, 2)}, {339: (3, 3)}


def of_bits(bits: int) -> np.ndarray:
    """Return QUARTERS at this number of bits, rounded."""
    return np.rint(QUARTERS / 255 * ((1 << bits) - 1)).astype(np.uint16)


def read(file: bytes) -> np.ndarray:
    """Return the gray pixels of a file, all of whose channels must be equal."""
    pixels = read_image(file, 8)
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    return pixels[..., 0]


@pytest.mark.parametrize(
    "file",
    [
        tiff(FULL),
        tiff(FULL.astype(">u2"), order=">"),
        tiff(65535 - FULL, {262: (3, 0)}),  # 0 is white
        tiff(255 - QUARTERS, {262: (3, 0)}),
        tiff(np.rint(QUARTERS / 255 * 32767).astype(np.int16), SIGNED),
        tiff(of_bits(12), {281: (3, 4095)}),  # MaxSampleValue
        tiff(of_bits(10), {281: (3, 1023)}),
        tiff(of_bits(14), {281: (3, 16383)}),
        tiff(FULL.astype(np.uint32)),
        tiff(QUARTERS.astype(np.uint32), {281: (4, 255)}),
        tiff(np.float32(QUARTERS / 255), FLOAT | {340: (11, 0.0), 341: (11, 1.0)}),
        tiff(QUARTERS.astype(np.float32), FLOAT | {341: (11, 255.0)}),
        tiff(np.dstack([FULL] * 3)),
        png(FULL),
        png(of_bits(12) << 4 | of_bits(12) >> 8, (b"sBIT", b"\x0c")),  # spread over 16 bits, as the standard requires
        png(of_bits(12), (b"sBIT", b"\x0c")),  # not spread
        png(of_bits(10), (b"sBIT", b"\x0a")),
        png(np.dstack([FULL] * 3), color_type=2),
        b"P5 8 8 65535\n" + FULL.astype(">u2").tobytes(),
        b"P5 8 8 4095\n" + of_bits(12).astype(">u2").tobytes(),
        b"P5 8 8 1023\n" + of_bits(10).astype(">u2").tobytes(),
    ],
)
def test_a_known_range_is_scaled_to_8_bits(file: bytes) -> None:
    assert np.array_equal(read(file), QUARTERS)


def test_packed_12_bits() -> None:
    first, second = of_bits(12).ravel()[::2].astype(int), of_bits(12).ravel()[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)
    file = tiff(packed.reshape(8, 12), {256: (4, 8), 258: (3, 12)})
    assert np.array_equal(read(file), QUARTERS)


def test_16_bit_jpeg2000() -> None:
    file = io.BytesIO()
    Image.fromarray(FULL).save(file, "JPEG2000", irreversible=False)
    assert np.array_equal(read(file.getvalue()), QUARTERS)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (tiff(QUARTERS.astype(np.uint32)), "values up to 240 in 32 bits"),
        (tiff(FULL.astype(np.int32) * 256, SIGNED), "values up to 15790080 in 32 bits"),
        (tiff(FULL.astype(np.uint32) * 65537), "pixels must be 0 or more"),
        (tiff(FULL.astype(np.int32).astype(np.int16), SIGNED), "must be 0 or more, but got -"),
        (tiff(QUARTERS.view(np.int8), SIGNED), "must be 0 or more, but got -96"),
        (tiff(np.float32(QUARTERS / 255), FLOAT), "floating-point ones, whose range the file does not declare"),
        (tiff(QUARTERS.astype(np.float32), FLOAT), "floating-point ones"),
        (tiff(QUARTERS.astype(np.float32), FLOAT | {341: (11, 1.0)}), "must be from 0 to 1, as the file declares"),
        (tiff(np.full((8, 8), np.nan, np.float32), FLOAT | {341: (11, 1.0)}), "must be from 0 to 1"),
        (tiff(QUARTERS.astype(np.float64), FLOAT), "it is not an image"),
        (b"Pf 8 8 -1.0\n" + np.float32(QUARTERS).tobytes(), "floating-point ones"),
        (png(of_bits(12) & 0xFF0, (b"sBIT", b"\x0c")), "may be dark or not scaled"),
        (png(np.dstack([of_bits(12)] * 3), (b"sBIT", b"\x0c\x0c\x0c"), color_type=2), "declares values below 4096"),
        (tiff(np.dstack([of_bits(12)] * 3), {281: (3, (4095,) * 3)}), "declares values below 4096"),
    ],
)
def test_an_unknown_range_is_refused(file: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(file, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "bits"),
    [
        (png(of_bits(12)), 12),
        (png(of_bits(10)), 10),
        (png(QUARTERS.astype(np.uint16)), 8),
        (tiff(of_bits(14)), 14),
        (tiff(of_bits(12).astype(np.uint32)), 12),
        (png(np.dstack([of_bits(12)] * 3), color_type=2), 12),
        (png(FULL), 16),
        (png(np.zeros((8, 8), np.uint16)), 0),  # black at any depth
        (png(QUARTERS), 0),
        (png(of_bits(12), (b"sBIT", b"\x0c")), 0),  # the file declares it
        (tiff(of_bits(12), {281: (3, 4095)}), 0),
        (tiff(QUARTERS), 0),
    ],
)
def test_bits_that_the_values_use_and_nobody_says(file: bytes, bits: int) -> None:
    with opened(file) as image:
        assert image.used_bits() == bits


def test_a_maximum_that_is_that_of_no_depth_is_a_statistic() -> None:
    assert np.array_equal(
        read(tiff(FULL // 2, {281: (3, 30840)})), np.uint8([[0, 40], [80, 120]]).repeat(4, 0).repeat(4, 1)
    )


def test_transparent_gray_of_16_bits_is_white() -> None:
    found = read(png(FULL, (b"tRNS", bytes(2))))
    assert np.array_equal(found, np.where(QUARTERS == 0, 255, QUARTERS))


def test_lab_and_bilevel() -> None:
    red = np.full((8, 8, 3), (136, 80, 67), np.uint8)  # L* 53.3, a* 80, b* 67: sRGB's red
    found = read_image(tiff(red, {262: (3, 8)}), 8).astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 12
    bits = np.packbits(QUARTERS > 100, axis=1)
    assert np.array_equal(read(tiff(bits, {256: (4, 8), 258: (3, 1)})), np.where(QUARTERS > 100, 255, 0))
    assert np.array_equal(read(tiff(bits, {256: (4, 8), 258: (3, 1), 262: (3, 0)})), np.where(QUARTERS > 100, 0, 255))


def test_the_first_page_and_the_first_frame() -> None:
    pages = [Image.fromarray(QUARTERS), Image.fromarray(255 - QUARTERS)]
    for suffix in ("TIFF", "GIF", "WEBP", "PNG"):
        file = io.BytesIO()
        options = {"lossless": True} if suffix == "WEBP" else {}
        pages[0].save(file, suffix, save_all=True, append_images=pages[1:], **options)
        assert np.array_equal(read(file.getvalue()), QUARTERS), suffix
