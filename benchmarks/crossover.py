"""From how many images on does training from scratch reach pretrained weights? At two latencies.

    python benchmarks/crossover.py ./cifar10 --images 200,1000,5000,40000 --results benchmarks/results/crossover.json
    python benchmarks/crossover.py      (to try it out: 200 handwritten digits)

The data set is a folder of train/ and test/ with a folder of images for each class, or one that `mnas` knows by name.
The first images of each class train, the last ones of its training part validate, and every training is `mnas train`
with one thread: preset `small` from scratch, `finetune` from weights. At each latency, both networks take about the
same time on a CPU, and the one from scratch sees at least as many images (`EPOCHS`). Every result is added to --results
at once, and the next call skips it; an interrupted training resumes. Needs mnas[pretrained].
"""

import argparse
import datetime
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mnas
from mnas.data.load import load_dataset
from mnas.data.named import NAMED
from mnas.data.native import native_size

EPOCHS = {
    "scratch": {200: 30, 1000: 8, 5000: 2, 40000: 1},
    "weights": {200: 15, 1000: 5, 5000: 2, 40000: 1},
}
"""How a network starts -> number of training images -> epochs; for other numbers, about 10,000 images in all."""


@dataclass(frozen=True)
class Side:
    """A network at one latency, and how it starts."""

    start: str
    network: str
    input_size: int
    latency: str
    """Name of the latency that it shares with another one."""


SIDES = (
    Side("scratch", "mobilenetv2@0.6/s8", 32, "fast"),
    Side("scratch", "mobilenetv2/s8", 32, "slow"),
    Side("weights", "efficientnet-lite0", 64, "fast"),
    Side("weights", "efficientnet-lite0", 96, "slow"),
)
"""Networks and input sizes of about the same latency in pairs; those from scratch take the images at their own size."""


def images_of(data: str, out: Path, count: int, val: int, test: int) -> Path:
    """Return a folder with `count` images for training, `val` for validation and `test` for testing, over all classes.

    A smaller set is a part of a larger one, and all have the same validation and test images.
    """
    folder = out / f"{Path(data).name}-{count}-{val}-{test}"
    if folder.exists():
        return folder
    half = out / "copying"
    shutil.rmtree(half, ignore_errors=True)
    source = named_images(data, out) if data in NAMED else Path(data)
    classes = sorted(path.name for path in (source / "train").iterdir() if path.is_dir())
    for name in classes:
        trained, tested = (sorted((source / part / name).iterdir()) for part in ("train", "test"))
        each, held_out, scored = (number // len(classes) for number in (count, val, test))
        if each > len(trained) - held_out:
            raise SystemExit(f"class {name} must have {each + held_out} training images, but got {len(trained)}")
        parts = {"train": trained[:each], "val": trained[len(trained) - held_out :], "test": tested[:scored]}
        for part, images in parts.items():
            (half / part / name).mkdir(parents=True)
            for image in images:
                shutil.copy(image, half / part / name)
    os.rename(half, folder)
    return folder


def named_images(name: str, out: Path) -> Path:
    """Return a folder with the images of a data set that `mnas` knows by name, as PNG files."""
    folder = out / f"{name}-images"
    if folder.exists():
        return folder
    half = out / "writing"
    shutil.rmtree(half, ignore_errors=True)
    dataset = load_dataset(name, input_size=native_size(name), seed=0, download=name != "digits")
    assert dataset.test is not None
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = half / part / dataset.classes[int(label)] / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image)).save(path)
    os.rename(half, folder)
    return folder


def measured(side: Side, classes: int) -> dict[str, Any]:
    """Return the latency of a network on this machine, with its 95 % interval, in milliseconds."""
    [model] = mnas.latency(side.network, input_size=str(side.input_size), classes=classes, budget_s=3.0)
    return {name: getattr(model.latency, name) for name in ("latency_ms", "low_ms", "high_ms", "ratio")}


def trained(side: Side, folder: Path, out: Path, epochs: int) -> dict[str, Any]:
    """Train one network and return its figures."""
    target = out / f"{side.start}-{folder.name}"
    weights = {"weights": "pretrained"} if side.start == "weights" else {}
    result = mnas.train(
        side.network, data=str(folder), out=target, input_size=str(side.input_size), epochs=epochs, threads=1,
        workers=1, accelerator="cpu", resume=True, watcher="none", **weights,
    )  # fmt: skip
    return {"test_accuracy": result.test_accuracy, "val_accuracy": result.accuracy, "seconds": result.seconds}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the test accuracies: a row for each number of images, a column for each network."""
    sides = [side for side in SIDES if any(_of(result, side) for result in results)]
    heads = []
    for side in sides:
        ms = next(result["latency_ms"] for result in results if _of(result, side))
        words = "from weights" if side.start == "weights" else "from scratch"
        heads.append(f"`{side.network}`, {side.input_size} px, {words}, {ms:.2f} ms")
    lines = [f"| images | {' | '.join(heads)} |", f"|{'---|' * (len(sides) + 1)}"]
    for count in sorted({result["images"] for result in results}):
        cells = []
        for side in sides:
            here = [result for result in results if _of(result, side) and result["images"] == count]
            cells.append(f"{here[-1]['test_accuracy']:.1%} ({here[-1]['epochs']} epochs)" if here else "")
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(result: dict[str, Any], side: Side) -> bool:
    return (result["start"], result["network"], result["input_size"]) == (side.start, side.network, side.input_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--images", default="200")
    parser.add_argument("--starts", default="scratch,weights")
    parser.add_argument("--latencies", default="fast,slow")
    parser.add_argument("--val-images", type=int, default=500)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=Path("build/crossover/results.json"))
    parser.add_argument("--out", type=Path, default=Path("build/crossover"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    name = Path(options.data).name
    results = json.loads(options.results.read_text()) if options.results.exists() else []
    for start in options.starts.split(","):
        for count in map(int, options.images.split(",")):
            for side in (
                side for side in SIDES if side.start == start and side.latency in options.latencies.split(",")
            ):
                key = {"data": name, "images": count, "val_images": options.val_images}
                key |= {"test_images": options.test_images, "start": start, "network": side.network}
                key |= {"input_size": side.input_size}
                if any(key.items() <= result.items() for result in results):
                    continue
                folder = images_of(options.data, options.out, count, options.val_images, options.test_images)
                epochs = EPOCHS[start].get(count) or max(1, min(30, 10_000 // count))
                figures = measured(side, len(list((folder / "train").iterdir())))
                figures |= trained(side, folder, options.out, epochs)
                today = datetime.date.today().isoformat()
                results.append({**key, "latency": side.latency, "epochs": epochs, "date": today, **figures})
                options.results.parent.mkdir(parents=True, exist_ok=True)
                options.results.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{side.network} {start}, {count} images: {figures['test_accuracy']:.4f}", flush=True)
    print(table([result for result in results if result["data"] == name]))


if __name__ == "__main__":
    main()
