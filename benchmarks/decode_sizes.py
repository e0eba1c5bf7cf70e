"""Measure the decoding of images at several input sizes: together, one after the other, and the largest alone.

    python benchmarks/decode_sizes.py [DATA] [--sizes 48,64,80,96,128,160,192,224]

DATA is a data set as in `mnas train`; by default, photograph-like JPEGs of 500 x 375 pixels in a temporary folder.
Every measurement begins with an empty cache of decoded images, and with cached digests of the files.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mnas.data.load import load_sizes
from mnas.scaling import input_sizes


def make(folder: Path, images: int) -> Path:
    """Write smooth random JPEGs to two class folders."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = folder / ("a" if number % 2 else "b") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=85)
    return folder


def decode(data: str, cache: Path, groups: Sequence[Sequence[int]]) -> float:
    """Return the processor time, in seconds, of decoding each group of sizes into an empty cache."""
    for entry in cache.glob("*px-*"):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    start = time.process_time()
    for sizes in groups:
        load_sizes(data, input_sizes=sizes, seed=0, cache_dir=cache)
    return time.process_time() - start


def main() -> None:
    """Measure, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--sizes", type=input_sizes, default="48,64,80,96,128,160,192,224")
    parser.add_argument("--images", type=int, default=300, help="number of JPEGs to make if DATA is not given")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        data = options.data or str(make(folder / "images", options.images))
        run = partial(decode, data, folder / "cache")
        ways = {
            f"{max(options.sizes)} px alone": [[max(options.sizes)]],
            f"{len(options.sizes)} sizes together": [options.sizes],
            f"{len(options.sizes)} sizes one by one": [[size] for size in options.sizes],
        }
        for groups in ways.values():  # digests of files, and duplicates of every size, are cached from here on
            run(groups)
        seconds = {way: statistics.median(run(groups) for _ in range(options.repeat)) for way, groups in ways.items()}
        alone = next(iter(seconds.values()))
        print("| images decoded at | processor time | ratio |\n|---|---|---|")
        for way, time_s in seconds.items():
            print(f"| {way} | {time_s:.2f} s | {time_s / alone:.2f} |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
