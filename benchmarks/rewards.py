"""Show where the best model of each reward is for an unlimited search: the best of random members of Accel-NASBench.

    python benchmarks/rewards.py anb_dataset_jsons.tar.gz [--devices latency_zcu102,throughput_a100]

The table lists, for each device, reward and target, the distance of the member with the best reward from the target.
Targets are the costs that a tenth, two tenths, ... eight tenths of 60,000 random members stay below. `slope` is T times
the slope of the pool's front at T: the gain in accuracy for an additional latency of T. Each device takes a minute on
one core.
"""

import argparse
from pathlib import Path

import numpy as np

from mnas.bench.pool import draw_pool, rewards
from mnas.evaluate.accel_nasbench import accel_nasbench
from mnas.objective import AT_TARGET, DEFAULT_WEIGHTS, Objective

QUANTILES = [q / 10 for q in range(1, 9)]
FORMS = ("target", "hard", "absolute", "soft")
DEVICES = "latency_zcu102,latency_vck190,throughput_a100,throughput_tpuv2"
AROUND = 1.25
"""Factor around T within which members of the front determine its slope."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?", help="anb_dataset_jsons.tar.gz, the authors' split/ beside it")
    parser.add_argument("--devices", default=DEVICES, help=f"(default: {DEVICES})")
    options = parser.parse_args()
    if options.archive is None:
        print("skipped: the file anb_dataset_jsons.tar.gz is required (github.com/afzalxo/Accel-NASBench)")
        return
    distances: dict[str, list[float]] = {form: [] for form in FORMS}
    for device in options.devices.split(","):
        pool = draw_pool(accel_nasbench(options.archive, device))
        print(f"{device:<18}{'T':>8}{'slope':>8}" + "".join(f"{form:>10}" for form in FORMS))
        for quantile in QUANTILES:
            target = pool.target(quantile)
            cells = []
            for form in FORMS:
                alpha, beta = DEFAULT_WEIGHTS[form]
                objective = Objective(form=form, target_latency_ms=target, alpha=alpha, beta=beta)
                best = rewards(objective, pool.accuracies, pool.costs).argmax()
                distances[form].append(float(pool.costs[best] / target - 1))
                cells.append(f"{distances[form][-1]:>+10.1%}")
            print(f"{quantile:<18.0%}{target:>8.3g}{_slope(pool.front, target):>8.3f}{''.join(cells)}")
    print(f"within {AT_TARGET:.0%}".ljust(34) + "".join(_within(distances[form]).rjust(10) for form in FORMS))


def _slope(front: list[tuple[float, float]], target: float) -> float:
    """Return T dA/dL; NaN if the front has fewer than two members there."""
    near = [(cost / target, accuracy) for accuracy, cost in front if 1 / AROUND < cost / target < AROUND]
    return float(np.polyfit(*np.array(near).T, 1)[0]) if len(near) > 1 else float("nan")


def _within(distances: list[float]) -> str:
    return f"{sum(abs(d) <= AT_TARGET for d in distances)} of {len(distances)}"


if __name__ == "__main__":
    main()
