"""Training images a second on one CPU: our proxy loop against two loops that people write, on the same network.

`plain`: NCHW, torchvision transforms (random crop, flip, tensor, normalise) image by image in a DataLoader.
`tensor`: channels_last over a normalised float tensor in memory, shuffled, without any augmentation.
All three have the optimizer, loss, batch size and number of threads of ours, and take turns within every round, in an
order that rotates. Networks: random members of the factorized space. Goals: 2.5 times `plain`, 1.3 times `tensor`.

Takes about six minutes: python benchmarks/proxy_throughput.py [--input-size 32] [--threads 1] [--workers 0]
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from mnas.data.dataset import Dataset, ImageArrays
from mnas.evaluate.proxy import ProxyConfig, optimizer_for, train
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
        input_size=size, flip=True, fingerprint="", skipped=(),
    )  # fmt: skip


def ours(network: Network, dataset: Dataset, config: ProxyConfig) -> None:
    with kept_pages():
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


def tensor_loop(network: Network, dataset: Dataset, config: ProxyConfig) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=ProxyConfig().batch_size)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader, beyond the threads")
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = options.batch_size * options.steps
    dataset = random_dataset(images, options.input_size)
    config = ProxyConfig(epochs=1, batch_size=options.batch_size, fewest_steps=1, threads=options.threads)
    space = load_space("mnasnet").with_output_stride(output_stride_for(options.input_size))
    loops: dict[str, Callable[[Network], None]] = {
        "ours": lambda network: ours(network, dataset, config),
        "tensor": lambda network: tensor_loop(network, dataset, config),
        "plain": lambda network: plain_loop(network, dataset, config, options.workers),
    }
    print(f"{options.input_size} px, batch {options.batch_size}, {options.threads} thread(s), {options.rounds} rounds")
    print(
        f"{'network':8} {'MMACs':>6}"
        + "".join(f" {name + ' img/s':>14}" for name in loops)
        + "   ratio to tensor, plain"
    )
    everything: dict[str, list[float]] = {"tensor": [], "plain": []}
    for number in range(options.networks):
        draw = random.Random(number)
        arch = space.decode([draw.randrange(len(d.choices)) for d in space.decisions])
        torch.manual_seed(0)
        fresh = build_network(arch, 10)
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for turn in range(options.rounds + 1):
            names = list(loops)
            for name in names[turn % 3 :] + names[: turn % 3]:
                network = copy.deepcopy(fresh)
                start = time.perf_counter()
                loops[name](network)
                if turn > 0:  # the first one warms caches up
                    rates[name].append(images / (time.perf_counter() - start))
        ratios = {n: [a / b for a, b in zip(rates["ours"], rates[n], strict=True)] for n in everything}
        row = "".join(f" {statistics.median(rates[name]):14.1f}" for name in loops)
        spread = ", ".join(f"{statistics.median(r):.2f} ({min(r):.2f}-{max(r):.2f})" for r in ratios.values())
        print(f"{number:<8} {cost(arch, options.input_size, 10).macs / 1e6:6.1f}{row}   {spread}", flush=True)
        for name, values in ratios.items():
            everything[name] += values
    for name, goal in (("tensor", 1.3), ("plain", 2.5)):
        low, middle, high = statistics.quantiles(everything[name], n=4)
        print(f"ours / {name}: median {middle:.2f}, quartiles {low:.2f}-{high:.2f}; goal {goal}")


if __name__ == "__main__":
    main()
