"""Accuracy of logistic regression on frozen features of efficientnet-lite0, and a new classifier's first outputs.

    python benchmarks/frozen_features.py [DATA] [--input-size 96]

DATA is a data set as in `mnas train` with a test part; needs mnas[pretrained].
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from mnas.data.load import load_dataset
from mnas.nn.pretrained import load_pretrained, pretrained_info
from mnas.zoo.architectures import named_arch

NAME = "efficientnet-lite0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--input-size", type=int, default=96)
    options = parser.parse_args()
    data = load_dataset(options.data, input_size=options.input_size, seed=0, cache_dir=Path("build/frozen-features"))
    assert data.test is not None
    arch = named_arch(NAME)
    mean, std = pretrained_info(
        "pretrained", load_pretrained("pretrained", arch, None, name=NAME), name=NAME
    ).normalisation
    torch.manual_seed(0)
    network = load_pretrained("pretrained", arch, len(data.classes), name=NAME, new_classifier=True)

    @torch.no_grad()
    def features(images: np.ndarray) -> torch.Tensor:
        parts = []
        for start in range(0, len(images), 50):
            pixels = torch.from_numpy(np.array(images[start : start + 50])).permute(0, 3, 1, 2) / 255
            pixels = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
            parts.append(network.features(pixels).mean((2, 3)))
        return torch.cat(parts)

    train, test = features(data.train.images), features(data.test.images)
    regression = LogisticRegression(C=0.1, max_iter=300).fit(train.numpy(), data.train.labels)
    with torch.no_grad():
        first = network.classifier(test).std().item()
    accuracy = regression.score(test.numpy(), data.test.labels)
    print(f"{len(train)} training images, {len(test)} test images, {options.input_size} px")
    print(f"test accuracy of logistic regression on frozen features: {accuracy:.4f}")
    print(f"standard deviation of the first outputs of a random classifier: {first:.1f}")


if __name__ == "__main__":
    main()
