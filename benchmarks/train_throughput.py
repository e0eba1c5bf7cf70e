"""Compare training images per second: full training of mnas against a plain timm loop, on the same data and network.

`timm`: timm's model, `create_optimizer_v2` (RMSpropTF), label smoothing, `ModelEmaV3` and `create_loader` over an
ImageFolder, as in timm's train.py; `timm-cl`: the same with channels_last. `ours`: `mnas train`, preset `imagenet`
(RMSpropTF, label smoothing, moving average). All use random-resized crops and flips. Each has a separate process, and
they take turns (benchmarks/in_turns.py). A turn is an epoch of --steps steps. `waiting` is the share of time in which
the loop waits for its next batch.

CPU (default): 32 and 64 px, JPEGs of that size in an ImageFolder. The goal is 1.5 times timm. It takes about four
minutes on two cores:
    python benchmarks/train_throughput.py
GPU: A1 at 224 px, batches of 256 and 1024, mixed precision. The goal is 1.2 times timm. Batches are in memory, unless
--data names a folder, from which --workers processes decode for each loop:
    python benchmarks/train_throughput.py --device cuda [--compile] [--data FOLDER --workers 16]
"""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from in_turns import Run, Turn, in_turns, quartiles, ratios
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor

from mnas.data.batches import Batches
from mnas.data.open_batches import open_batches
from mnas.nn.network import build_network
from mnas.space.skeleton import output_stride_for
from mnas.train.presets import PRESETS
from mnas.train.process import StopRequest, training_settings
from mnas.train.session import TrainingSession
from mnas.train.start import make_accelerator
from mnas.train.training import Training
from mnas.train.watch import Unwatched
from mnas.zoo.architectures import named_arch

TIMM_NAMES = {"mnasnet-a1": "semnasnet_100", "mnasnet-b1": "mnasnet_100", "mnasnet-small": "mnasnet_small"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 10


def make_folder(folder: Path, images: int, size: int) -> Path:
    """Write an ImageFolder of JPEGs of blurred noise, which compresses about as photographs do."""
    rng = np.random.default_rng(0)
    for index in range(images):
        path = folder / "train" / str(index % CLASSES) / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (size // 4 + 1, size // 4 + 1, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=75)
    return folder


class Ready(Batches):
    """One batch of noise in (pinned) memory, repeated."""

    def __init__(self, size: int, batch_size: int, steps: int, cuda: bool) -> None:
        images = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (batch_size,))
        self.batch = (images.pin_memory(), labels.pin_memory()) if cuda else (images, labels)
        self.name, self.classes = "noise", tuple("0123456789")
        self.fingerprint = self.content = "noise"
        self.mean, self.std, self.input_size, self.crop = MEAN, STD, size, 1.0
        self.counts = {"train": batch_size * steps, "val": batch_size}

    def training(self, epoch: int, batch_size: int, **_: int) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batch for _ in range(self.steps(batch_size)))

    def scoring(self, part: str, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.batch


class Ours:
    def __init__(self, options: argparse.Namespace, case: "Case") -> None:
        config = dataclasses.replace(
            PRESETS["imagenet"],
            epochs=1000,
            batch_size=case.batch_size,
            crop=1.0,
            accelerator=options.device,
            compile=options.compile,
            threads=options.threads,
        )
        batches = case.ready or open_batches(
            str(case.folder / "train"),
            input_size=case.size,
            seed=0,
            crop=1.0,
            augmentation=config.variation(),
            loader="auto" if options.device == "cpu" else "files",
            workers=options.workers,
            data_dir=None,
            download=False,
            max_images_per_class=0,
            on_progress=None,
            cache_dir=case.folder,
        )
        self.steps = min(options.steps, batches.steps(case.batch_size))
        torch.manual_seed(0)
        network = build_network(case.arch, len(batches.classes))
        session = TrainingSession(
            folder=case.folder,
            identity={},
            accelerator=make_accelerator(config.device(), config.mixed_precision, compiled=config.compile),
            watcher=Unwatched(),
            stop=StopRequest(),
        )
        self.training = Training(network, batches, config, session)

    def turn(self) -> float:
        """Train for a turn, and return the seconds of waiting."""
        training = self.training
        training.steps = self.steps
        training.train_epoch()
        waiting = training.spent["waiting"]
        training.spent = {"training": 0.0, "waiting": 0.0}
        training.epoch, training.step = training.epoch + 1, 0
        training.loss_sum.zero_()
        return waiting


class Timm:
    def __init__(self, options: argparse.Namespace, case: "Case", channels_last: bool) -> None:
        self.device = torch.device(options.device)
        torch.manual_seed(0)
        model = timm.create_model(TIMM_NAMES[case.name], num_classes=CLASSES, drop_rate=0.2)
        # remove timm's early strides as mnas does
        model.conv_stem.stride = (case.arch.stem_stride,) * 2
        for stage, block in zip(model.blocks, case.arch.blocks, strict=True):
            stage[0].conv_dw.stride = (block.stride,) * 2
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(device=self.device, memory_format=self.format).train()
        self.average = ModelEmaV3(self.model, decay=0.9999)
        self.optimizer = create_optimizer_v2(
            self.model, "rmsproptf", lr=1e-4, weight_decay=1e-5, momentum=0.9, eps=1e-3
        )
        self.loss = LabelSmoothingCrossEntropy(0.1)
        if options.compile:
            self.model = torch.compile(self.model)
        self.steps = options.steps
        self.loader: Any = None
        self.ready = case.ready
        if case.ready is None:
            dataset = create_dataset("", root=str(case.folder / "train"), split="train", is_training=True)
            self.loader = create_loader(
                dataset,
                input_size=(3, case.size, case.size),
                batch_size=case.batch_size,
                is_training=True,
                color_jitter=None,
                mean=MEAN,
                std=STD,
                num_workers=options.workers,
                use_prefetcher=self.device.type == "cuda",
                device=self.device,
            )

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.loader is not None:
            return iter(self.loader)
        assert self.ready is not None
        return self._prefetched(self.ready.batch)

    def _prefetched(self, batch: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches as timm's PrefetchLoader does: uint8 NCHW, moved, converted and normalised on the device."""
        mean, std = (torch.tensor([255 * v for v in m], device=self.device).view(1, 3, 1, 1) for m in (MEAN, STD))
        images = batch[0].permute(0, 3, 1, 2).contiguous()
        images = images.pin_memory() if self.device.type == "cuda" else images
        while True:
            moved = images.to(self.device, non_blocking=True).float().sub_(mean).div_(std)
            yield moved, batch[1].to(self.device, non_blocking=True)

    def turn(self) -> float:
        """Train for a turn, and return the seconds of waiting."""
        waiting = 0.0
        source = self.batches()
        for _ in range(self.steps):
            before = time.perf_counter()
            images, labels = next(source)
            waiting += time.perf_counter() - before
            images = images.contiguous(memory_format=self.format)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = self.loss(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.average.update(self.model)
        loss.item()  # waits for a GPU
        return waiting


@dataclasses.dataclass
class Case:
    """The network and images that both loops train on."""

    name: str
    size: int
    batch_size: int
    folder: Path
    ready: Ready | None = None
    """Batches in memory, for a GPU without a folder."""

    @property
    def arch(self) -> Any:
        arch = named_arch(self.name)
        return arch.with_output_stride(min(arch.output_stride, output_stride_for(self.size)))


LOOPS: dict[str, Callable[[argparse.Namespace, Case], Any]] = {
    "ours": Ours,
    "timm": functools.partial(Timm, channels_last=False),
    "timm-cl": functools.partial(Timm, channels_last=True),
}


@contextlib.contextmanager
def made(name: str, options: argparse.Namespace, case: Case) -> Iterator[Run]:
    if options.device == "cuda" and options.data is None:
        case = dataclasses.replace(case, ready=Ready(case.size, case.batch_size, options.steps, cuda=True))
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(options.device)
    ours = name == "ours"
    with training_settings(options.threads, device, repeatable=False) if ours else contextlib.nullcontext():
        loop = LOOPS[name](options, case)
        yield lambda: (loop.steps * case.batch_size, loop.turn())


def report(case: Case, found: dict[str, list[Turn]]) -> None:
    for name, turns in found.items():
        rate = statistics.median(turn.images / turn.seconds for turn in turns)
        waiting = statistics.median(turn.waiting_s / turn.seconds for turn in turns)
        label = f"{case.name}/s{case.arch.output_stride}"
        print(
            f"{label:18} {case.size:4} {case.batch_size:6} {name:8} {rate:12,.0f} {waiting:8.1%}"
            + ("" if name == "ours" else f"   {quartiles(ratios(found['ours'], turns))}"),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--arch", nargs="+", choices=TIMM_NAMES)
    parser.add_argument("--input-size", type=int, nargs="+")
    parser.add_argument("--batch-size", type=int, nargs="+")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=2, help="workers of the loaders that decode files")
    parser.add_argument("--steps", type=int, help="steps of a turn")
    parser.add_argument("--rounds", type=int, help="turns of each loop, after one for warm-up")
    parser.add_argument("--compile", action="store_true", help="compile both networks")
    parser.add_argument("--data", type=Path, help="folder with train/, which contains ten class folders")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    archs = options.arch or (["mnasnet-a1"] if cuda else ["mnasnet-small", "mnasnet-a1"])
    sizes = options.input_size or ([224] if cuda else [32, 64])
    batch_sizes = options.batch_size or ([256, 1024] if cuda else [64])
    options.steps = options.steps or (20 if cuda else 2)
    options.rounds = options.rounds or (6 if cuda else 3)
    print(
        f"{torch.cuda.get_device_name() if cuda else 'CPU'}, torch {torch.__version__}, timm {timm.__version__}, "
        f"{options.threads} thread(s), {options.workers} worker(s), {options.rounds} rounds of {options.steps} steps"
    )
    print(f"{'network':18} {'px':>4} {'batch':>6} {'loop':8} {'images/s':>12} {'waiting':>8}   ours / it (quartiles)")
    for name in archs:
        for size in sizes:
            for batch_size in batch_sizes:
                with tempfile.TemporaryDirectory() as temporary:
                    folder = options.data or Path(temporary)
                    if options.data is None and not cuda:
                        # a fifth is held out for validation
                        make_folder(folder, batch_size * (options.steps + 1) * 5 // 4, size)
                    case = Case(name, size, batch_size, folder)
                    makers = {name: functools.partial(made, name) for name in LOOPS}
                    report(case, in_turns(makers, (options, case), options.rounds))


if __name__ == "__main__":
    main()
