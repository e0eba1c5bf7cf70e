"""Measure the reading and augmentation of images with boxes: processor time per image of each augmentation.

    python benchmarks/box_loading.py [DATA] [--input-size 320]

DATA is a folder as in `mnas detect train`; by default, photograph-like JPEGs of 640 x 480 pixels with 14 boxes each.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image

from mnas.data.detection.augmentation import BoxAugmentation
from mnas.data.detection.batches import open_box_batches
from mnas.data.detection.load import load_detection

BATCH = 16


def make(folder: Path, images: int) -> Path:
    """Write smooth random JPEGs, and their boxes as COCO JSON."""
    random = np.random.default_rng(0)
    entries, boxes = [], []
    (folder / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for number in range(images):
        small = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / "train" / f"{number}.jpg", quality=85)
        entries.append({"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480})
        for x, y, side in random.integers((0, 0, 20), (520, 360, 120), (14, 3)).tolist():
            boxes.append({"id": len(boxes), "image_id": number, "category_id": 1, "bbox": [x, y, side, side]})
    values = {"images": entries, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(values))
    return folder


def seconds_per_image(batches: Iterator[tuple[object, ...]], images: int) -> float:
    """Return the processor time of reading the batches, divided by the number of images."""
    start = time.process_time()
    for _ in batches:
        pass
    return (time.process_time() - start) / images


def main() -> None:
    """Measure, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--input-size", type=int, default=320)
    parser.add_argument("--images", type=int, default=128, help="number of JPEGs to make if DATA is not given")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        data = load_detection(options.data or make(folder / "images", options.images))
        print("| augmentation | cached | processor time per training image |\n|---|---|---|")
        for augmentation in get_args(BoxAugmentation):
            for most_bytes in (8_000_000_000, 0):
                batches = open_box_batches(
                    data, input_size=options.input_size, augmentation=augmentation, seed=0, workers=0,
                    cache_dir=folder / "cache", most_cached_bytes=most_bytes,
                )  # fmt: skip
                count = batches.steps(BATCH) * BATCH
                times = [seconds_per_image(batches.training(epoch, BATCH), count) for epoch in range(options.repeat)]
                cached = "yes" if most_bytes else "no"
                print(f"| {augmentation} | {cached} | {1000 * statistics.median(times):.1f} ms |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
