"""A small data set in COCO's layout: bright discs and squares on dark noise, and a tiny backbone for it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mnas.arch import Arch

BACKBONE = (
    "r1_k3_s22_e1_i8_o8_noskip,r1_k3_s22_e3_i8_o16_noskip,r1_k3_s22_e3_i16_o24_noskip,r2_k3_s22_e3_i24_o32_noskip"
)
CLASSES = ("disc", "square")


def backbone() -> Arch:
    """Output stride 32 in five steps, 8 to 32 channels."""

    return replace(Arch.from_block_strings(BACKBONE), head_filters=48)


def write_shapes(root: Path, *, train: int = 16, val: int = 8, test: int = 4, side: int = 96) -> Path:
    """Write the images and annotations of each part, and return the folder; val repeats the first of train."""
    for part, count in (("train", train), ("val", val), ("test", test)):
        if not count:
            continue
        rng = np.random.default_rng(8 if part == "test" else 7)
        folder = root / part
        folder.mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            picture = Image.fromarray(rng.integers(0, 60, (side, side, 3), np.uint8))
            draw = ImageDraw.Draw(picture)
            for _ in range(int(rng.integers(1, 3))):
                size = int(rng.integers(side // 4, side // 2))
                x, y = (int(v) for v in rng.integers(0, side - size, 2))
                label = int(rng.integers(0, 2))
                shape = draw.ellipse if label == 0 else draw.rectangle
                shape((x, y, x + size - 1, y + size - 1), fill=(250, 220, 40) if label == 0 else (40, 200, 250))
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number, "category_id": label + 1,
                    "bbox": [x, y, size, size], "area": size * size, "iscrowd": 0,
                })  # fmt: skip
            picture.save(folder / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": side, "height": side})
        categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
        (root / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root
