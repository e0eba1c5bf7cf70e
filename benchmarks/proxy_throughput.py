"""Compare training images per second on one CPU: the proxy loop of mnas against two usual loops, on the same network.

`plain`: NCHW, torchvision transforms (random crop, flip, tensor, normalise) image by image in a DataLoader.
`tensor`: channels_last over a normalised float tensor in memory, shuffled, without any augmentation.
All three have the same optimizer, loss, batch size and number of threads. Each has a separate process, and they take
turns (benchmarks/in_turns.py). The networks are random members of the factorized space. Goals: 2.5 times `plain`, 1.3
times `tensor`. On a busy machine, the ratio by CPU time is the steadier one. It takes about eight minutes.

    python benchmarks/proxy_throughput.py [--input-size 32] [--threads 1] [--workers 0]
"""

import argparse
import functools
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from in_turns import Run, in_turns, quartiles, ratios
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from mnas.arch import Arch
from mnas.data.dataset import Dataset, ImageArrays
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.proxy import optimizer_for, train
from mnas.nn.cost import cost
from mnas.nn.network import Network, build_network
from mnas.space.named import load_space
from mnas.space.skeleton import output_stride_for
from mnas.train.memory import kept_pages

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def random_dataset(images: int, size: int) -> Dataset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    part = ImageArrays(images=pixels, labels=generator.integers(0, 10, images))
    return Dataset(
        name="noise", classes=tuple("0123456789"), train=part, val=part, test=None, mean=MEAN, std=STD,
        input_size=size, flip=True, fingerprint="", content="", key="", skipped=(),
    )  # fmt: skip


def ours(network: Network, dataset: Dataset, config: ProxyConfig, workers: int) -> None:
    train(network, dataset, config, torch.device("cpu"), seed=0)


def fit(network: Network, batches: "Callable[[], object]", config: ProxyConfig) -> None:
    optimizer = optimizer_for(network, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.004
    network.train()
    for images, labels in batches():  # type: ignore[attr-defined]
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels, label_smoothing=config.label_smoothing)
        loss.backward()
        optimizer.step()


def tensor_loop(network: Network, dataset: Dataset, config: ProxyConfig, workers: int) -> None:
    pixels = torch.from_numpy(dataset.train.images).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(dataset.train.labels)

    def batches() -> list[tuple[Tensor, Tensor]]:
        return ((pixels[i], labels[i]) for i in torch.randperm(len(labels)).split(config.batch_size))  # type: ignore[return-value]

    fit(network.to(memory_format=torch.channels_last), batches, config)


class PlainImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    def __init__(self, dataset: Dataset) -> None:
        size = dataset.input_size
        self.part = dataset.train
        self.transform = transforms.Compose([
            transforms.RandomCrop(size, padding=size // 16, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.part.images[index])), int(self.part.labels[index])


def plain_loop(network: Network, dataset: Dataset, config: ProxyConfig, workers: int) -> None:
    loader = DataLoader(PlainImages(dataset), batch_size=config.batch_size, shuffle=True, num_workers=workers)
    fit(network, lambda: loader, config)


LOOPS = {"ours": ours, "tensor": tensor_loop, "plain": plain_loop}


def network_of(number: int, input_size: int) -> Arch:
    """Return a random member of the factorized space."""
    space = load_space("mnasnet").with_output_stride(output_stride_for(input_size))
    draw = random.Random(number)
    return space.decode([draw.randrange(len(d.choices)) for d in space.decisions])


@contextmanager
def made(name: str, number: int, options: argparse.Namespace) -> Iterator[Run]:
    torch.set_num_threads(options.threads)
    images = options.batch_size * options.steps
    dataset = random_dataset(images, options.input_size)
    config = ProxyConfig(epochs=1, batch_size=options.batch_size, fewest_steps=1, threads=options.threads)
    torch.manual_seed(0)
    network = build_network(network_of(number, options.input_size), 10)

    def run() -> tuple[int, float]:
        LOOPS[name](network, dataset, config, options.workers)
        return images, 0.0

    # as in evaluate_proxy, around the hundreds of steps of a candidate
    with kept_pages() if name == "ours" else nullcontext():
        yield run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=ProxyConfig().batch_size)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--workers", type=int, default=0, help="workers of the plain loop's DataLoader, in addition to the threads"
    )
    parser.add_argument("--networks", type=int, nargs="+", default=[0, 1, 2, 3], help="numbers of random members")
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(f"{options.input_size} px, batch {options.batch_size}, {options.threads} thread(s), {options.rounds} rounds")
    heads = "".join(f" {name + ' img/s':>12}" for name in LOOPS)
    print(f"{'network':8} {'MMACs':>6}{heads}   ratio to tensor, plain: median (quartiles)")
    everything: dict[str, list[float]] = {"tensor": [], "plain": []}
    by_cpu: dict[str, list[float]] = {"tensor": [], "plain": []}
    for number in options.networks:
        makers = {name: functools.partial(made, name) for name in LOOPS}
        found = in_turns(makers, (number, options), options.rounds)
        rates = (statistics.median(turn.images / turn.seconds for turn in turns) for turns in found.values())
        row = "".join(f" {rate:12.1f}" for rate in rates)
        for name, values in everything.items():
            values += ratios(found["ours"], found[name])
            by_cpu[name] += ratios(found["ours"], found[name], cpu=True)
        spread = ", ".join(quartiles(values[-options.rounds :]) for values in everything.values())
        macs = cost(network_of(number, options.input_size), options.input_size, 10).macs
        print(f"{number:<8} {macs / 1e6:6.1f}{row}   {spread}", flush=True)
    for name, goal in (("tensor", 1.3), ("plain", 2.5)):
        of_cpu = f"; by CPU time {quartiles(by_cpu[name])}" if not options.workers else ""
        print(f"ours / {name}: {quartiles(everything[name])}, goal {goal}{of_cpu}")


if __name__ == "__main__":
    main()
