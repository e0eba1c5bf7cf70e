"""Fine-tuning: the accuracy of a pretrained network on few images, with one part of the recipe changed at a time.

    python benchmarks/finetune_recipe.py [DATA] [--input-size 64] [--per-class 100] [--seeds 0] [--only ROW ROW]

DATA is cifar10-jpeg.tar.gz or a folder with train/ and test/, each with a folder of images for each class; the default,
digits, is only for a trial of the script. It needs mnas[pretrained]. Of each class, by name, it takes the first
--per-class images for training, a quarter as many for validation, and --test-per-class for testing. Each result is
added to OUT/results.json at once, and the next call skips it. --only names rows of the table.
Expected on one core: half a minute a row at 64 px.
"""

import argparse
import json
import os
import shutil
import statistics
import tarfile
import time
from pathlib import Path
from typing import Any

NETWORK = "efficientnet-lite0"
BASE: dict[str, Any] = {
    "epochs": 6, "batch_size": 32, "fewest_steps": 0, "optimizer": "adamw", "learning_rate": 0.004,
    "schedule": "cosine", "warmup_epochs": 1, "ema_decay": 0.0, "label_smoothing": 0.0, "weight_decay": 0.05,
    "dropout": 0.2, "bn_momentum": "arch", "batch_norm": "recentred", "estimate_statistics": 0,
    "augmentation": "shift", "crop": 1.0,
}  # fmt: skip
"""The row that all others change; learning rates are for 256 images, so 0.004 is 5e-4 for 32."""
INCEPTION = {"augmentation": "inception"}
ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "batch norm: batch": {"batch_norm": "batch"},
    "batch norm: frozen": {"batch_norm": "frozen"},
    "batch norm: estimated again": {"estimate_statistics": 1000},
    "batch norm: momentum 0.1": {"bn_momentum": 0.1},
    "frozen, rate 1e-3": {"batch_norm": "frozen", "learning_rate": 0.008},
    "frozen, rate 2e-3": {"batch_norm": "frozen", "learning_rate": 0.016},
    "rate 1e-4": {"learning_rate": 0.0008},
    "rate 2.5e-4": {"learning_rate": 0.002},
    "rate 1e-3": {"learning_rate": 0.008},
    "rate 2e-3": {"learning_rate": 0.016},
    "augmentation: mirror only": {**INCEPTION, "scale_low": 1.0},
    "augmentation: crops from 0.7": {**INCEPTION, "scale_low": 0.7},
    "augmentation: crops from 0.5": {**INCEPTION, "scale_low": 0.5},
    "augmentation: crops from 0.25": {**INCEPTION, "scale_low": 0.25},
    "augmentation: timm m5": {"auto_augment": "rand-m5-n2-mstd0.5-inc1"},
    "augmentation: erasing 0.25": {"random_erasing": 0.25},
    "mixup 0.2": {"mixup": 0.2},
    "moving average 0.97": {"ema_decay": 0.97},
    "moving average 0.99": {"ema_decay": 0.99},
    "moving average 0.999": {"ema_decay": 0.999},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "weight decay 0": {"weight_decay": 0.0},
    "weight decay 0.3": {"weight_decay": 0.3},
    "dropout 0": {"dropout": 0.0},
    "dropout 0.4": {"dropout": 0.4},
    "batch 16": {"batch_size": 16},
    "batch 64": {"batch_size": 64},
    "SGD 0.01": {"optimizer": "sgd", "learning_rate": 0.08, "weight_decay": 1e-4},
    "12 epochs": {"epochs": 12},
    "20 epochs": {"epochs": 20},
    "30 epochs": {"epochs": 30},
    "60 epochs": {"epochs": 60},
    "12 epochs, sampling": {"epochs": 12, "balance": "sampling"},
    "12 epochs, weighted loss": {"epochs": 12, "balance": "loss"},
    "12 epochs, rate 2.5e-4": {"epochs": 12, "learning_rate": 0.002},
    "12 epochs, rate 1e-3": {"epochs": 12, "learning_rate": 0.008},
    "12 epochs, batch norm: frozen": {"epochs": 12, "batch_norm": "frozen"},
    "12 epochs, crops from 0.5": {"epochs": 12, **INCEPTION, "scale_low": 0.5},
    "12 epochs, crops from 0.25": {"epochs": 12, **INCEPTION, "scale_low": 0.25},
    "12 epochs, batch norm: batch": {"epochs": 12, "batch_norm": "batch"},
    "earlier preset": {
        "epochs": 20,
        "batch_norm": "batch",
        "ema_decay": 0.999,
        "label_smoothing": 0.1,
        **INCEPTION,
        "scale_low": 0.25,
        "crop": 0.875,
    },
}


def images_of(data: str, out: Path, per_class: int, test_per_class: int, imbalance: float) -> Path:
    """Return the name of a data set, or a folder with the chosen images of an archive or a folder."""
    if not Path(data).exists():
        return Path(data)
    rarer = "" if imbalance == 1 else f"-{imbalance:g}"
    folder = out / f"{Path(data).name.partition('.')[0]}-{per_class}-{test_per_class}{rarer}"
    if folder.exists():
        return folder
    source = Path(data)
    if source.is_file():
        if not (out / "unpacked").exists():
            with tarfile.open(source) as archive:
                archive.extractall(out / "unpacked", filter="data")
        source = next((out / "unpacked").glob("*/train")).parent
    for part, count in (("train", per_class + per_class // 4), ("test", test_per_class)):
        for number, kind in enumerate(sorted(path for path in (source / part).iterdir() if path.is_dir())):
            share = imbalance**number if part == "train" else 1
            (out / "copying" / part / kind.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(kind.iterdir())[: max(2, round(count * share))]:
                shutil.copy(image, out / "copying" / part / kind.name)
    os.rename(out / "copying", folder)
    return folder


def trained(
    folder: Path, out: Path, changes: dict[str, Any], input_size: int, per_class: int, seed: int
) -> dict[str, Any]:
    """Train with one recipe and return its figures."""
    from mnas.data.open_batches import open_batches
    from mnas.train.config import TrainConfig
    from mnas.train.initial import WeightsSource, initial_network
    from mnas.train.loop import train
    from mnas.zoo.architectures import named_arch

    config = TrainConfig(**{**BASE, **changes, "seed": seed, "threads": 1, "accelerator": "cpu"})
    decoded = config.crop == 1 and not config.auto_augment
    batches = open_batches(
        str(folder), input_size=input_size, seed=seed, crop=config.crop, augmentation=config.variation(),
        loader="array" if decoded else "files", workers=0 if decoded else 1, data_dir=None, download=True,
        max_images_per_class=0 if folder.is_dir() else per_class, on_progress=None, cache_dir=out / "cache",
    )  # fmt: skip
    source = WeightsSource(name=NETWORK, arch=named_arch(NETWORK), weights="pretrained")
    network = initial_network(source, batches, seed)
    target = out / "training"
    shutil.rmtree(target, ignore_errors=True)
    start, used = time.perf_counter(), time.process_time()
    result = train(network.arch, batches, config, target, initial=network)
    rows = [line.split(",") for line in (target / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("val_accuracy")
    return {
        "validation": result.accuracy, "test": result.test_accuracy, "curve": [float(row[column]) for row in rows[1:]],
        "epochs": result.epochs, "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used,
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Return the mean and spread of each row over its seeds, grouped by images and size."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["data"], result["input_size"], result["row"]), []).append(result)
    lines = ["| images | px | recipe | seeds | validation | test | CPU seconds |", "|---|---|---|---|---|---|---|"]
    for (data, size, row), group in groups.items():
        tests = [100 * result["test"] for result in group]
        spread = f" ± {statistics.stdev(tests):.1f}" if len(tests) > 1 else ""
        validation, cpu = (statistics.mean(result[key] for result in group) for key in ("validation", "cpu_seconds"))
        lines.append(
            f"| {data} | {size} | {row} | {len(group)} | {100 * validation:.1f} % | "
            f"{statistics.mean(tests):.1f}{spread} % | {cpu:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--test-per-class", type=int, default=200)
    parser.add_argument("--imbalance", type=float, default=1, help="size of a class as a share of the one before")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW")
    parser.add_argument("--out", type=Path, default=Path("build/finetune-recipe"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = images_of(options.data, options.out, options.per_class, options.test_per_class, options.imbalance)
    path = options.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else []
    for row, changes in ROWS.items():
        if options.only and row not in options.only:
            continue
        for seed in map(int, options.seeds.split(",")):
            key = {
                "data": folder.name, "per_class": options.per_class, "input_size": options.input_size, "row": row,
                "recipe": {**BASE, **changes}, "seed": seed,
            }  # fmt: skip
            if any(all(result[name] == value for name, value in key.items()) for result in results):
                continue
            results.append(
                {**key, **trained(folder, options.out, changes, options.input_size, options.per_class, seed)}
            )
            path.write_text(json.dumps(results, indent=1))
            print(f"{row}, seed {seed}: test {results[-1]['test']:.4f}, {results[-1]['seconds']:.0f} s", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
