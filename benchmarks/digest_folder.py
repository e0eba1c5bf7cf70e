"""Measure the cost of identifying a folder of images by content: the first time, and with cached digests.

    python benchmarks/digest_folder.py --images 60000

Prints the seconds for digesting all files, and for calling stat on them later; with --decode, also for opening the
cached decoded images. The files are in a temporary folder (`--folder` chooses another file system).
"""

import argparse
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mnas.data.content import digests
from mnas.data.content.memory import DigestMemory, digest_all
from mnas.data.content.mounts import stat_tells_change
from mnas.data.load import load_dataset


def make(root: Path, images: int) -> list[str]:
    """Write different JPEGs of 32 x 32 pixels and about 1 KB to ten class folders, and return their paths."""
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=40)
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
    paths = [f"{root}/{index % 10}/{index}.jpg" for index in range(images)]
    for index, path in enumerate(paths):
        Path(path).write_bytes(buffer.getvalue() + index.to_bytes(4, "little"))  # a decoder ignores trailing bytes
    return paths


def timed(what: str, run: Callable[[], object], repeat: int = 1) -> None:
    """Print the medians of wall-clock time and of the processor time of all threads."""
    wall, cpu = [], []
    for _ in range(repeat):
        start, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    print(f"{what} {statistics.median(wall):.2f} s ({statistics.median(cpu):.2f} s of processor time)")


def main() -> None:
    """Measure, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--decode", action="store_true", help="also decode the images, and open them from the cache")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        paths = make(folder / "images", options.images)
        print(f"{len(paths)} files of {Path(paths[0]).stat().st_size} bytes; stat tells: {stat_tells_change(paths[0])}")
        time.sleep(1.1 * digests.SETTLED_NS / 1e9)  # digests of files that have just changed are not remembered
        memory = DigestMemory(folder / "digests")
        timed("plain os.stat", lambda: [os.stat(path) for path in paths], options.repeat)
        timed("digest", lambda: digest_all(paths), options.repeat)
        timed("digest and remember", lambda: memory.digests(paths))
        timed("stat, remembered", lambda: memory.digests(paths), options.repeat)
        if options.decode:
            load = partial(load_dataset, str(folder / "images"), input_size=32, seed=0, cache_dir=folder / "cache")
            timed("load, decoding", load)
            timed("load, from the cache", load, options.repeat)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
