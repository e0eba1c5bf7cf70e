"""Several input sizes at once: each is bit for bit what loading it alone gives, and every image is decoded once."""

import dataclasses
import functools
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnas.data import cache as cache_module
from mnas.data.content.digests import verified
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.decoding.decoders import Opened, opened
from mnas.data.image import Item, UnreadableImage, read_image, read_sizes
from mnas.data.load import load_dataset, load_sizes
from mnas.data.options import TrainingDataOptions
from tests.data.test_cache import entries
from tests.data.test_load import make_folder

SIZES = (8, 16, 24, 64, 100)


def photographs(root: Path, count: int = 6, side: int = 260) -> Path:
    """Make JPEGs of two classes, of several shapes, modes and orientations, and some PNGs."""
    random = np.random.default_rng(0)
    for number in range(count * 2):
        pixels = random.integers(0, 256, (side // 4, side // 4 + 3 * number, 3), np.uint8)
        image = Image.fromarray(pixels).resize((side + 30 * number, side), Image.Resampling.BICUBIC)
        folder = root / ("ants" if number % 2 else "bees")
        folder.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = number % 8 + 1
        if number % 5 == 4:
            image.save(folder / f"{number}.png", exif=exif)
        else:
            image = image.convert("L" if number % 3 == 0 else "RGB")
            image.save(folder / f"{number}.jpg", exif=exif, progressive=number % 4 == 1, quality=60 + number)
    return root


def assert_equal(one: Dataset, other: Dataset) -> None:
    """Compare all fields, and the arrays bit for bit."""
    for field in dataclasses.fields(Dataset):
        value, expected = getattr(one, field.name), getattr(other, field.name)
        if isinstance(value, ImageArrays):
            assert np.array_equal(value.images, expected.images)
            assert np.array_equal(value.labels, expected.labels)
        elif field.name == "names":
            assert value() == expected()
        else:
            assert value == expected, field.name


def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the files that are read ("read") and the decodings ("decoded")."""
    counts: Counter[str] = Counter()
    rgb = Opened.rgb

    def counted_rgb(image: Opened, least: tuple[int, int] | None = None) -> Image.Image:
        counts["decoded"] += 1
        return rgb(image, least)

    def counted_verified(path: str, sha256: bytes) -> Any:
        counts["read"] += 1
        return verified(path, sha256)

    monkeypatch.setattr(Opened, "rgb", counted_rgb)
    monkeypatch.setattr(cache_module, "verified", counted_verified)
    return counts


@pytest.mark.parametrize("options", [{}, {"crop": 0.7}, {"max_images_per_class": 4, "seed": 3}], ids=str)
def test_each_size_is_bit_for_bit_that_of_loading_it_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    load = functools.partial(load_sizes, str(photographs(tmp_path / "insects")), **{"seed": 0} | options)
    together = load(input_sizes=SIZES[::-1], cache_dir=tmp_path / "cache")
    assert list(together) == list(SIZES[::-1])
    for size in SIZES:
        alone = load_dataset(
            str(tmp_path / "insects"), input_size=size, cache_dir=tmp_path / "alone", **{"seed": 0} | options
        )
        assert_equal(together[size], alone)
    for entry in entries(tmp_path / "alone"):
        for name in ("images.u8", "index.json"):
            assert (tmp_path / "cache" / entry.name / name).read_bytes() == (entry / name).read_bytes()


def test_unreadable_images_and_their_limit_are_those_of_one_size(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 100})
    (root / "cat" / "0.png").write_text("no image")
    together = load_sizes(str(root), input_sizes=(8, 12), seed=0, cache_dir=tmp_path / "cache")
    for size, dataset in together.items():
        assert dataset.skipped == ("train/cat/0.png: it is not an image",)
        assert_equal(dataset, load_dataset(str(root), input_size=size, seed=0, cache_dir=tmp_path / "alone"))
    for number in range(1, 5):
        (root / "cat" / f"{number}.png").write_text("no image")
    with pytest.raises(ValueError, match="at most 1 % of the images may be unreadable, but 5 of 200 are"):
        load_sizes(str(root), input_sizes=(8, 12), seed=0, cache_dir=tmp_path / "fresh")
    assert not entries(tmp_path / "fresh")


def test_a_set_in_memory_has_several_sizes_too(tmp_path: Path) -> None:
    together = load_sizes("digits", input_sizes=(8, 12), seed=0, cache_dir=tmp_path / "cache")
    for size, dataset in together.items():
        assert_equal(dataset, load_dataset("digits", input_size=size, seed=0, cache_dir=tmp_path / "alone"))


def test_an_image_is_read_once_and_decoded_once_for_each_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "pets", {"": 10}, size=64)  # PNG has no fractions
    counts = decodes(monkeypatch)
    load_sizes(str(root), input_sizes=SIZES, seed=0, cache_dir=tmp_path / "cache")
    assert counts == {"read": 20, "decoded": 20}
    counts.clear()
    for number in range(12):
        folder = tmp_path / "photos" / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((256, 300, 3), number, np.uint8)).save(folder / f"{number}.jpg")
    load_sizes(str(tmp_path / "photos"), input_sizes=(16, 20, 30, 32, 40, 64), seed=0, cache_dir=tmp_path / "cache")
    assert counts == {"read": 12, "decoded": 12 * 3}  # at 1/8 (16 px), 1/4 (20 to 32 px) and 1/2 (40 and 64 px)


def test_cached_sizes_are_not_decoded_again_and_serve_later_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = str(make_folder(tmp_path / "pets", {"": 10}, size=64)), tmp_path / "cache"
    load_dataset(root, input_size=16, seed=0, cache_dir=cache)
    [first] = entries(cache)
    before = (first / "images.u8").stat()
    built: list[list[int]] = []
    pixels = cache_module._pixels

    def recorded(item: Item, sizes: list[int], sha256: Mapping[str, bytes]) -> list[Any]:
        built.append(sizes)
        return list(pixels(item, sizes, sha256))

    monkeypatch.setattr(cache_module, "_pixels", recorded)
    load_sizes(root, input_sizes=(8, 16, 32), seed=0, cache_dir=cache)
    assert built == [[8, 32]] * 20
    assert (first / "images.u8").stat() == before
    built.clear()
    load_sizes(root, input_sizes=(32, 16), seed=0, cache_dir=cache)
    load_dataset(root, input_size=8, seed=0, cache_dir=cache)
    assert built == []
    assert len(entries(cache)) == 3


def test_a_worker_opens_all_sizes_without_reading_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = TrainingDataOptions(data=str(photographs(tmp_path / "insects")))
    together = options.load_sizes((8, 16), seed=0)
    cached = {size: dataset.cached for size, dataset in together.items()}
    with monkeypatch.context() as context:
        context.setattr("mnas.data.source.Source.read_content", lambda *_: pytest.fail("the files were read"))
        opened_sizes = options.load_sizes((8, 16), seed=0, cached=cached)
        assert_equal(options.load(input_size=16, seed=0, cached=cached[16]), opened_sizes[16])
    for size in (8, 16):
        assert_equal(opened_sizes[size], together[size])
    # sizes that are not in the cache are read
    fresh = options.load_sizes((8, 12), seed=0, cached=cached)
    assert_equal(fresh[12], options.load(input_size=12, seed=0))
    assert fresh[8].fingerprint == together[8].fingerprint


def test_limits_hold_for_the_total_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = str(make_folder(tmp_path / "pets", {"": 10}, size=64)), tmp_path / "cache"
    counts = decodes(monkeypatch)
    total = 20 * 3 * (8 * 8 + 16 * 16 + 32 * 32)
    with pytest.raises(ValueError, match=r"decoded images must take at most 8\.0639e-05 GB, but .* at 8, 16 and 32 px; "
        "use fewer or smaller sizes in --input-size, or --max-images-per-class"):  # fmt: skip
        load_sizes(root, input_sizes=(8, 16, 32), seed=0, cache_dir=cache, max_bytes=total - 1)
    disk = SimpleNamespace(total=10**9, free=total - 1)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: disk)
    with pytest.raises(ValueError, match=r"take 0.0 GB at 8, 16 and 32 px, but the disk of the cache folder .* left"):
        load_sizes(root, input_sizes=(8, 16, 32), seed=0, cache_dir=cache)
    assert not entries(cache)
    assert counts == {}
    disk.free += 1
    assert len(load_sizes(root, input_sizes=(8, 16, 32), seed=0, cache_dir=cache, max_bytes=total)) == 3


@pytest.mark.parametrize(("sizes", "message"), [((), "at least one size"), ((16, 4), "from 8 to 1024, but got 4")])
def test_sizes_are_checked(tmp_path: Path, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"--input-size must .*{message}"):
        load_sizes("digits", input_sizes=sizes, seed=0, cache_dir=tmp_path)


def test_progress_counts_an_image_once(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 120})
    seen: list[tuple[int, int]] = []
    load_sizes(
        str(root), input_sizes=(8, 9, 10, 11, 12, 13, 14, 15), seed=0, cache_dir=tmp_path / "cache",
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(128, 240), (192, 240), (240, 240)]  # 192 training images, then 48 for validation


BUILD = """
import sys
from pathlib import Path
from mnas.data.load import load_sizes
print("ready", flush=True)
sizes = [int(size) for size in sys.argv[3].split(",")]
for size, d in load_sizes(sys.argv[1], input_sizes=sizes, seed=0, cache_dir=Path(sys.argv[2])).items():
    print(size, d.fingerprint, int(d.train.images.sum(dtype="int64")), len(d.train), len(d.val))
"""


def start(data: Path, cache: Path, sizes: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(data), str(cache), sizes], stdout=subprocess.PIPE, text=True
    )


def test_builders_of_overlapping_sizes_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 100}, size=64)
    processes = [start(root, tmp_path / "cache", sizes) for sizes in ("32,64", "64,32,16", "16,64", "64")]
    lines = [line for process in processes for line in process.communicate(timeout=120)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(lines)) == 4  # "ready" and one for each size
    assert len(entries(tmp_path / "cache")) == 3


def test_a_builder_killed_at_any_moment_leaves_nothing_half_written(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 120}, size=256)
    expected = start(root, tmp_path / "whole", "32,48,64").communicate(timeout=120)[0]
    random = np.random.default_rng(1)
    for _ in range(6):
        process = start(root, tmp_path / "cache", "32,48,64")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(random.uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert start(root, tmp_path / "cache", "32,48,64").communicate(timeout=120)[0] == expected
    names = [p.name for p in (tmp_path / "cache").iterdir() if not p.name.startswith(("digests", "duplicates-"))]
    assert len(names) == 6, names  # three entries and their locks


def test_shards_have_the_line_of_one_size(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "train-000000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="--data must have at least two class folders of images") as error:
        load_sizes(str(tmp_path / "tars"), input_sizes=(8, 16), seed=0, cache_dir=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_the_divisor_is_that_of_pillows_draft(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(60):
        width, height = (int(side) for side in random.integers(1, 400, 2))
        least = tuple(int(side) for side in random.integers(1, 120, 2))
        path = tmp_path / f"{number}.jpg"
        exif = Image.Exif()
        exif[274] = number % 8 + 1
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(path, exif=exif)
        with Image.open(path) as image, opened(path) as ours:
            transposed = number % 8 + 1 in (5, 6, 7, 8)
            image.draft("RGB", least[::-1] if transposed else least)
            decoded = ours.rgb((least[0], least[1]))
            assert decoded.size == (image.size[::-1] if transposed else image.size)
            assert ours.divisor((least[0], least[1])) == round(max(width / image.width, height / image.height))


def test_a_damaged_image_has_the_reason_of_each_size(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableImage) as error:
            read_image(path, 8)
        results = read_sizes(path, (8, 100, 40))
        assert [str(result) for result in results] == [str(error.value)] * 3
