"""Measure the cost of a controller: milliseconds per trial for drawing and learning, as a study grows.

The problem has the 42 decisions of the factorized space (seven blocks of 4, 2, 2, 3, 3, 3 choices) and an evaluator
without cost (accuracy is the share of decisions at their last choice, latency a variance). Each controller has its own
batch size, in one process without storage. Each number is the mean over the trials since the number before it. "resume"
is the time of a fresh process until its first draw after all trials. It takes minutes for `surrogate`, and seconds for
each other controller.

    python benchmarks/controller_cost.py [CONTROLLER ...]
"""

import sys
import time

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, create_trial

from mnas.controller.closed import ClosedBatches
from mnas.controller.named import CONTROLLERS, candidates_per_update

SPACE = {
    f"block{block}.{name}": CategoricalDistribution(list(range(choices)))
    for block in range(1, 8)
    for name, choices in zip(("op", "kernel", "se", "skip", "filters", "layers"), (4, 2, 2, 3, 3, 3), strict=True)
}
SIZES = (100, 200, 500, 1000)


def controller(name: str) -> ClosedBatches:
    return ClosedBatches(
        name,
        SPACE,
        directions=["maximize", "minimize"],
        seed=0,
        batch_size=candidates_per_update(name),
        reward=lambda trial: trial.values[0],
    )


def finished(number: int, params: dict[str, int], system_attrs: dict[str, object]) -> FrozenTrial:
    shares = [params[name] / (len(d.choices) - 1) for name, d in SPACE.items()]
    trial = create_trial(
        values=[float(np.mean(shares)), 1 + float(np.var(shares))],
        params=params,
        distributions=SPACE,
        system_attrs=system_attrs,
    )
    trial.number = number
    return trial


def costs(name: str) -> tuple[list[float], float]:
    """Return (ms per trial up to each size, seconds to resume)."""
    batches, trials, per_trial, spent_s = controller(name), [], [], 0.0
    for number in range(SIZES[-1]):
        start_s = time.perf_counter()
        draw = batches.draw(trials, number)
        spent_s += time.perf_counter() - start_s
        trials.append(finished(number, draw.params, draw.system_attrs))
        if len(trials) in SIZES:
            since = len(trials) - (max([0, *(s for s in SIZES if s < len(trials))]))
            per_trial.append(1000 * spent_s / since)
            spent_s = 0.0
    start_s = time.perf_counter()
    controller(name).draw(trials, len(trials))
    return per_trial, time.perf_counter() - start_s


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    controller("ppo").close([])  # the first use of torch's optimisers imports a lot
    print(f"{'ms per trial':12}" + "".join(f"{f'to {size}':>10}" for size in SIZES) + f"{'resume, s':>12}")
    for name in sys.argv[1:] or CONTROLLERS:
        per_trial, resume_s = costs(name)
        print(f"{name:12}" + "".join(f"{ms:10.2f}" for ms in per_trial) + f"{resume_s:12.2f}", flush=True)


if __name__ == "__main__":
    main()
