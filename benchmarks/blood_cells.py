"""Detect blood cells after 205 images: default recipe, from scratch, the paper's boxes, and torchvision's network.

    python benchmarks/blood_cells.py ./bccd --results benchmarks/results/blood_cells.json   (2 hours of 2 cores)
    python benchmarks/blood_cells.py ./bccd --epochs 1 --seeds 0      (to try it out)

DATA is BCCD (Shenggan/BCCD_Dataset) in COCO's layout: train/, val/, test/ and annotations/instances_*.json. All rows
have the same images, epochs, optimizer and augmentation; each is added to --results as soon as it is done, so that the
next call resumes. Latency is that of the LiteRT file (ONNX Runtime for torchvision's network), one thread.

    fitted       efficientnet-lite0 with pretrained weights and fitted boxes, several seeds
    scratch      the same from random weights
    paper boxes  the first with SSDLite's boxes
    torchvision  ssdlite320_mobilenet_v3_large from random weights, as torchvision builds it
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

import mnas
from mnas.data.augment import normalised
from mnas.data.detection.batches import open_box_batches
from mnas.data.detection.load import load_detection
from mnas.detection.config import DetectionConfig
from mnas.detection.presets import PRESETS
from mnas.detection.score import score_detector
from mnas.train.recipe import MovingAverage, optimizer_for, schedule_for
from mnas.train.scoring import moments

Results = dict[str, Any]
SIZE = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=PRESETS["small"].epochs)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default="fitted,scratch,paper boxes,torchvision")
    parser.add_argument("--results", type=Path, default=Path("build/blood_cells.json"))
    parser.add_argument("--out", type=Path, default=Path("build/blood-cells"))
    options = parser.parse_args()
    results: Results = json.loads(options.results.read_text()) if options.results.exists() else {}

    def done(key: str, work: Callable[[], Results]) -> None:
        if key not in results:
            results[key] = work()
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(f"{key}: {results[key]}", flush=True)

    seeds = [int(seed) for seed in options.seeds.split(",")]
    wanted = options.rows.split(",")
    for seed in seeds if "fitted" in wanted else ():
        done(f"fitted, seed {seed}", lambda s=seed: ours(options, s, weights="pretrained"))
    if "scratch" in wanted:
        done("scratch, seed 0", lambda: ours(options, 0))
    if "paper boxes" in wanted:
        done("paper boxes, seed 0", lambda: ours(options, 0, weights="pretrained", boxes="paper"))
    if "torchvision" in wanted:
        done("torchvision, seed 0", lambda: torchvisions(options.data, options.epochs))


def ours(options: argparse.Namespace, seed: int, **more: Any) -> Results:
    """Train by `mnas detect train`, and score the test images for each class."""
    start = sum(os.times()[:4])
    name = "-".join([*map(str, more.values()), str(seed)])
    trained = mnas.detect.train(
        "efficientnet-lite0", data=options.data, epochs=options.epochs, seed=seed, threads=1, resume=True,
        out=options.out / name, **more,
    )  # fmt: skip
    cpu_s = sum(os.times()[:4]) - start
    return {"cpu_s": cpu_s, **scores_of(mnas.detect.evaluate(trained.weights, data=options.data).scores)}


def scores_of(scores: Any) -> Results:
    values = asdict(scores)
    return {name: values[name] for name in ("mean_precision", "ap50", "ap75", "classes")}


def torchvisions(folder: str, epochs: int) -> Results:
    """Train torchvision's network on the same batches, with its own loss, boxes and decoding."""
    start = sum(os.times()[:4])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config: DetectionConfig = PRESETS["small"]
    config = type(config)(**{**vars(config), "epochs": epochs})
    data = load_detection(folder)
    batches = open_box_batches(data, input_size=SIZE, augmentation=config.augmentation, seed=0, workers=0)
    network = ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(data.classes),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )
    mean, std = moments((0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
    network.train()
    average = MovingAverage(network, config.ema_decay)
    optimizer = optimizer_for(network, config, config.batch_size)
    steps = batches.steps(config.batch_size)
    schedule = schedule_for(optimizer, config, steps)
    for epoch in range(epochs):
        for step, (images, targets) in enumerate(batches.training(epoch, config.batch_size)):
            done = epoch * steps + step
            schedule.step_update(done)
            x = normalised(images, mean, std)
            objects = [{"boxes": one.boxes * SIZE, "labels": one.labels} for one in targets]
            loss = sum(network(list(x), objects).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(network, done + 1)
        print(f"torchvision [{epoch + 1}/{epochs}] loss {float(loss):.3f}", flush=True)
    scored = average.network.eval()

    @torch.inference_mode()
    def detect(pixels: Any) -> list[Any]:
        answers = scored(list(normalised(torch.from_numpy(pixels), mean, std)))
        return [((one["boxes"] / SIZE).numpy(), one["scores"].numpy(), one["labels"].numpy() - 1) for one in answers]

    test = batches.images("test")
    scores, _ = score_detector(detect, batches.scoring("test", 16), test, data.classes, data.category_ids)
    cpu_s = sum(os.times()[:4]) - start
    return {"cpu_s": cpu_s, **scores_of(scores), "latency_ms": onnx_latency_ms(scored)}


def onnx_latency_ms(network: torch.nn.Module) -> float:
    """Return the median latency of the network without decoding, by ONNX Runtime on one thread."""
    import tempfile

    import numpy as np
    import onnxruntime

    class Raw(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = network.backbone, network.head

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.head(list(self.backbone(x).values()))
            return outputs["cls_logits"], outputs["bbox_regression"]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.onnx"
        torch.onnx.export(Raw().eval(), (torch.zeros(1, 3, SIZE, SIZE),), str(path), dynamo=True)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), settings)
        x = {session.get_inputs()[0].name: np.zeros((1, 3, SIZE, SIZE), np.float32)}
        times = []
        for _ in range(60):
            start = time.perf_counter()
            session.run(None, x)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[10:]))


if __name__ == "__main__":
    main()
