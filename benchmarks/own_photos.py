"""Which model for one's own photographs: a search from published weights beside training everything, and from scratch.

    python benchmarks/own_photos.py ./cifar10 --results benchmarks/results/own_photos.json   (about 4 hours of 2 cores)
    python benchmarks/own_photos.py      (to try it out: a few handwritten digits, two sizes, one network)

DATA is a folder of train/ and test/ with a folder of images for each class, or a named data set; the first images of
each class train and are held out for validation, the first ones of the test part test. Parts of the steps are added to
--results as soon as they are done, so that the next call resumes:

    latency   every network at every size, and MnasNet-A1 at 224 px, in turns
    whole     every network at every size, fine-tuned by `mnas train`; three seeds for the first network
    parents   `mnas search --parent --whole`, for three targets, the latencies of the first network; its picks in full
    scratch   `mnas search` for as many minutes; its picks trained in full
    cuts      `mnas search --parent` with the first network, for three targets, shares of its latency at 96 px; its
              picks in full, three seeds
    random    the same with the controller random; its picks in full
    uniform   the first network at 96 px with the same share of channels in each layer, cut from the parent of `cuts`
              for the same targets, in full
    distil    the first network at every size, taught by the network of `whole` with the best validation accuracy
    ship      the picks of `parents` and `cuts` exported as fp32 and int8, measured, and scored on the test images

A pick is the trial that the search recommends for a target. It is compared with the most accurate network of all steps
that is no more than 5 % slower than the target, by test accuracy, pooled over seeds. A pick of `cuts` is compared with
the first network at 96 px, and with the line through its accuracies at all sizes. Needs mnas[pretrained,quantize].
"""

import argparse
import functools
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mnas
from mnas.data.load import load_dataset
from mnas.data.named import NAMED
from mnas.study import Snapshot, objectives_of, read_run
from mnas.study.results import recommend, references_of

Results = dict[str, Any]
SLACK = 1.05
"""A network counts at a target if its latency is at most this multiple of it."""
SHARES = (1 / 2, 1 / 3, 1 / 6)
"""Targets of the cuts, as shares of the latency of the first network at the reference size."""
WIDTHS = [w / 20 for w in range(19, 3, -1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--name", default="", help="name of the data in the results; default: that of the folder")
    parser.add_argument("--per-class", type=int, default=0, help="training images of each class; 0: all")
    parser.add_argument("--test-per-class", type=int, default=200)
    parser.add_argument("--networks", default="")
    parser.add_argument("--sizes", default="")
    parser.add_argument("--search-sizes", default="auto")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--epochs", type=int, default=0, help="epochs of full training; 0: those of the preset")
    parser.add_argument("--steps", default="latency,whole,parents,scratch,cuts,random,uniform,distil,ship")
    parser.add_argument("--results", type=Path, default=Path("build/own-photos/results.json"))
    parser.add_argument("--out", type=Path, default=Path("build/own-photos"))
    options = parser.parse_args()
    small = options.data in NAMED  # to try the script out
    options.networks = (options.networks or ("efficientnet-lite0" if small else LITES)).split(",")
    options.sizes = [int(size) for size in (options.sizes or ("32,48" if small else "64,96,128")).split(",")]
    options.seeds = options.seeds or (1 if small else 3)
    options.per_class = options.per_class or (8 if small else 100)
    options.epochs = options.epochs or (1 if small else 0)
    options.minutes = min(options.minutes, 1.0) if small else options.minutes
    options.reference = 48 if small else 96
    options.search_sizes = "32,48" if small else options.search_sizes
    OwnPhotos(options).run(options.steps.split(","))


LITES = "efficientnet-lite0,efficientnet-lite1,efficientnet-lite2"


def widest(times: dict[str, float], target: float) -> str:
    """Return the largest width that is not slower than a target in milliseconds; empty without any."""
    return max((width for width, ms in times.items() if ms <= SLACK * target), key=float, default="")


def cpu_seconds() -> float:
    """Return the processor time of this process and its finished children: other programs do not count."""
    return sum(os.times()[:4])


class OwnPhotos:
    """The steps on one data set, and the file of their results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = options.name or Path(options.data).name
        self.out = (options.out / self.name).resolve()
        self.data = str(self._images())
        self.results: Results = json.loads(options.results.read_text()) if options.results.exists() else {}

    def run(self, steps: list[str]) -> None:
        for step in steps:
            getattr(self, step)()
        self.conclude()

    def done(self, key: str, work: Callable[[], Results]) -> Results:
        """Return the stored result under the key, or do the work and store it."""
        mine = self.results.setdefault(self.name, {})
        if key not in mine:
            mine[key] = work()
            self.options.results.parent.mkdir(parents=True, exist_ok=True)
            half = self.options.results.with_suffix(".half")
            half.write_text(json.dumps(self.results, indent=1, sort_keys=True) + "\n")
            half.replace(self.options.results)
            print(f"{self.name} {key}: {mine[key]}", flush=True)
        result: Results = mine[key]
        return result

    def latency(self) -> None:
        sizes = ",".join(map(str, self.options.sizes))
        classes = len(list((Path(self.data) / "train").iterdir()))

        def measured() -> Results:
            models = mnas.latency(self.options.networks, input_size=sizes, classes=classes, budget_s=3)
            [a1] = mnas.latency("mnasnet-a1", input_size=224, classes=1000, budget_s=3)
            # as a share of MnasNet-A1's, which is measured in the same minute
            shares = {f"{m.name}@{m.calibration.input_size}": m.latency.latency_ms for m in models}
            return {"mnasnet-a1@224": a1.latency.latency_ms, **shares}

        self.done("latency_ms", measured)

    def whole(self) -> None:
        for place, network in enumerate(self.options.networks):
            for size in self.options.sizes:
                for seed in range(self.options.seeds if place == 0 else 1):
                    self.done(
                        f"whole {network}@{size} seed {seed}", lambda n=network, s=size, r=seed: self._whole(n, s, r)
                    )

    def _whole(self, network: str, size: int, seed: int, more: Results | None = None) -> Results:
        folder = self.out / ("distil" if more else "whole") / f"{network}-{size}-{seed}"
        start = cpu_seconds()
        trained = mnas.train(
            network, data=self.data, weights="pretrained", input_size=size, seed=seed, out=folder, threads=1,
            resume=True, **(more or {}), **({"epochs": self.options.epochs} if self.options.epochs else {}),
        )  # fmt: skip
        spent = cpu_seconds() - start
        return {"accuracy": trained.accuracy, "test": trained.test_accuracy, "cpu_s": spent}

    def distil(self) -> None:
        self.whole()
        network, mine = self.options.networks[0], self.results[self.name]
        best = max((key for key in mine if key.startswith("whole ")), key=lambda key: mine[key]["accuracy"])
        _, teacher, _, seed = best.split()
        name, size = teacher.split("@")
        folder = self.out / "whole" / f"{name}-{size}-{seed}" / f"{name}-{size}px"
        for size in self.options.sizes:
            work = functools.partial(self._whole, network, size, 0, {"teacher": str(folder)})
            self.done(f"distil {network}@{size} from {teacher}", work)

    def targets(self) -> list[float]:
        self.latency()
        measured = self.results[self.name]["latency_ms"]
        return [measured[f"{self.options.networks[0]}@{size}"] for size in self.options.sizes]

    def parents(self) -> None:
        parents = ",".join(self.options.networks[:2])
        self._search("parents", {"parent": parents, "whole": True, "input_size": self.options.search_sizes})

    def reference(self) -> tuple[str, float]:
        """Return the network that is cut, at its size, and its latency in milliseconds."""
        self.latency()
        name = f"{self.options.networks[0]}@{self.options.reference}"
        return name, self.results[self.name]["latency_ms"][name]

    def cut_targets(self) -> list[float]:
        return [share * self.reference()[1] for share in SHARES]

    def cuts(self) -> None:
        self._cuts("cuts", self.options.seeds, {})

    def random(self) -> None:
        self._cuts("random", 1, {"controller": "random"})

    def _cuts(self, kind: str, seeds: int, more: Results) -> None:
        sizes = [str(size) for size in self.options.sizes if size <= self.options.reference]
        more |= {"parent": self.options.networks[0], "input_size": ",".join(sizes)}
        picks = self._searched(kind, self.cut_targets(), more)
        run = self.out / kind
        for number in sorted({pick["trial"] for pick in picks.values() if pick["trial"] is not None}):
            for seed in range(seeds):
                self.done(
                    f"{kind} #{number} seed {seed}",
                    lambda n=number, s=seed: self._cut(f"{run}#{n}", run, {"seed": s, "out": run / f"full-{s}"}),
                )

    def uniform(self) -> None:
        network, size = self.options.networks[0], self.options.reference
        classes = len(list((Path(self.data) / "train").iterdir()))

        def measured() -> Results:
            names = [f"{network}@{width:g}" for width in WIDTHS]
            models = mnas.latency(names, input_size=str(size), classes=classes, budget_s=2)
            return {f"{width:g}": m.latency.latency_ms for width, m in zip(WIDTHS, models, strict=True)}

        times = self.done("uniform latency_ms", measured)
        for target in self.cut_targets():
            if width := widest(times, target):
                run, more = self.out / "cuts", {"width_multiplier": width, "input_size": str(size)}
                more["out"] = self.out / "uniform"
                self.done(f"uniform {width} seed 0", lambda r=run, m=more: self._cut(network, r, m))

    def _cut(self, network: str, run: Path, more: Results) -> Results:
        """Train a network that is cut from the parent of a run, with it as the teacher."""
        [parent] = (run / "parents").glob("*.safetensors")
        more |= {"epochs": self.options.epochs} if self.options.epochs else {}
        start = cpu_seconds()
        trained = mnas.train(
            network, data=self.data, weights=str(parent), teacher=str(parent), threads=1, resume=True, **more
        )
        return {
            "accuracy": trained.accuracy, "test": trained.test_accuracy, "cpu_s": cpu_seconds() - start,
            "weights": str(trained.weights.relative_to(self.out)),
        }  # fmt: skip

    def scratch(self) -> None:
        self._search("scratch", {"trials": 1000, "from_scratch": True})

    def _search(self, kind: str, more: Results) -> None:
        picks = self._searched(kind, self.targets(), more)
        for number in sorted({pick["trial"] for pick in picks.values() if pick["trial"] is not None}):
            self.done(f"{kind} #{number}", lambda n=number: self._in_full(self.out / kind, n, picks))

    def _searched(self, kind: str, targets: list[float], more: Results) -> dict[str, Results]:
        """Search once for these targets, and return target -> pick."""
        run = self.out / kind

        def searched() -> Results:
            start = time.monotonic()
            if len(targets) > 1:
                more["target_latency_ms"] = ",".join(f"{each:.4g}" for each in targets)
            minutes = self.options.minutes / 60
            mnas.search(self.data, run=run, hours=minutes, watcher="none", **more)
            snapshot = read_run(run)
            states: dict[str, int] = {}
            for trial in snapshot.trials:
                states[trial.state] = states.get(trial.state, 0) + 1
            untrained = [t.features.train_s for t in snapshot.trials if t.features]
            trained = [t.evaluation.train_s for t in snapshot.trials if t.evaluation]
            return {
                "seconds": time.monotonic() - start,
                "trials": states,
                "training_s": sum(trained) + sum(untrained),
                "untrained_s": statistics.median(untrained or [math.nan]),
                "trained_s": statistics.median(trained or [math.nan]),
                "picks": {f"{target:.4g}": self._pick(snapshot, place) for place, target in enumerate(targets)},
            }

        picks: dict[str, Results] = self.done(f"{kind} search", searched)["picks"]
        return picks

    def _pick(self, snapshot: Snapshot, place: int) -> Results:
        objective = objectives_of(snapshot.attributes)[place]
        advice = recommend(snapshot.trials, references_of(snapshot), objective, 0)
        trial = None if advice is None else advice.trial
        if trial is None:
            return {"trial": None}
        return {
            "trial": trial.number, "network": trial.parent or "searched", "input_size": trial.input_size,
            "accuracy": trial.accuracy, "latency_ms": trial.latency_ms,
        }  # fmt: skip

    def _in_full(self, run: Path, number: int, picks: dict[str, Results]) -> Results:
        pick = next(pick for pick in picks.values() if pick["trial"] == number)
        more: Results = {"epochs": self.options.epochs} if self.options.epochs else {}
        start = cpu_seconds()
        if pick["network"] == "searched":
            trained = mnas.train(f"{run}#{number}", data=self.data, out=run / "full", threads=1, resume=True, **more)
        else:
            trained = mnas.train(
                pick["network"], data=self.data, weights="pretrained", input_size=pick["input_size"], threads=1,
                out=run / "full", resume=True, **more,
            )  # fmt: skip
        return {
            "accuracy": trained.accuracy, "test": trained.test_accuracy, "cpu_s": cpu_seconds() - start,
            "weights": str(trained.weights.relative_to(self.out)),
        }  # fmt: skip

    def ship(self) -> None:
        """Export every pick of the parents and cuts, measure the files, and score them on the test images."""
        mine = self.results.get(self.name, {})
        for kind, seed in (("parents", ""), ("cuts", " seed 0")):
            for pick in mine.get(f"{kind} search", {}).get("picks", {}).values():
                if full := mine.get(f"{kind} #{pick['trial']}{seed}"):
                    self.done(f"ship {kind} #{pick['trial']}", lambda f=full: self._shipped(self.out / f["weights"]))

    def _shipped(self, weights: Path) -> Results:
        from mnas.nn.weights_info import read_weights_info

        info = read_weights_info(weights)
        shipped: Results = {}
        for kind, int8 in (("fp32", False), ("int8", True)):
            try:
                [exported] = mnas.export(
                    weights, to="litert", overwrite=True, **({"int8": True, "data": self.data} if int8 else {})
                )
            except ValueError as error:  # int8 loses more than the gate allows
                shipped[kind] = {"refused": str(error).partition(": quarantined")[0]}
                continue
            [measured] = mnas.latency(str(exported.path), budget_s=3)
            model = mnas.load(exported.path)
            images = load_dataset(self.data, input_size=info.input_size, seed=0).test
            assert images is not None
            answers = [int(np.argmax(model.probabilities(images.images[i : i + 1])[0])) for i in range(len(images))]
            shipped[kind] = {
                "mb": exported.path.stat().st_size / 1e6,
                "latency_ms": measured.latency.latency_ms,
                "test": float(np.mean(np.array(answers) == images.labels)),
            }
        return shipped

    def conclude(self) -> None:
        """Print, for each target, the pick of each search and the best of everything trained."""
        mine = self.results.get(self.name, {})
        pooled: dict[str, list[float]] = {}
        seconds = 0.0
        for key, result in mine.items():
            if key.startswith("whole "):
                pooled.setdefault(key.split()[1], []).append(result["test"])
                seconds += result["cpu_s"]
        for key, tests in sorted(pooled.items()):
            spread = f" ± {statistics.stdev(tests):.4f}" if len(tests) > 1 else ""
            print(f"{self.name} {key}: {mine['latency_ms'][key]:.3f} ms, test {statistics.mean(tests):.4f}{spread}")
        print(f"{self.name}: training every network takes {seconds / 60:.0f} min of one core")
        for kind in ("parents", "scratch"):
            if search := mine.get(f"{kind} search"):
                print(
                    f"{self.name}: the search {kind} takes {search['training_s'] / 60:.0f} min of one core for training"
                )
        for target in self.targets() if pooled else ():
            fit = [key for key in pooled if mine["latency_ms"][key] <= SLACK * target]
            best = max((statistics.mean(pooled[key]) for key in fit), default=math.nan)
            for kind in ("parents", "scratch"):
                pick = mine.get(f"{kind} search", {}).get("picks", {}).get(f"{target:.4g}", {})
                full = mine.get(f"{kind} #{pick.get('trial')}")
                if full:
                    print(
                        f"{self.name} at {target:.3f} ms: {kind} picks {pick['network']}@{pick['input_size']} "
                        f"({pick['latency_ms']:.3f} ms), test {full['test']:.4f}; best of everything {best:.4f}"
                    )

        if "cuts search" in mine:
            self._conclude_cuts(mine, pooled)

    def _conclude_cuts(self, mine: Results, pooled: dict[str, list[float]]) -> None:
        """Print, for each target, the networks cut by the search, at random, and uniformly, and the whole one."""
        reference, _ = self.reference()
        tests = pooled[reference]
        network = self.options.networks[0]
        line = sorted(
            (mine["latency_ms"][key], statistics.mean(values))
            for key, values in pooled.items()
            if key.startswith(f"{network}@")
        )
        images = 0
        for folder in (Path(self.data) / "test").iterdir():
            images += len(list(folder.iterdir()))
        for share, target in zip(SHARES, self.cut_targets(), strict=True):
            print(f"{self.name} at {share:.2f} of {reference} ({target:.3f} ms):")
            pick = mine["cuts search"]["picks"][f"{target:.4g}"]
            cut = [v["test"] for k, v in mine.items() if k.startswith(f"cuts #{pick['trial']} seed ")]
            if not cut:
                continue
            mean = statistics.mean(cut)

            def beside(title: str, values: list[float], ours: float = mean, count: int = len(cut)) -> None:
                theirs = statistics.mean(values)
                variances = (ours * (1 - ours) / count, theirs * (1 - theirs) / len(values))
                ahead, error = 100 * (ours - theirs), 196 * math.sqrt(sum(variances) / images)
                print(f"    {title}: {theirs:.4f}; the search's is {ahead:+.1f} points, ± {error:.1f}")

            print(f"    search: {mean:.4f} ({pick['network']}@{pick['input_size']}, {pick['latency_ms']:.3f} ms)")
            beside(f"{reference} whole", tests)
            if target >= line[0][0]:
                beside("whole at equal latency", [float(np.interp(target, *zip(*line, strict=True)))])
            other = mine.get("random search", {}).get("picks", {}).get(f"{target:.4g}", {})
            if full := mine.get(f"random #{other.get('trial')} seed 0"):
                beside(f"random ({other['latency_ms']:.3f} ms)", [full["test"]])
            width = widest(mine.get("uniform latency_ms", {}), target)
            if full := mine.get(f"uniform {width} seed 0"):
                beside(f"uniform {width} ({mine['uniform latency_ms'][width]:.3f} ms)", [full["test"]])

    def _images(self) -> Path:
        """Return a folder with the first images of each class, written once; a named data set is written as files."""
        options, folder = self.options, self.out / f"images-{self.options.per_class}-{self.options.test_per_class}"
        if folder.exists():
            return folder
        half = folder.with_name("images.half")
        shutil.rmtree(half, ignore_errors=True)
        for part, count in (("train", options.per_class), ("test", options.test_per_class)):
            if options.data in NAMED:
                self._write_named(half / part, part, count)
                continue
            for source in sorted(p for p in (Path(options.data) / part).iterdir() if p.is_dir()):
                files = sorted(source.iterdir())
                (half / part / source.name).mkdir(parents=True)
                for file in files[:count]:
                    shutil.copy(file, half / part / source.name)
        half.rename(folder)
        return folder

    def _write_named(self, folder: Path, part: str, count: int) -> None:
        dataset = load_dataset(self.options.data, input_size=16, seed=0)
        images = dataset.train if part == "train" else dataset.test
        assert images is not None
        for label, name in enumerate(dataset.classes):
            (folder / name).mkdir(parents=True)
            for place in np.flatnonzero(images.labels == label)[:count]:
                Image.fromarray(np.array(images.images[place])).save(folder / name / f"{place}.png")


if __name__ == "__main__":
    main()
