"""CIFAR-10: compare the full training of mnas with a plain timm loop, and the exported files with the checkpoint.

Both loops train the same network (mnasnet-small at output stride 8) on the same 40,000 training images (a fifth is held
out) from the same seeds, with equal epochs and batch size, on one thread each, so that two run side by side on two
cores. `ours` is the preset `small`. `timm` is timm's `create_optimizer_v2` and `create_scheduler_v2` with the defaults
of its train.py (SGD with Nesterov momentum, 0.1 for 256 images, weight decay 2e-5, cosine after a warm-up, label
smoothing 0.1), torchvision's RandomCrop(32, padding=4) and flip, torch's batch-norm momentum (0.1), no dropout, no EMA.
Then the model of `ours` with the first seed is exported, and every file is scored on the 10,000 test images. Goals:
`ours` is not less accurate; LiteRT fp32 is equal to 0.05 points, and int8 within 1 point.

    python benchmarks/cifar10.py cifar10-jpeg.tar.gz --epochs 30 --seeds 0,1,2 --out FOLDER

FOLDER contains every finished part, which the next call skips. An interrupted training of `ours` resumes. The tables
are in FOLDER/tables.md.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

NETWORK = "mnasnet-small/s8"
INPUT_SIZE = 32
CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Options:
    """The options of a part; picklable."""

    data: Path
    out: Path
    epochs: int
    batch_size: int
    images_per_class: int
    latency_budget_s: float


def prepare(archive: Path, out: Path) -> Path:
    """Return the folder with train/ and test/, unpacked once."""
    folder = out / "cifar10"
    if not folder.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(out / "unpacking", filter="data")
        os.rename(out / "unpacking" / "cifar10", folder)
    return folder


def load(options: Options):  # -> Dataset
    from mnas.data.load import load_dataset

    return load_dataset(
        str(options.data), input_size=INPUT_SIZE, seed=0, cache_dir=options.out / "cache",
        max_images_per_class=options.images_per_class,
    )  # fmt: skip


# The two loops


def train_timm(options: Options, seed: int) -> dict[str, float]:
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from mnas.nn.network import build_network
    from mnas.zoo.architectures import named_arch

    torch.set_num_threads(1)
    dataset = load(options)
    normalise = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *normalise])

    class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, part, transform) -> None:
            self.part, self.transform = part, transform

        def __len__(self) -> int:
            return len(self.part)

        def __getitem__(self, index: int):
            return self.transform(Image.fromarray(self.part.images[index])), int(self.part.labels[index])

    torch.manual_seed(seed)
    network = build_network(named_arch(NETWORK), len(dataset.classes))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    network.dropout.p = 0.0  # timm's default
    network = network.to(memory_format=torch.channels_last)
    loader = DataLoader(Images(dataset.train, augment), options.batch_size, shuffle=True, drop_last=True)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1 * options.batch_size / 256, weight_decay=2e-5)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=options.epochs, warmup_lr=1e-5,
        warmup_epochs=max(1, min(5, options.epochs // 10)), step_on_epochs=False, updates_per_epoch=len(loader),
    )  # fmt: skip
    start, step = time.process_time(), 0
    for epoch in range(options.epochs):
        network.train()
        for images, labels in loader:
            logits = network(images.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            scheduler.step_update(step)
        print(f"timm-{seed}: epoch {epoch + 1} of {options.epochs}, {time.process_time() - start:.0f} s", flush=True)
    seconds = time.process_time() - start
    network.eval()
    right = 0
    with torch.no_grad():
        for images, labels in DataLoader(Images(dataset.test, transforms.Compose(normalise)), 256):
            right += int((network(images).argmax(1) == labels).sum())
    return {"test_accuracy": right / len(dataset.test), "cpu_s": seconds}


def train_ours(options: Options, seed: int) -> dict[str, float]:
    from mnas.data.arrays import ArrayBatches
    from mnas.train.loop import train
    from mnas.train.metrics import EpochMetrics
    from mnas.train.presets import PRESETS
    from mnas.train.watch import TrainProgress, TrainWatcher
    from mnas.zoo.architectures import named_arch

    class Printing(TrainWatcher):
        def step(self, progress: TrainProgress) -> None:
            pass

        def epoch(self, row: EpochMetrics) -> None:
            print(f"ours-{seed}: epoch {row.epoch} of {options.epochs}, {row.val_accuracy:.2%}", flush=True)

    config = replace(
        PRESETS["small"], epochs=options.epochs, batch_size=options.batch_size, fewest_steps=0, seed=seed,
        warmup_epochs=min(2, options.epochs / 10), threads=1, accelerator="cpu",
    )  # fmt: skip
    batches = ArrayBatches(load(options), config.variation(), seed)
    folder = options.out / f"ours-{seed}"
    start = time.process_time()  # for an interrupted training, this counts from its resumption
    trained = train(named_arch(NETWORK), batches, config, folder, resume=True, watcher=Printing())
    assert trained.test_accuracy is not None
    return {"test_accuracy": trained.test_accuracy, "cpu_s": time.process_time() - start}


LOOPS = {"ours": train_ours, "timm": train_timm}


def run_part(name: str, options: Options) -> dict[str, float]:
    """Run one training in this process, and store its result."""
    loop, _, seed = name.partition("-")
    found = LOOPS[loop](options, int(seed))
    (options.out / f"{name}.json").write_text(json.dumps(found))
    return found


# Exported files


def ship(options: Options, seed: int) -> str:
    """Export the model of `ours` with that seed, and return a table of test accuracy, size and latency of each file."""
    import numpy as np

    from mnas.counts import wilson
    from mnas.export.litert import litert_fp16, litert_fp32, litert_int8
    from mnas.export.timing import speed, timed_file
    from mnas.nn.weights import load_weights
    from mnas.nn.weights_info import read_weights_info
    from mnas.predict.model import load_model
    from mnas.predict.score import score_model

    weights = options.out / f"ours-{seed}" / "model.safetensors"
    info, dataset = read_weights_info(weights), load(options)
    count = min(CALIBRATION_IMAGES, len(dataset.train))
    chosen = np.sort(np.random.default_rng(0).choice(len(dataset.train), count, replace=False))
    calibration = (dataset.train.images[chosen].astype(np.float32) / 255 - info.mean) / info.std
    fp32 = litert_fp32(load_weights(weights), info)
    models = {"fp32": fp32, "fp16": litert_fp16(fp32), "int8": litert_int8(fp32, calibration.astype(np.float32))}
    files = {"checkpoint (torch)": weights}
    for kind, content in models.items():
        files[f"LiteRT {kind}"] = path = options.out / f"model-{kind}.tflite"
        path.write_bytes(content)
    test = dataset.test
    parts = [slice(start, start + 256) for start in range(0, len(test), 256)]
    lines = [
        "| model | test accuracy | 95 % CI | against the checkpoint | size | latency, 1 thread |",
        "|---|---|---|---|---|---|",
    ]
    reference = timed_file(files["LiteRT fp32"])
    whole = 0.0
    for name, path in files.items():
        score = score_model(load_model(path), ((test.images[part], test.labels[part]) for part in parts))
        whole = whole or score.top1
        low, high = wilson(score.top1, score.images)
        latency = "-"
        if path.suffix == ".tflite":
            found = speed(timed_file(path), reference, budget_s=options.latency_budget_s)
            latency = f"{found.latency_ms:.3f} ms [{found.low_ms:.3f}, {found.high_ms:.3f}]"
        lines.append(
            f"| {name} | {score.top1:.2%} | {100 * low:.2f}-{100 * high:.2f} | "
            f"{100 * (score.top1 - whole):+.2f} points | {path.stat().st_size / 1e6:.2f} MB | {latency} |"
        )
    return "\n".join(lines)


# The tables


def compared(found: dict[str, dict[str, float]], seeds: Sequence[int]) -> str:
    """Return mean test accuracies with 95 % intervals by Student's t, and their difference with one by Welch's."""
    from scipy import stats

    lines = ["| loop | test accuracy by seed | mean, 95 % | training, CPU |", "|---|---|---|---|"]
    accuracies = {loop: [100 * found[f"{loop}-{seed}"]["test_accuracy"] for seed in seeds] for loop in LOOPS}
    for loop, values in accuracies.items():
        minutes = statistics.mean(found[f"{loop}-{seed}"]["cpu_s"] for seed in seeds) / 60
        mean = f"{statistics.mean(values):.2f} %"
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
            mean += f" ± {half:.2f}"
        lines.append(f"| {loop} | {', '.join(f'{v:.2f}' for v in values)} | {mean} | {minutes:.1f} min |")
    difference = f"ours - timm: {statistics.mean(accuracies['ours']) - statistics.mean(accuracies['timm']):+.2f} points"
    if len(seeds) > 1:
        interval = stats.ttest_ind(accuracies["ours"], accuracies["timm"], equal_var=False).confidence_interval()
        difference += f", 95 % [{interval.low:+.2f}, {interval.high:+.2f}]"
    return "\n".join([*lines, "", difference])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?", help="cifar10-jpeg.tar.gz")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("cifar10-benchmark"))
    parser.add_argument("--side-by-side", type=int, default=2)
    parser.add_argument(
        "--images-per-class", type=int, default=0, help="training images per class, for a quick trial; 0: all"
    )
    parser.add_argument("--latency-budget-s", type=float, default=20.0)
    parsed = parser.parse_args()
    if parsed.archive is None:
        print("skipped: cifar10-jpeg.tar.gz is required (see --help)")
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes to come
    parsed.out.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in parsed.seeds.split(",")]
    options = Options(
        data=prepare(parsed.archive, parsed.out), out=parsed.out, epochs=parsed.epochs, batch_size=parsed.batch_size,
        images_per_class=parsed.images_per_class, latency_budget_s=parsed.latency_budget_s,
    )  # fmt: skip
    settings = f"{parsed.epochs} epochs, batch {parsed.batch_size}, {parsed.images_per_class or 'all'} images a class"
    kept = parsed.out / "settings.txt"
    if kept.exists() and kept.read_text() != settings:
        raise SystemExit(
            f"{parsed.out} contains results of {kept.read_text()}, not of {settings}; choose another --out"
        )
    kept.write_text(settings)
    load(options)  # decode once, so that the trainings need not wait for each other
    names = [f"{loop}-{seed}" for seed in seeds for loop in LOOPS]
    missing = [name for name in names if not (parsed.out / f"{name}.json").exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parsed.side_by_side, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(run_part, name, options): name for name in missing}
        for future in as_completed(futures):
            print(f"{futures[future]}: {future.result()}", flush=True)
    found = {name: json.loads((parsed.out / f"{name}.json").read_text()) for name in names}
    tables = f"{NETWORK}, {settings}\n\n{compared(found, seeds)}\n\n{ship(options, seeds[0])}\n"
    (parsed.out / "tables.md").write_text(tables)
    print(f"\n{tables}")


if __name__ == "__main__":
    main()
