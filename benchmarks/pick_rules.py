"""Which rule picks the better of several fine-tuned networks where few validation images decide.

    python benchmarks/pick_rules.py ./cifar10-100 --results benchmarks/results/pick_rules.json  (15 min of one core)
    python benchmarks/pick_rules.py      (to try it out: a few handwritten digits, two sizes)

DATA has train/ and test/ with a folder of images for each class. Every network is scored by frozen features and by
fine-tuning for five epochs, at every size, and both answers are stored for each test image. Many times, --val of the
test images play the validation images, and each rule picks one network at every latency; the other test images say
how much accuracy the pick loses against the best network that is no slower.

    raw       the highest accuracy on the validation images
    expected  the highest expectation of the surrogate's process, from all accuracies and the features' scores
    line      the highest value of a line through all accuracies over the features' scores and log latency
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution

import mnas
from mnas.controller.surrogate.promise import expected_scores
from mnas.data.dataset import Dataset
from mnas.data.load import load_sizes
from mnas.data.named import NAMED
from mnas.evaluate.config import FeaturesConfig, ProxyConfig
from mnas.evaluate.features import fit_classifier, network_features
from mnas.evaluate.finetuned import evaluate_finetuned
from mnas.nn.pretrained import load_pretrained, pretrained_info
from mnas.train.initial import WeightsSource
from mnas.zoo.architectures import named_arch

Answers = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--networks", default="efficientnet-lite0,efficientnet-lite1")
    parser.add_argument("--sizes", default="")
    parser.add_argument("--val", type=int, default=200, help="number of validation images")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("build/pick_rules.json"))
    options = parser.parse_args()
    small = options.data in NAMED
    sizes = [int(s) for s in (options.sizes or ("32,40,48" if small else "48,56,64,72,88,96,112,128")).split(",")]
    stored: list[Answers] = json.loads(options.results.read_text()) if options.results.exists() else []
    data = load_sizes(options.data, input_sizes=sizes, seed=0, max_images_per_class=20 if small else 0)
    for network in options.networks.split(",")[: 1 if small else None]:
        for size in sizes:
            if not any((one["network"], one["input_size"]) == (network, size) for one in stored):
                stored.append(answers(network, data[size], epochs=1 if small else 5))
                options.results.parent.mkdir(parents=True, exist_ok=True)
                options.results.write_text(json.dumps(stored) + "\n")
    compare(stored, options.val if not small else 50, options.draws if not small else 20)


def answers(network: str, dataset: Dataset, epochs: int) -> Answers:
    """Score a network by both fidelities; 1 for each test image that it classifies rightly."""
    arch, size = named_arch(network), dataset.input_size
    assert dataset.test is not None
    measured = mnas.latency(network, input_size=str(size), classes=len(dataset.classes), budget_s=3)
    source = WeightsSource(name=network, arch=arch, weights="pretrained")
    torch.set_num_threads(1)
    loaded = load_pretrained("pretrained", arch, len(dataset.classes), name=network, new_classifier=True)
    info = pretrained_info("pretrained", loaded, name=network, classes=dataset.classes)
    config = FeaturesConfig(accelerator="cpu", threads=1)
    with_test = replace(dataset, val=dataset.test)
    features = network_features(loaded, with_test, config, info, torch.device("cpu"), None)
    logits = fit_classifier(features, dataset, config.prior).logits(features["val"])
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        evaluate_finetuned(source, dataset, ProxyConfig(epochs=epochs, accelerator="cpu"), 0, weights)
        model = mnas.load(weights)
        batches = np.array_split(dataset.test.images, max(1, len(dataset.test) // 100))
        tuned = np.concatenate([model.probabilities(batch) for batch in batches]).argmax(1)
    result = {
        "network": network,
        "input_size": size,
        "latency_ms": measured[0].latency.latency_ms,
        "features": (logits.argmax(1) == dataset.test.labels).astype(int).tolist(),
        "tuned": (tuned == dataset.test.labels).astype(int).tolist(),
    }
    shares = ", ".join(f"{name} {np.mean(result[name]):.3f}" for name in ("features", "tuned"))
    print(f"{network} {size} px: {result['latency_ms']:.3f} ms, {shares}", flush=True)
    return result


def compare(stored: list[Answers], val: int, draws: int) -> None:
    """Print the loss of each rule, averaged over draws and latencies."""
    stored = sorted(stored, key=lambda one: one["latency_ms"])
    latency = np.array([one["latency_ms"] for one in stored])
    features, tuned = (np.array([one[name] for one in stored], float) for name in ("features", "tuned"))
    rng = np.random.default_rng(0)
    losses: dict[str, list[float]] = {"raw": [], "expected": [], "line": []}
    for _ in range(draws):
        chosen = np.zeros(tuned.shape[1], bool)
        chosen[rng.permutation(len(chosen))[:val]] = True
        truth = tuned[:, ~chosen].mean(1)
        raw, cheap = tuned[:, chosen].mean(1), features[:, chosen].mean(1)
        columns = np.column_stack([np.ones(len(raw)), cheap, np.log(latency)])
        line = columns @ np.linalg.lstsq(columns, raw, rcond=None)[0]
        rules = {"raw": raw, "expected": expectation(stored, cheap, raw), "line": line}
        for name, values in rules.items():
            picks = [int(values[: place + 1].argmax()) for place in range(len(latency))]
            losses[name].append(np.mean([truth[: p + 1].max() - truth[pick] for p, pick in enumerate(picks)]))
    print(f"{len(stored)} networks, {val} validation images, {draws} draws; points lost against the best choice:")
    for name, lost in losses.items():
        print(f"  {name:9s} {100 * np.mean(lost):.2f} ± {100 * np.std(lost) / len(lost) ** 0.5:.2f}")
    for name in ("expected", "line"):
        gain = np.array(losses["raw"]) - losses[name]
        print(f"  raw - {name}: {100 * gain.mean():.2f} ± {100 * gain.std() / len(gain) ** 0.5:.2f}")


def expectation(stored: list[Answers], cheap: Any, raw: Any) -> Any:
    networks = tuple(sorted({one["network"] for one in stored}))
    sizes = tuple(sorted({one["input_size"] for one in stored}))
    space = {"parent": CategoricalDistribution(networks), "input_size": CategoricalDistribution(sizes)}
    seen = [
        ({"parent": one["network"], "input_size": one["input_size"]}, float(low), float(high))
        for one, low, high in zip(stored, cheap, raw, strict=True)
    ]
    return expected_scores(space, seen, [(choices, low) for choices, low, _ in seen])[0]


if __name__ == "__main__":
    main()
