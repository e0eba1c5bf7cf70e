"""Only allowed formats are decoded, only the orientation is read, and every failure is one exception."""

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import exif, png, tiff
from PIL import EpsImagePlugin, Image, JpegImagePlugin

from mnas.data.decoding import decoders
from mnas.data.decoding.decoders import opened, upright
from mnas.data.decoding.depth import UnreadableImage
from mnas.data.decoding.exif import metadata_follows_pixels
from mnas.data.image import read_image

SCENE = np.zeros((8, 8), np.uint8)
SCENE[:4, :4], SCENE[:4, 4:], SCENE[4:, :4], SCENE[4:, 4:] = 0, 80, 160, 240
TURNED = np.ascontiguousarray(np.rot90(SCENE))  # as stored by a camera with orientation 6
SIX = {0x112: (3, 6)}


def jpeg(pixels: np.ndarray, block: bytes = b"", *segments: bytes, **options: object) -> bytes:
    """Return a JPEG at 16 times the size, so that its blocks leave the quarters flat; more segments follow its EXIF."""
    file = io.BytesIO()
    image = Image.fromarray(np.kron(pixels, np.ones((16, 16), np.uint8)))
    image.save(file, "JPEG", quality=100, exif=block, **options)
    content = file.getvalue()
    return content[:2] + b"".join(segments) + content[2:]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def same(file: bytes, expected: np.ndarray, off: int = 1) -> bool:
    """Return whether the four corners match; resizing a JPEG mixes the quarters where they meet."""
    found = read_image(file, 8)[::7, ::7, 0].astype(int)
    return bool(np.abs(found - expected[::7, ::7]).max() <= off)


# Orientation


@pytest.mark.parametrize(
    "tags",
    [
        {0x11A: (2, b"72 dpi\0\0")},
        {0x11A: (2, b"")},
        {0x11A: (7, b"\0\0\0\x48\0\0\0\1")},
        {0x11A: (5, struct.pack("<II", 72, 0))},
        {0x11A: (5, b""), 0x128: (2, b"")},
        {0x11A: (3, b""), 0x128: (3, 3)},
        {0x10F: (5, struct.pack("<II", 1, 2))},
        {0x131: (3, 3)},
        {0x8769: (4, 8)},  # a directory that contains itself
        {0x8769: (2, b"text")},
        {0x8825: (4, 2**32 - 1)},
        {0x9286: (7, b"UNICODE\0\xff\xfe\xff")},
        {0x1234: (12, bytes(16))},
    ],
)
def test_no_other_tag_matters(tags: dict[int, tuple[int, object]]) -> None:
    for order in "<>":
        if order == "<" or not any(isinstance(value, bytes) and len(value) >= 8 for _, value in tags.values()):
            block = exif(SIX | tags, order)
            assert same(jpeg(TURNED, block), SCENE)
            assert same(saved(TURNED, "PNG", exif=block), SCENE)
            assert same(saved(TURNED, "WEBP", exif=block, lossless=True), SCENE)
    assert same(tiff(TURNED, SIX | {tag: value for tag, value in tags.items() if tag != 0x8769}), SCENE)


def test_a_broken_table_of_pages_does_not_matter() -> None:
    for content in (b"MPF\0", b"MPF\0II*\0\xff\xff\xff\xff", b"MPF\0" + exif({0xB001: (2, b"no")})[6:]):
        assert same(jpeg(TURNED, exif(SIX), segment(0xE2, content)), SCENE)


def test_photoshops_block_cut_off_does_not_matter() -> None:
    block = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10"
    assert same(jpeg(TURNED, exif(SIX), segment(0xED, block)), SCENE)


@pytest.mark.parametrize(
    ("kind", "value", "turned"),
    [
        (3, 6, True),
        (4, 6, True),
        (1, 6, True),
        (3, 0, False),
        (3, 9, False),
        (3, 65535, False),
        (2, b"6\0", False),
        (5, struct.pack("<II", 6, 1), False),
        (3, (6, 6), False),
        (3, b"", False),
        (99, 6, False),
    ],
)
def test_an_orientation_that_there_is_not_is_none(kind: int, value: object, turned: bool) -> None:
    block = bytearray(exif({0x112: (3 if kind == 99 else kind, value)}))
    if kind == 99:
        block[18] = 99
    for file in (jpeg(TURNED, bytes(block)), saved(TURNED, "PNG", exif=bytes(block))):
        assert same(file, SCENE if turned else TURNED)
        assert same(file, TURNED if turned else SCENE) is False


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0II", exif(SIX)[:20], b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_exif_cut_off(block: bytes) -> None:
    assert same(jpeg(TURNED, block), TURNED)


def test_other_places_for_the_orientation() -> None:
    text = b'<x:xmpmeta xmlns:tiff="t"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert same(jpeg(TURNED, b"", segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text)), SCENE)
    assert same(png(TURNED, (b"eXIf", exif(SIX)[6:]), after=True), SCENE)
    digits = exif(SIX).hex().encode()
    raw = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n%s\n" % (len(digits) // 2, digits))
    assert same(png(TURNED, (b"zTXt", raw)), SCENE)
    assert same(png(TURNED, (b"zTXt", raw), after=True), SCENE)
    assert same(png(TURNED, (b"tEXt", b"Software\0x"), (b"eXIf", exif(SIX)[6:]), after=True), SCENE)
    for compression in ("raw", "tiff_lzw"):
        assert same(saved(TURNED, "TIFF", tiffinfo={0x112: 6}, compression=compression), SCENE)


def test_the_size_of_a_png_takes_no_decoding_unless_metadata_follows_its_pixels() -> None:
    wide = np.zeros((40, 80), np.uint8)
    for file, size in ((png(wide), (80, 40)), (png(wide, (b"eXIf", exif(SIX)[6:])), (40, 80))):
        start = file.index(b"IDAT") + 4
        with opened(file[:start] + b"\xff\xff" + file[start + 2 :]) as image:  # its pixels cannot be decoded
            assert image.size == size
            assert image.orientation == (1 if size == (80, 40) else 6)
    late = png(wide, (b"eXIf", exif(SIX)[6:]), after=True)
    with opened(late) as image:
        assert (image.size, image.orientation) == ((40, 80), 6)
    for file, follows in ((png(wide), False), (late, True), (late[:-20], True), (png(wide)[:60], True)):
        stream = io.BytesIO(file)
        stream.seek(5)
        assert metadata_follows_pixels(stream) is follows
        assert stream.tell() == 5


def test_a_crop_of_a_turned_picture_is_drawn_in_its_own_shape() -> None:
    wide = np.zeros((40, 80), np.uint8)
    for file in (saved(wide, "PNG", exif=exif(SIX)), saved(wide, "JPEG", exif=exif(SIX)), tiff(wide, SIX)):
        with opened(file) as image:
            assert image.size == (40, 80)
            assert image.rgb().size == (40, 80)


def test_an_open_picture_of_the_caller() -> None:
    for file in (saved(TURNED, "PNG", exif=exif(SIX | {0x131: (3, 3)})), tiff(TURNED, SIX)):
        assert np.array_equal(np.asarray(upright(Image.open(io.BytesIO(file))))[..., 0], SCENE)
    with pytest.raises(UnreadableImage, match="it is damaged or cut off"):
        upright(Image.open(io.BytesIO(saved(SCENE, "PNG")[:60])))


# Formats


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(touched) run\n%%EOF\n"


def test_formats_that_are_not_listed_reach_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("subprocess.check_call", started)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    fits = b"SIMPLE  =                    T".ljust(2880)
    wmf = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4hH", 0, 0, 8, 8, 96) + bytes(6) + b"\1\0\t\0" + bytes(30)
    xpm = b'/* XPM */\nstatic char *a[] = {\n"1 1 1 1",\n". c #000000",\n"."};\n'
    psd = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 1, 8, 8, 8, 1) + bytes(12) + bytes(66)
    Image.init()  # all of Pillow's decoders are registered
    for content in (EPS, fits, wmf, xpm, psd, b"%PDF-1.7\n", b"GRIB", b"\x89HDF\r\n\x1a\n", saved(SCENE, "SGI")):
        (tmp_path / "cat.png").write_bytes(content)
        with pytest.raises(UnreadableImage, match=r"^it is not an image$"):
            read_image(tmp_path / "cat.png", 8)


@pytest.mark.parametrize(
    ("kind", "off"),
    [("JPEG", 6), ("PNG", 0), ("BMP", 0), ("GIF", 0), ("WEBP", 12), ("TIFF", 0), ("PPM", 0), ("JPEG2000", 0),
     ("AVIF", 12), ("TGA", 0), ("ICO", 0)],
)  # fmt: skip
def test_every_listed_format_is_read(kind: str, off: int) -> None:
    large = np.kron(SCENE, np.ones((4, 4), np.uint8))
    file = saved(np.dstack([large] * 3) if kind == "AVIF" else large, kind)
    assert np.abs(read_image(file, 32)[..., 1].astype(int) - large)[4:12, 4:12].max() <= off
    assert set(decoders._PLUGINS) >= {kind}


@pytest.mark.parametrize(
    "error",
    [
        TypeError("an integer is required"), KeyError(7), OverflowError("too large"), MemoryError(), RecursionError(),
        AttributeError("x"), ZeroDivisionError(), AssertionError(), NotImplementedError(), StopIteration(),
        struct.error("cut"), zlib.error("bad"), SyntaxError("not a PNG"), EOFError(), RuntimeError("several\nlines"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), Image.DecompressionBombError("bomb"), Exception(),
    ],
)  # fmt: skip
def test_whatever_a_decoder_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error

    file = jpeg(SCENE)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", fail)
    with pytest.raises(UnreadableImage) as caught:
        read_image(file, 8)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


# Limits on time and memory


def test_a_huge_picture_in_a_small_file() -> None:
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    small = png(SCENE)
    file = small[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + small[33:]
    with pytest.raises(UnreadableImage, match="it has more pixels than the limit of 178,956,970"):
        read_image(file, 8)
    with pytest.raises(UnreadableImage, match="178,956,970"):
        read_image(b"P6 20000 20000 255\n" + bytes(100), 8)


def test_large_pictures_make_no_remarks(capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    rows = zlib.compress(bytes((10_000 // 8 + 1) * 10_000), 1)
    head = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")):
        file += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    with opened(file) as image:
        assert image.stored_size == (10_000, 10_000)
    assert not recwarn.list


def test_damaged_files_make_no_remarks(capfd: pytest.CaptureFixture[str]) -> None:
    file = tiff(SCENE, {277: (3, 65535)})
    code = f"from mnas.data.image import read_image\ntry: read_image({file!r}, 8)\nexcept ValueError: print('one line')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr() == ("one line\n", "")


def test_a_jpeg_of_a_thousand_scans() -> None:
    file = jpeg(SCENE, progressive=True)
    assert same(file, SCENE)
    scan = file.rindex(b"\xff\xda")
    with pytest.raises(UnreadableImage, match=r"it has 1[0-9]{3} scans of 128 x 128 pixels"):
        read_image(file[:scan] + file[scan:-2] * 1000 + b"\xff\xd9", 8)


def test_a_tiff_of_many_pages_and_one_that_is_its_own_next_page() -> None:
    pages = io.BytesIO()
    first = Image.fromarray(SCENE)
    first.save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (1, 1))] * 300)
    assert same(pages.getvalue(), SCENE)
    file = bytearray(tiff(SCENE))
    start = struct.unpack_from("<I", file, 4)[0]
    (count,) = struct.unpack_from("<H", file, start)
    struct.pack_into("<I", file, start + 2 + 12 * count, start)
    assert same(bytes(file), SCENE)


def test_damaged_files_of_every_kind_give_a_picture_or_one_line() -> None:
    draws = random.Random(14)
    wide = np.random.default_rng(0).integers(0, 256, (24, 16), dtype=np.uint8)
    files = [
        saved(wide, kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "TGA", "ICO")
    ]
    files += [jpeg(TURNED, exif(SIX)), saved(np.dstack([wide] * 3), "AVIF"), tiff(wide.astype(np.uint16), SIX)]
    read, lines = 0, []
    for turn in range(400):
        file = bytearray(files[turn % len(files)])
        for _ in range(draws.randint(1, 8)):
            file[draws.randrange(min(len(file), 200))] = draws.choice([0, 1, 127, 128, 255, draws.randrange(256)])
        try:
            assert read_image(bytes(file), 8).shape == (8, 8, 3)
            read += 1
        except UnreadableImage as error:
            lines.append(str(error).count("\n"))
    assert 50 < read < 350
    assert not any(lines)
