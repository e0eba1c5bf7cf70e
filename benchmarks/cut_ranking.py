"""Which cheap score ranks networks that are cut from a parent, at equal latency?

    python benchmarks/cut_ranking.py ./cifar10 --results benchmarks/results/cut_ranking.json
    python benchmarks/cut_ranking.py      (to try it out: a few handwritten digits)

The parent is fine-tuned, and members of the space that a search cuts from it are drawn at random until --members have a
latency within 5 % of --share of the parent's. Each is scored untrained, then trained for --epochs with the parent as
teacher, and scored on the test images. Prints the accuracies and Kendall's tau of each cheap score with the test
accuracy, with a bootstrap interval. Each member is added to --results as soon as it is done; the next call skips it.
DATA is a data set as in `mnas search`, with a test part. Needs mnas[pretrained], unless --parent names a file.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau

import mnas
from mnas.candidate import Candidate
from mnas.data.augment import normalised
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.options import TrainingDataOptions
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.finetuned import evaluate_finetuned
from mnas.evaluate.inherited import array_batches, cut_network
from mnas.nn.cost import cost
from mnas.nn.weights import load_weights
from mnas.search.parents import fine_tune, read_parents
from mnas.space.candidates import CandidateSpace
from mnas.train.initial import CutSource, WeightsSource, tuned_sources
from mnas.train.scoring import moments

Results = dict[str, Any]
CLOSE = 0.05
CHEAP = ("macs", "val_accuracy", "val_loss", "agreement", "divergence")
"""Cheap scores: multiply-adds; accuracy and cross entropy on the validation images; agreement with the parent and
cross entropy with its outputs on all images, of the untrained network."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--parent", default="efficientnet-lite0")
    parser.add_argument("--input-sizes", default="")
    parser.add_argument("--max-images-per-class", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.25, help="target, as a share of the parent's latency")
    parser.add_argument("--members", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("build/cut-ranking/results.json"))
    parser.add_argument("--out", type=Path, default=Path("build/cut-ranking"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    small = options.data == "digits"
    sizes = [int(size) for size in (options.input_sizes or ("32" if small else "48,64,80,96")).split(",")]
    members = options.members or (3 if small else 30)
    images = TrainingDataOptions(data=options.data, max_images_per_class=12 if small else options.max_images_per_class)
    datasets = images.load_sizes(tuple(sizes), seed=options.seed)
    proxy = ProxyConfig(epochs=options.epochs, threads=1)
    options.out.mkdir(parents=True, exist_ok=True)
    parents = read_parents(options.parent)
    space = CandidateSpace(
        space=None, input_sizes=tuple(sizes), parents=tuple(each.parent for each in parents), cuts=True
    )
    tuned = tuned_sources(space.parents, options.out)
    fine_tune(parents, tuned, datasets[sizes[-1]], proxy, options.seed, print)
    [source] = tuned.values()
    results: Results = json.loads(options.results.read_text()) if options.results.exists() else {}

    def done(key: str, work: Callable[[], Results]) -> Results:
        if key not in results:
            results[key] = work()
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
            print(f"{key}: {results[key]}", flush=True)
        answer: Results = results[key]
        return answer

    whole = Candidate(arch=source.arch, input_size=sizes[-1], parent=source.name)
    classes = len(datasets[sizes[-1]].classes)
    full = done("parent", lambda: {"latency_ms": latency_ms(whole, classes)} | scores_of(source, whole, datasets))
    target_ms = options.share * full["latency_ms"]
    generator = random.Random(options.seed)
    draw = 0
    shares: list[float] = []  # multiply-adds of what was measured, and its latency
    times: list[float] = []
    while sum(key.startswith("member ") for key in results) < members:
        draw += 1
        candidate = space.decode([generator.randrange(len(d.choices)) for d in space.decisions])
        share = macs(candidate, classes) / macs(whole, classes)
        if not options.share / 2 < share < 2 * options.share:
            continue
        if f"latency {draw}" not in results and not may_be_close(share, shares, times, target_ms):
            continue
        measured = done(f"latency {draw}", lambda c=candidate: {"ms": latency_ms(c, classes)})
        shares.append(share)
        times.append(measured["ms"])
        if abs(measured["ms"] / target_ms - 1) <= CLOSE:
            done(f"member {draw}", lambda c=candidate: member(source, c, datasets, proxy, options.seed))
    conclude(results)


def may_be_close(share: float, shares: list[float], times: list[float], target_ms: float) -> bool:
    """Return whether multiply-adds predict a latency near the target, by a power law through what was measured."""
    if len(shares) < 10:
        return True
    slope, offset = np.polyfit(np.log(shares), np.log(times), 1)
    return bool(abs(np.exp(offset + slope * np.log(share)) / target_ms - 1) < 2 * CLOSE)


def macs(candidate: Candidate, classes: int) -> int:
    return cost(candidate.arch, candidate.input_size, classes).macs


def latency_ms(candidate: Candidate, classes: int) -> float:
    """Return the latency of a candidate on this machine in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arch.json"
        path.write_text(candidate.arch.to_json())
        [measured] = mnas.latency(str(path), input_size=candidate.input_size, classes=classes, budget_s=1.5)
    return measured.latency.latency_ms


def scores_of(source: WeightsSource, candidate: Candidate, datasets: dict[int, Dataset]) -> Results:
    """Return the cheap scores of the untrained network, and the processor time of cutting and of scoring it."""
    dataset, largest = datasets[candidate.input_size], datasets[max(datasets)]
    start = time.process_time()
    network, normalisation = cut_network(CutSource(parent=source, arch=candidate.arch), array_batches(dataset))
    cut_s = time.process_time() - start
    start = time.process_time()
    logits = {part: outputs(network, images, normalisation) for part, images in parts(dataset).items()}
    score_s = time.process_time() - start
    taught = answers(source.weights, largest, normalisation)
    labels = torch.from_numpy(np.asarray(dataset.val.labels)).long()
    mine, theirs = torch.cat(list(logits.values())), torch.cat(list(taught.values()))
    return {
        "macs": macs(candidate, len(dataset.classes)),
        "val_accuracy": float((logits["val"].argmax(1) == labels).float().mean()),
        "val_loss": float(F.cross_entropy(logits["val"], labels)),
        "agreement": float((mine.argmax(1) == theirs.argmax(1)).float().mean()),
        "divergence": float(F.cross_entropy(mine, theirs.softmax(1))),
        "test_untrained": test_accuracy(network, dataset, normalisation),
        "cut_s": cut_s,
        "score_s": score_s,
    }


_answers: list[dict[str, torch.Tensor]] = []


def answers(weights: str, dataset: Dataset, normalisation: Any) -> dict[str, torch.Tensor]:
    """Return the parent's outputs for each part; it is run once."""
    if not _answers:
        parent = load_weights(Path(weights))
        _answers.append({part: outputs(parent, images, normalisation) for part, images in parts(dataset).items()})
    return _answers[0]


def parts(dataset: Dataset) -> dict[str, ImageArrays]:
    return {"train": dataset.train, "val": dataset.val}


def member(
    source: WeightsSource, candidate: Candidate, datasets: dict[int, Dataset], proxy: ProxyConfig, seed: int
) -> Results:
    """Return all scores of a member: untrained, and on the test images after the short training."""
    scores = scores_of(source, candidate, datasets)
    dataset, largest = datasets[candidate.input_size], datasets[max(datasets)]
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        cut = CutSource(parent=source, arch=candidate.arch)
        evaluation = evaluate_finetuned(cut, dataset, proxy, seed, weights, whole=largest)
        train_s = time.process_time() - start
        _, normalisation = cut_network(cut, array_batches(dataset))
        test = test_accuracy(load_weights(weights), dataset, normalisation)
    return scores | {
        "input_size": candidate.input_size,
        "blocks": list(getattr(candidate.arch, "block_strings", ())),
        "trained_val": evaluation.accuracy,
        "test": test,
        "train_s": train_s,
    }


@torch.inference_mode()
def outputs(network: torch.nn.Module, images: ImageArrays, normalisation: Any) -> torch.Tensor:
    mean, std = moments(*normalisation, torch.device("cpu"))
    network.eval()
    pixels = torch.from_numpy(np.asarray(images.images))
    return torch.cat([network(normalised(batch, mean, std)) for batch in torch.split(pixels, 64)])


def test_accuracy(network: torch.nn.Module, dataset: Dataset, normalisation: Any) -> float:
    assert dataset.test is not None
    labels = torch.from_numpy(np.asarray(dataset.test.labels))
    return float((outputs(network, dataset.test, normalisation).argmax(1) == labels).float().mean())


def conclude(results: Results) -> None:
    """Print the table of ranks."""
    members = [value for key, value in sorted(results.items()) if key.startswith("member ")]
    tests = np.array([each["test"] for each in members])
    print(f"parent: test {results['parent']['test_untrained']:.4f}, {results['parent']['latency_ms']:.3f} ms")
    print(
        f"{len(members)} members: test {tests.mean():.4f} on average, deviation {tests.std(ddof=1):.4f}, "
        f"from {tests.min():.4f} to {tests.max():.4f}; seconds of a core, median: cut "
        f"{np.median([m['cut_s'] for m in members]):.1f}, score {np.median([m['score_s'] for m in members]):.1f}, "
        f"train {np.median([m['train_s'] for m in members]):.1f}"
    )
    print("| cheap score | Kendall's tau with the test accuracy | 95 % |\n|---|---|---|")
    generator = np.random.default_rng(0)
    for name in (*CHEAP, "trained_val"):
        values = np.array([each[name] for each in members]) * (-1 if name in ("val_loss", "divergence") else 1)
        drawn = generator.integers(len(members), size=(1000, len(members)))
        taus = [kendalltau(values[rows], tests[rows]).statistic for rows in drawn]
        low, high = np.nanpercentile(taus, [2.5, 97.5])
        print(f"| {name} | {kendalltau(values, tests).statistic:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
